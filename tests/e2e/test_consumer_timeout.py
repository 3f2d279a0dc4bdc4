"""A transfer takes longer than the broker lets anybody keep a message."""

from datetime import timedelta
from pathlib import Path

import pytest

from dev.stack.stack import Stack
from tests.e2e.consumer_timeout import (
    Trial,
    check_that_no_message_is_kept_too_long,
    needs_a_broker_of_its_own,
)
from tests.e2e.files import MIB
from tests.e2e.watched_store import WatchedStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240), needs_a_broker_of_its_own]


def test_a_transfer_may_take_longer_than_a_message_may_be_kept(
    infrastructure: Stack, migrated_template: str, store: WatchedStore, tmp_path: Path
) -> None:
    check_that_no_message_is_kept_too_long(
        Trial(
            mebibytes=40,
            bytes_per_second=2.5 * MIB,
            consumer_timeout=timedelta(seconds=12),
            slice=timedelta(seconds=5),
        ),
        shared=infrastructure,
        template=migrated_template,
        store=store,
        directory=tmp_path,
    )
