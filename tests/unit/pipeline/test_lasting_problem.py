"""When a problem calls for an operator."""

from pipeline.messaging.lasting_problem import PATIENCE, REPEATED_AFTER, LastingProblem


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
