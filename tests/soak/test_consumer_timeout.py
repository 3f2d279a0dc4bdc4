"""A transfer of five minutes, on a broker with a consumer timeout of one minute."""

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

pytestmark = [pytest.mark.timeout(1800), needs_local_rabbitmq]


def test_a_transfer_of_five_minutes_completes_with_a_timeout_of_one(
    infrastructure: Stack, migrated_template: str, store_proxy: StoreProxy, tmp_path: Path
) -> None:
    assert_no_message_outlives_the_timeout(
        SlowTransfer(
            mebibytes=150,
            bytes_per_second=0.5 * MIB,
            consumer_timeout=timedelta(seconds=60),
            slice=timedelta(seconds=30),
        ),
        shared=infrastructure,
        template=migrated_template,
        store_proxy=store_proxy,
        directory=tmp_path,
    )
