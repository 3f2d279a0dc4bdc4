"""A program that imports modules once and then forks a process for each request.

`python -m tests.fork_server LISTENER MAIN MODULE…`: LISTENER is an inherited Unix socket of packets. A
request is a JSON object with two descriptors, the standard output and error of the new process, which runs
MAIN without input. The answers are its pid and, later, its exit code. The server ends when its standard input is
closed.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

REQUEST_BYTES_MAX: Final = 256 * 1024
PR_SET_PDEATHSIG: Final = 1


class Request(NamedTuple):
    arguments: list[str]
    environment: dict[str, str]


def preload(main: str, *others: str) -> None:
    for name in (main, *others):
        importlib.import_module(name)
    # The module of `__main__` is no other module.
    del sys.modules[main]
    # Collections in the children would otherwise copy the pages of all modules.
    gc.collect()
    gc.freeze()


def accept_until_forked(listener: socket.socket) -> Request | None:
    """Serve requests; return the request in the new process, or nothing when the server shall end."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    clients: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener, sys.stdin.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _report_ended(clients)
        if sys.stdin.fileno() in ready:
            return None
        if listener in ready:
            client, _ = listener.accept()
            message, outputs, _, _ = socket.recv_fds(client, REQUEST_BYTES_MAX, 2)
            pid = os.fork()
            if pid == 0:
                os.setsid()
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                with Path(os.devnull).open("rb") as nothing:
                    for descriptor, stream in enumerate((nothing.fileno(), *outputs)):
                        os.dup2(stream, descriptor)
                os.closerange(3, max(*outputs, listener.fileno(), client.fileno(), wake) + 1)
                for closed in (listener, client, *clients.values()):
                    closed.detach()
                return Request(**json.loads(message))
            for output in outputs:
                os.close(output)
            clients[pid] = client
            _tell(client, pid)


def _report_ended(clients: dict[int, socket.socket]) -> None:
    while clients:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with clients.pop(pid) as client:
            _tell(client, os.waitstatus_to_exitcode(status))


def _tell(client: socket.socket, number: int) -> None:
    # A test that has ended waits for no answer.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.send(str(number).encode())


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    main_module, *others = sys.argv[2:]
    preload(main_module, *others)
    request = accept_until_forked(listener)
    if request is None:
        return
    environment = os.environ  # noqa: TID251  # as a new process gets it
    environment.clear()
    environment.update(request.environment)
    time.tzset()
    sys.argv = [main_module, *request.arguments]
    runpy.run_module(main_module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
