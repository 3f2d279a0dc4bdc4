from datetime import timedelta

import pytest

from pipeline.consumer import DELIVERY_HEADER
from pipeline.event_task import Delivery, tier_after


@pytest.mark.parametrize(
    ("attempt", "delay"),
    [
        (0, timedelta(seconds=5)),
        (1, timedelta(seconds=30)),
        (2, timedelta(minutes=5)),
        (3, timedelta(minutes=5)),
        (9_999, timedelta(minutes=5)),
    ],
)
def test_an_event_waits_longer_after_each_try(attempt: int, delay: timedelta) -> None:
    assert tier_after(attempt).delay == delay


def test_a_first_delivery_has_no_history() -> None:
    assert Delivery.of({}) == Delivery(attempt=0, crashes=0, traceparent=None)


def test_a_delivery_carries_what_the_consumer_took_off_the_wire() -> None:
    header = {"attempt": 2, "crashes": 1, "traceparent": "00-ab-cd-01"}
    assert Delivery.of({DELIVERY_HEADER: header}) == Delivery(
        attempt=2, crashes=1, traceparent="00-ab-cd-01"
    )
