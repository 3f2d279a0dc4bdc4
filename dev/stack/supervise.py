"""`python -m dev.stack.supervise STATE_DIR [SERVICE…]`: run the stack until SIGTERM.

Progress goes to standard error and, until everything is ready, to standard output too.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from dev.stack import dev_env, environment
from dev.stack.errors import StackError
from dev.stack.services import SERVICES
from dev.stack.stack import Stack


class Progress:
    """Writes progress to the log and, until the stack is ready, to the command that waits for it."""

    def __init__(self) -> None:
        self._is_awaited = True

    def report(self, line: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        print(now, line, file=sys.stderr, flush=True)
        if self._is_awaited:
            try:
                print(line, flush=True)
            except BrokenPipeError:  # the waiting command was killed; the stack runs on
                self.end()

    def end(self) -> None:
        """Close standard output: the waiting command returns."""
        self._is_awaited = False
        with Path(os.devnull).open("wb") as null:
            os.dup2(null.fileno(), sys.stdout.fileno())


def supervise(state_dir: Path, *, services: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = Progress()
    table = [service for service in SERVICES if service.name in services]
    try:
        with Stack(
            state_dir, settings=environment.given(), table=table, report=progress.report
        ) as stack:
            try:
                _start(stack, with_services=bool(table))
                dev_env.write(stack)
                progress.end()
                _wait_for_signal()
            finally:
                # A second signal must not interrupt the stop.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                dev_env.remove(state_dir)
    except KeyboardInterrupt:
        return 0
    except StackError as error:
        progress.report(f"error: {error}")
        return 1
    return 0


def _start(stack: Stack, *, with_services: bool) -> None:
    if with_services:
        stack.start()
    else:
        stack.start_infrastructure()
        stack.declare_running()


def _wait_for_signal() -> None:
    """Wait for SIGTERM or SIGINT; a signal that arrived before the wait also ends the wait."""
    wake, wake_up = os.pipe()
    os.set_blocking(wake_up, False)
    signal.set_wakeup_fd(wake_up)
    os.read(wake, 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.stack.supervise", description=__doc__)
    parser.add_argument("state_dir", type=Path, help="data, logs and secrets")
    parser.add_argument("services", nargs="*", help="none: infrastructure only")
    arguments = parser.parse_args()
    return supervise(arguments.state_dir, services=arguments.services)


if __name__ == "__main__":
    sys.exit(main())
