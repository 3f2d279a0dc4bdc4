import os
from pathlib import Path

from dev.stack import ownership

STAT = "4242 (celery) worker) {state} 1 4242 4242 0 -1 4194560 {counters} 0 0 20 0 1 0 {began} 9 9"


def stat_line(*, state: str = "S", began: int) -> str:
    return STAT.format(state=state, counters="0 0 0 0 7 3", began=began)


def test_the_start_time_is_parsed_after_a_name_with_brackets_and_blanks() -> None:
    assert ownership.parse_start_ticks(stat_line(began=987654)) == 987654


def test_a_zombie_counts_as_dead() -> None:
    assert ownership.parse_start_ticks(stat_line(state="Z", began=987654)) is None


def test_a_pid_with_another_start_time_is_another_process() -> None:
    began = ownership.start_ticks(os.getpid())
    assert began is not None

    assert ownership.find(os.getpid(), started=began) is not None
    assert ownership.find(os.getpid(), started=began + 1) is None


def test_an_unused_pid_belongs_to_no_process() -> None:
    beyond = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1

    assert ownership.start_ticks(beyond) is None
