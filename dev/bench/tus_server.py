"""The peer of the ingest benchmark: npm's `@tus/server` with its file store, on the same disk."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

SOURCE: Final = Path(__file__).with_name("tus")
GRACE_SECONDS: Final = 10


class TusUnavailable(Exception):
    """The peer cannot take part on this machine."""


@dataclass(frozen=True, kw_only=True)
class TusServer:
    url: str
    pid: int
    directory: Path


def versions() -> dict[str, str]:
    """Return the installed versions."""
    package = msgspec.json.decode((SOURCE / "package.json").read_bytes())
    return dict(package["dependencies"])


@contextmanager
def running(home: Path) -> Iterator[TusServer]:
    """Install the server under `home` unless it is installed, and run it.

    Raises:
        TusUnavailable: Node.js is missing, or its packages cannot be downloaded.
    """
    _install(home)
    directory = home / "files"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    with subprocess.Popen(
        ["node", "server.mjs", str(directory)], cwd=home, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield TusServer(
                url=f"http://127.0.0.1:{_port_of(process)}", pid=process.pid, directory=directory
            )
        finally:
            process.terminate()
            process.wait(GRACE_SECONDS)
            shutil.rmtree(directory)


def _install(home: Path) -> None:
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        raise TusUnavailable(f"{' and '.join(missing)} not found")
    home.mkdir(parents=True, exist_ok=True)
    shutil.copy(SOURCE / "server.mjs", home)
    wanted = (SOURCE / "package.json").read_bytes()
    # Written last, so that an interrupted installation is repeated.
    installed = home / "installed.json"
    if installed.exists() and installed.read_bytes() == wanted:
        return
    (home / "package.json").write_bytes(wanted)
    result = subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"],
        cwd=home,
        check=False,
        capture_output=True,
        text=True,
    )
    if result.returncode != 0:
        raise TusUnavailable("npm cannot install its packages")
    installed.write_bytes(wanted)


def _port_of(process: subprocess.Popen[str]) -> int:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise TusUnavailable("it does not start")
    return int(line)
