"""`python -m dev.run SERVICE`: one service in the foreground, restarted when its code changes.

The service runs on the stack that `make up` started. The gateway takes a port of its own
if the stack's gateway runs too.
"""

import argparse
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Final

from watchfiles import Change, PythonFilter, watch

from dev.stack import ports, programs, state
from dev.stack.checkout import CHECKOUT
from dev.stack.errors import StackError
from dev.stack.services import SERVICES, Readiness, Service

WATCHED: Final = tuple(CHECKOUT / name for name in ("gateway", "notifier", "pipeline", "schemas"))
# An open request or a task may take longer: it is cut off, as by a crash.
STOP_GRACE_SECONDS: Final = 10
POLL_MILLISECONDS: Final = 500


class Child:
    """The service's process; the kernel stops it if this process dies."""

    def __init__(self, service: Service, *, environment: Mapping[str, str]) -> None:
        # A second Celery node of the same name would be refused by the broker.
        command = (part.replace("@%h", "-run@%h") for part in service.command)
        self._command = ("setpriv", "--pdeathsig", "TERM", "--", *command)
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=CHECKOUT, env=self._environment)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def died(self) -> int | None:
        """Return the exit code, once, after the process has ended by itself; otherwise None."""
        exit_code = self._process.poll() if self._process is not None else None
        if exit_code is not None:
            self._process = None
        return exit_code


def run(service: Service, *, state_dir: Path, watched: Sequence[Path] = WATCHED) -> None:
    """Run a service until SIGINT or SIGTERM.

    Raises:
        StackNotRunning: no stack runs in this directory.
    """
    environment = programs.settings_of(state_dir) | {"LOG_FORMAT": "console"}
    if service.readiness is Readiness.HEALTH_ENDPOINT:
        environment["GATEWAY_PORT"] = str(_free_port(int(environment["GATEWAY_PORT"])))
        _say(f"{service.name} listens on http://127.0.0.1:{environment['GATEWAY_PORT']}")
    elif _runs_in_stack(service, state_dir=state_dir):
        _say(f"the stack's own {service.name} takes part of the work; to leave it out:")
        _say(f"  make down && make up WITHOUT={service.name}")
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    child = Child(service, environment=environment)
    child.start()
    try:
        for changes in watch(
            *watched,
            watch_filter=PythonFilter(),
            stop_event=stop,
            rust_timeout=POLL_MILLISECONDS,
            yield_on_timeout=True,
        ):
            if changes:
                _say(f"{_names(changes)} changed: restarting {service.name}")
                child.stop()
                child.start()
            elif (exit_code := child.died()) is not None:
                _say(f"{service.name} ended with exit code {exit_code}; the next change starts it")
    finally:
        child.stop()


def _free_port(of_stack: int) -> int:
    """Return the stack's gateway port if it is free, else the next port or another free port."""
    preferred = of_stack if ports.is_free(of_stack) else of_stack + 1
    chosen = ports.choose(
        ("gateway",),
        preferred={"gateway": preferred},
        is_free=ports.is_free,
        random_below=secrets.randbelow,
    )
    return chosen["gateway"]


def _runs_in_stack(service: Service, *, state_dir: Path) -> bool:
    record = state.load(state_dir)
    return record is not None and service.name in record.processes


def _names(changes: Iterable[tuple[Change, str]]) -> str:
    return ", ".join(sorted(os.path.relpath(path, CHECKOUT) for _, path in changes))


def _say(line: str) -> None:
    print(f"run: {line}", file=sys.stderr, flush=True)


def main() -> int:
    services = {service.name: service for service in SERVICES}
    parser = argparse.ArgumentParser(prog="python -m dev.run", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=CHECKOUT / "var")
    parser.add_argument("service", choices=services, metavar="SERVICE", help=", ".join(services))
    arguments = parser.parse_args()
    try:
        run(services[arguments.service], state_dir=arguments.state_dir.resolve())
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
