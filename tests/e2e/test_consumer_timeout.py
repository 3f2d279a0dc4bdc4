"""A transfer takes longer than the consumer timeout of the broker."""

from datetime import timedelta
from pathlib import Path

import pytest

from dev.stack.stack import Stack
from tests.e2e.consumer_timeout import (
    SlowTransfer,
    assert_no_message_outlives_the_timeout,
    needs_local_rabbitmq,
)
from tests.e2e.files import MIB
from tests.e2e.store_proxy import StoreProxy

pytestmark = [pytest.mark.timeout(240), needs_local_rabbitmq]


def test_a_transfer_longer_than_the_consumer_timeout_completes(
    infrastructure: Stack, migrated_template: str, store_proxy: StoreProxy, tmp_path: Path
) -> None:
    assert_no_message_outlives_the_timeout(
        SlowTransfer(
            mebibytes=40,
            bytes_per_second=2.5 * MIB,
            consumer_timeout=timedelta(seconds=12),
            slice=timedelta(seconds=5),
        ),
        shared=infrastructure,
        template=migrated_template,
        store_proxy=store_proxy,
        directory=tmp_path,
    )
