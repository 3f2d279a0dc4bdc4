"""A transfer of five minutes, on a broker that waits one."""

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

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800), needs_a_broker_of_its_own]


def test_a_transfer_of_five_minutes_is_delivered_by_a_broker_that_waits_one(
    infrastructure: Stack, migrated_template: str, store: WatchedStore, tmp_path: Path
) -> None:
    check_that_no_message_is_kept_too_long(
        Trial(
            mebibytes=150,
            bytes_per_second=0.5 * MIB,
            consumer_timeout=timedelta(seconds=60),
            slice=timedelta(seconds=30),
        ),
        shared=infrastructure,
        template=migrated_template,
        store=store,
        directory=tmp_path,
    )
