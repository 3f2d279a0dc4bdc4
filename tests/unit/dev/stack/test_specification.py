import signal
from datetime import datetime, timedelta
from pathlib import Path

from dev.stack import specification
from dev.stack.specification import ProcessSpec


async def ready(_: datetime) -> bool:
    return True


def test_restart_delays_grow_up_to_ten_seconds() -> None:
    delays = [specification.restart_delay(failures) for failures in (1, 2, 3, 6, 7, 1_000)]

    assert delays == [
        timedelta(seconds=0.2),
        timedelta(seconds=0.4),
        timedelta(seconds=0.8),
        timedelta(seconds=6.4),
        timedelta(seconds=10),
        timedelta(seconds=10),
    ]


def test_a_process_receives_its_stop_signal_when_its_supervisor_dies() -> None:
    spec = ProcessSpec(
        name="postgres",
        command=("postgres", "-D", "data"),
        environment={},
        directory=Path("/"),
        is_ready=ready,
        stop_signal=signal.SIGINT,
        user_change=("--reuid", "65534"),
    )

    assert spec.command_line() == (
        *("setpriv", "--pdeathsig", "INT", "--reuid", "65534", "--"),
        *("postgres", "-D", "data"),
    )
