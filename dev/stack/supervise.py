"""``python -m dev.stack.supervise STATE_DIR``: run the stack until SIGTERM.

Progress goes to standard output until everything is ready, and to standard error always.
"""

import argparse
import os
import signal
import sys
from datetime import datetime
from pathlib import Path

from dev.stack import dev_env, environment
from dev.stack.errors import StackError
from dev.stack.stack import Stack


class Audience:
    """Whoever waits for the stack to be ready reads standard output."""

    def __init__(self) -> None:
        self._is_present = True

    def tell(self, line: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        print(now, line, file=sys.stderr, flush=True)
        if self._is_present:
            try:
                print(line, flush=True)
            except BrokenPipeError:  # the waiting command was killed; the stack goes on
                self.dismiss()

    def dismiss(self) -> None:
        """Close standard output, which tells the waiting command that this is all."""
        self._is_present = False
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())


def supervise(state_dir: Path, *, with_services: bool) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    audience = Audience()
    try:
        with Stack(state_dir, settings=environment.given(), report=audience.tell) as stack:
            try:
                _start(stack, with_services=with_services)
                dev_env.write(stack)
                audience.dismiss()
                _wait_for_signal()
            finally:
                # A second signal must not stop the stopping.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                dev_env.remove(state_dir)
    except KeyboardInterrupt:
        return 0
    except StackError as error:
        audience.tell(f"error: {error}")
        return 1
    return 0


def _start(stack: Stack, *, with_services: bool) -> None:
    if with_services:
        stack.start()
    else:
        stack.start_infrastructure()
        stack.declare_running()


def _wait_for_signal() -> None:
    """Wait for SIGTERM or SIGINT; one that comes just before the wait ends it too."""
    wake, wake_up = os.pipe()
    os.set_blocking(wake_up, False)
    signal.set_wakeup_fd(wake_up)
    os.read(wake, 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.stack.supervise", description=__doc__)
    parser.add_argument("state_dir", type=Path, help="data, logs and secrets")
    parser.add_argument("--infrastructure-only", action="store_true")
    arguments = parser.parse_args()
    return supervise(arguments.state_dir, with_services=not arguments.infrastructure_only)


if __name__ == "__main__":
    sys.exit(main())
