"""The commands `up`, `down` and `status`."""

import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from dev.stack import daemon, dev_env, leftovers, state
from dev.stack.state import Phase, StackRecord


def up(state_dir: Path, *, services: Sequence[str]) -> int:
    """Start the infrastructure and these services in the background, unless they run already."""
    running = _wait_for_start(state_dir)
    if running is not None:
        print(f"the stack is already {running.phase} (supervisor {running.supervisor.pid})")
        return _print_addresses(state_dir)
    began = time.monotonic()
    launched = daemon.launch(state_dir, services=services)
    try:
        for line in launched.progress():
            print(line, flush=True)
    except KeyboardInterrupt:
        print("interrupted: stopping what has started")
        launched.stop()
        return 1
    if _running(state_dir) is None:
        print(f"the stack did not start; its log is {state_dir / 'log' / 'stack.log'}")
        return 1
    print(f"everything is ready after {time.monotonic() - began:.1f} s")
    return _print_addresses(state_dir)


def down(state_dir: Path) -> int:
    record = state.load(state_dir)
    running = record.supervisor.find() if record else None
    if running is not None:
        print("stopping", flush=True)
        daemon.stop(running)
    ended = leftovers.end(state_dir)
    dev_env.remove(state_dir)
    if ended:
        print(f"ended the processes of a killed supervisor: {', '.join(ended)}")
    print("stopped" if running or ended else "nothing is running")
    return 0


def status(state_dir: Path) -> int:
    record = state.load(state_dir)
    if record is None:
        print("nothing is running")
        return 0
    supervisor = record.supervisor.find()
    condition = record.phase if supervisor else "dead; `make down` ends its processes"
    print(f"supervisor {record.supervisor.pid}: {condition}")
    print(f"{'process':<16} {'pid':>8}  {'restarts':>8}  state")
    for name, process in record.processes.items():
        shown = process.state if process.find() or process.pid is None else "dead"
        print(f"{name:<16} {process.pid or '-':>8}  {process.restarts:>8}  {shown}")
    return 0 if supervisor else 1


def _running(state_dir: Path) -> StackRecord | None:
    """Return the record of a stack with a living supervisor."""
    record = state.load(state_dir)
    return record if record is not None and record.supervisor.find() is not None else None


def _wait_for_start(state_dir: Path) -> StackRecord | None:
    """Wait while another command starts the stack; return the record of a running stack."""
    record = _running(state_dir)
    while record is not None and record.phase is Phase.STARTING:
        time.sleep(0.2)  # the other command is not a child of this process
        record = _running(state_dir)
    return record


def _print_addresses(state_dir: Path) -> int:
    """Print the addresses of the running system, without its secrets."""
    print(f"logs are in {state_dir / 'log'}, settings with credentials in", end=" ")
    print(state_dir / dev_env.FILE_NAME)
    for name, value in dev_env.read(state_dir).items():
        if name.endswith("_URL"):
            print(f"  {name:<24} {_without_password(value)}")
    return 0


def _without_password(url: str) -> str:
    address = urlsplit(url)
    if address.password is None:
        return url
    return url.replace(f":{address.password}@", ":***@", 1)
