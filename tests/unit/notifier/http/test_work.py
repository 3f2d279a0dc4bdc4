import pytest

from notifier.http.work import (
    ANSWER_MAX,
    DEBT_MAX,
    DEBT_REPAID,
    DEBTORS_MAX,
    PACED_SHARE,
    PAUSE,
    Work,
)

ADDRESS = "93.184.216.34"
COST = 0.001


def reads_allowed(work: Work, address: str, *, now: float) -> int:
    """Return how many reads one answer of the address gets that takes as much as it can."""
    reads = 0
    while work.is_allowed(address, spent=(reads + 1) * COST, cost=COST, now=now):
        reads += 1
    return reads


def test_an_answer_ends_at_its_bound() -> None:
    assert reads_allowed(Work(), ADDRESS, now=0) == round(ANSWER_MAX / COST)


def test_an_address_that_floods_again_and_again_gets_nothing_beyond_the_free_part() -> None:
    work = Work()
    reads = [reads_allowed(work, ADDRESS, now=0) for _ in range(20)]
    assert sum(reads) * COST <= DEBT_MAX
    assert reads[-1] == 0


def test_another_address_is_not_charged() -> None:
    work = Work()
    for _ in range(20):
        reads_allowed(work, ADDRESS, now=0)
    assert reads_allowed(work, "93.184.216.35", now=0) == round(ANSWER_MAX / COST)


def test_a_debt_shrinks_with_time() -> None:
    work = Work()
    for _ in range(20):
        reads_allowed(work, ADDRESS, now=0)
    debt = DEBT_MAX + 15 * COST  # what is refused is counted too
    assert reads_allowed(work, ADDRESS, now=debt / DEBT_REPAID) == round(ANSWER_MAX / COST)


def test_the_number_of_remembered_addresses_is_bounded() -> None:
    work = Work()
    for number in range(DEBTORS_MAX + 1):
        work.is_allowed(str(number), spent=COST, cost=DEBT_MAX, now=0)
    assert not work.is_allowed("1", spent=COST, cost=COST, now=0)
    assert work.is_allowed("0", spent=COST, cost=COST, now=0)


def test_a_counted_read_is_followed_by_a_pause() -> None:
    assert Work().pause(COST, now=0) == PAUSE


def test_all_counted_reads_together_get_a_share_of_the_loop() -> None:
    work = Work()
    reads = 1000
    last = max(work.pause(COST, now=0) for _ in range(reads))
    assert last == pytest.approx((reads - 1) * COST / PACED_SHARE)
