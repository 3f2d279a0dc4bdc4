"""When a problem calls for an operator."""

from datetime import timedelta

from schemas.runtime.lasting_problem import PATIENCE, REPEATED_AFTER, LastingProblem


def test_only_a_problem_that_lasts_calls_for_an_operator() -> None:
    now = 0.0
    problem = LastingProblem(monotonic=lambda: now)
    assert [problem.met() for _ in range(30)] == [False] * 30
    now += PATIENCE.total_seconds() - 1
    assert not problem.met()
    problem.solved()
    now += PATIENCE.total_seconds()
    assert not problem.met()
    now += PATIENCE.total_seconds()
    assert [problem.met() for _ in range(30)] == [True] + [False] * 29
    now += REPEATED_AFTER.total_seconds()
    assert problem.met()


def test_a_problem_that_is_not_met_any_more_has_ended() -> None:
    now = 0.0
    problem = LastingProblem(ends_after=timedelta(minutes=1), monotonic=lambda: now)
    called = []
    for _ in range(5):
        called.append(problem.met())
        now += 61
    assert called == [False] * 5
    for _ in range(5):
        called.append(problem.met())
        now += 59
    assert called[5:] == [False, False, False, True, False]
