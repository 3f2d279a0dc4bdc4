"""Debian's clamd with signatures of the tests: EICAR's test file, and a marker of the project."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Final

import pytest
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from dev.stack import ports
from dev.stack.checkout import CHECKOUT
from dev.stack.environment import of_infrastructure

UNPACKED: Final = CHECKOUT / "var" / "clamav"
PROGRAMS: Final = (UNPACKED / "usr" / "sbin" / "clamd", Path("/usr/sbin/clamd"))

# In two halves: no file of the repository may contain it, or scanners would delete that file.
EICAR: Final = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-" + rb"ANTIVIRUS-TEST-FILE!$H+H*"
EICAR_SIGNATURE: Final = "Waybill.Test.Eicar.UNOFFICIAL"
MARKER: Final = b"the marker of a file " + b"that the tests call malware"
MARKER_SIGNATURE: Final = "Waybill.Test.Marker.UNOFFICIAL"

STREAM_MAX: Final = 1024 * 1024
"""`StreamMaxLength`; small, so that a test exceeds it soon."""

CONFIGURATION: Final = """
Foreground yes
LocalSocket {directory}/clamd.ctl
TCPAddr 127.0.0.1
TCPSocket {port}
DatabaseDirectory {directory}/signatures
TemporaryDirectory {directory}
StreamMaxLength {stream_max}
AlertExceedsMax yes
MaxThreads 4
"""


class Scanner:
    """clamd in a directory; killed and started by tests, at the same address."""

    def __init__(self, directory: Path) -> None:
        program = next((path for path in PROGRAMS if path.exists()), None)
        if program is None:
            pytest.fail("there is no clamd; `make clamav` unpacks one")
        chosen = ports.choose(
            ["clamd"], preferred={}, is_free=ports.is_free, random_below=SystemRandom().randrange
        )
        self.port = chosen["clamd"]
        self._directory = directory
        self._configuration = directory / "clamd.conf"
        self._command = (str(program), f"--config-file={self._configuration}")
        self._process: subprocess.Popen[bytes] | None = None
        self._signatures = directory / "signatures" / "tests.ndb"
        self._signatures.parent.mkdir()
        self.add_signature("Waybill.Test.Eicar", EICAR)
        self.add_signature("Waybill.Test.Marker", MARKER)
        self._configuration.write_text(
            CONFIGURATION.format(directory=directory, port=self.port, stream_max=STREAM_MAX)
        )

    @contextmanager
    def signature(self, name: str, content: bytes) -> Iterator[None]:
        """Let files that contain these bytes be found within the block; clamd starts anew."""
        before = self._signatures.read_bytes()
        self.halt()
        self.add_signature(name, content)
        self.start()
        try:
            yield
        finally:
            self.halt()
            self._signatures.write_bytes(before)
            self.start()

    @property
    def url(self) -> str:
        return f"clamd://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self._directory / "clamd.ctl"

    def add_signature(self, name: str, content: bytes) -> None:
        """Let files that contain these bytes be found, from the next start or reload on."""
        with self._signatures.open("a") as signatures:
            signatures.write(f"{name}:0:*:{content.hex()}\n")

    def start(self) -> None:
        """Start the process and return once it answers."""
        libraries = next(UNPACKED.rglob("libclamav.so.*"), Path("/none")).parent
        with (self._directory / "clamd.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=of_infrastructure() | {"LD_LIBRARY_PATH": str(libraries)},
                stdout=log,
                stderr=log,
            )
        self._await_answer()

    def halt(self) -> None:
        """SIGKILL the process and leave it down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def reload(self) -> None:
        """Load the signatures again; scans go on meanwhile."""
        self.ask(b"zRELOAD\0")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the process with SIGSTOP; its port still accepts connections."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def ask(self, command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(command)
            return connection.recv(4096)

    @retry(
        retry=retry_if_exception_type(OSError),
        stop=stop_after_delay(60),
        wait=wait_fixed(0.05),
        reraise=True,
    )
    def _await_answer(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "clamd.log").read_text()
        assert self.ask(b"zPING\0") == b"PONG\0"


@contextmanager
def scanner_in(directory: Path) -> Iterator[Scanner]:
    """Run clamd with its files in a new directory."""
    scanner = Scanner(directory)
    scanner.start()
    try:
        yield scanner
    finally:
        scanner.halt()
