from itertools import accumulate
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.rate_limit import Decision, RateLimit, TenantRates, decide
from schemas.ids import TenantId
from schemas.settings import RequestRateSettings

SECOND = 1_000_000_000

LIMIT = RateLimit(burst=3, interval_ns=SECOND // 10)

limits = st.builds(RateLimit, burst=st.integers(1, 50), interval_ns=st.integers(1, 100 * SECOND))
pauses = st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=200)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 7 * SECOND

    def __call__(self) -> int:
        return self.now_ns


def decisions_at(times_ns: list[int], *, limit: RateLimit) -> list[Decision]:
    """Decide on one request at each time, the first with a full bucket."""
    decisions: list[Decision] = []
    full_at_ns = 0
    for now_ns in times_ns:
        decisions.append(decide(full_at_ns, now_ns=now_ns, limit=limit))
        full_at_ns = decisions[-1].full_at_ns
    return decisions


@given(limit=limits, pauses_ns=pauses)
def test_no_period_admits_more_than_the_burst_and_the_rate(
    limit: RateLimit, pauses_ns: list[int]
) -> None:
    times_ns = list(accumulate(pauses_ns))
    decisions = decisions_at(times_ns, limit=limit)
    admitted_at = [at for at, one in zip(times_ns, decisions, strict=True) if one.is_admitted]

    for first, start_ns in enumerate(admitted_at):
        for last, end_ns in enumerate(admitted_at[first:], start=first):
            admitted = last - first + 1
            assert admitted <= limit.burst + (end_ns - start_ns) / limit.interval_ns


@given(limit=limits, pauses_ns=pauses)
def test_the_remaining_requests_are_admitted_and_the_next_is_not(
    limit: RateLimit, pauses_ns: list[int]
) -> None:
    now_ns = sum(pauses_ns)
    last = decisions_at(list(accumulate(pauses_ns)), limit=limit)[-1]
    full_at_ns = last.full_at_ns
    for _ in range(last.remaining):
        decision = decide(full_at_ns, now_ns=now_ns, limit=limit)
        assert decision.is_admitted
        full_at_ns = decision.full_at_ns

    refused = decide(full_at_ns, now_ns=now_ns, limit=limit)
    assert not refused.is_admitted
    assert refused.full_at_ns == full_at_ns


@given(limit=limits, pauses_ns=pauses)
def test_a_request_after_the_stated_wait_is_admitted(
    limit: RateLimit, pauses_ns: list[int]
) -> None:
    last = decisions_at(list(accumulate(pauses_ns)), limit=limit)[-1]
    later_ns = sum(pauses_ns) + last.next_in_s * SECOND

    assert last.next_in_s >= 1
    assert decide(last.full_at_ns, now_ns=later_ns, limit=limit).is_admitted


def test_the_settings_give_the_limit() -> None:
    limit = RateLimit.from_settings(RequestRateSettings(request_rate=0.5, request_burst=3))

    assert limit == RateLimit(burst=3, interval_ns=2 * SECOND)
    assert limit.policy == '"tenant";q=3;w=6'


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_a_rate_is_positive_and_finite(rate: float) -> None:
    with pytest.raises(ValueError, match="request_rate"):
        RequestRateSettings(request_rate=rate)


def test_a_full_bucket_is_forgotten() -> None:
    clock = Clock()
    rates = TenantRates(LIMIT, monotonic_ns=clock)
    for _ in range(100):
        rates.take(TenantId(uuid4()))
    assert len(rates) == 100

    clock.now_ns += LIMIT.refill_ns
    rates.take(TenantId(uuid4()))
    assert len(rates) == 1


def test_tenants_have_separate_buckets() -> None:
    rates = TenantRates(LIMIT, monotonic_ns=Clock())
    busy, other = TenantId(uuid4()), TenantId(uuid4())
    while rates.take(busy).is_admitted:
        pass

    assert rates.take(other) == Decision(
        is_admitted=True, full_at_ns=7 * SECOND + SECOND // 10, remaining=2, next_in_s=1
    )
