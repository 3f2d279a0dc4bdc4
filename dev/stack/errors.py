"""Errors of the local stack; each message names the remedy."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path


class StackError(Exception):
    """Base class of the local stack's errors."""


class StackAlreadyRunning(StackError):
    def __init__(self, state_dir: Path, *, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"a stack already runs in {state_dir} ({holder})")
        self.pid = pid


class StackNotRunning(StackError):
    def __init__(self, state_dir: Path) -> None:
        super().__init__(f"nothing runs in {state_dir}: `make up` starts the stack")


class LogMissing(StackError):
    def __init__(self, name: str, *, known: Iterable[str]) -> None:
        super().__init__(f"{name!r} has no log; there are logs of {', '.join(known)}")


class ProcessKeepsDying(StackError):
    def __init__(self, name: str, *, deaths: int, exit_code: int | None, log_file: Path) -> None:
        super().__init__(
            f"{name} died {deaths} times before it was ready (last exit code {exit_code})\n"
            + _last_lines(log_file)
        )


class ProcessNotReady(StackError):
    def __init__(self, name: str, *, waited: timedelta, log_file: Path) -> None:
        super().__init__(
            f"{name} was not ready after {waited.total_seconds():.0f} s\n" + _last_lines(log_file)
        )


class ProcessDidNotEnd(StackError):
    def __init__(self, survivors: Sequence[str]) -> None:
        super().__init__(f"still running after SIGKILL: {', '.join(survivors)}")


class CommandFailed(StackError):
    def __init__(self, command: Sequence[str], *, exit_code: int, output: str) -> None:
        super().__init__(f"`{' '.join(command)}` failed with exit code {exit_code}\n{output}")


class ProgramMissing(StackError):
    def __init__(self, program: str, *, remedy: str) -> None:
        super().__init__(f"{program} is not installed: {remedy}")


class SettingMissing(StackError):
    def __init__(self, name: str, *, because: str) -> None:
        super().__init__(f"{name} must be set, because {because}")


class PortTaken(StackError):
    def __init__(self, name: str, *, port: int) -> None:
        super().__init__(f"{name} needs port {port} of 127.0.0.1, which is in use")


class NoFreePort(StackError):
    def __init__(self, *, first: int, last: int) -> None:
        super().__init__(f"found no free port of 127.0.0.1 between {first} and {last}")


class ExtendedAttributesUnsupported(StackError):
    def __init__(self, directory: Path, *, reason: str) -> None:
        super().__init__(
            f"the file system of {directory} has no user extended attributes ({reason}); Swift"
            " stores the metadata of objects in them: put the checkout on ext4, xfs or btrfs,"
            " or set S3_ENDPOINT_URL"
        )


class PostgresCannotRunAsRoot(StackError):
    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"PostgreSQL refuses to run as root, and the user nobody cannot reach {data_dir}:"
            " put the checkout into a directory that other users can enter, or set DATABASE_URL"
        )


class UserHasNoName(StackError):
    def __init__(self, uid: int) -> None:
        super().__init__(
            f"user {uid} has no entry in /etc/passwd, which Swift needs: set S3_ENDPOINT_URL"
        )


def _last_lines(log_file: Path, *, count: int = 15) -> str:
    if not log_file.exists():
        return f"no log at {log_file}"
    lines = log_file.read_text(errors="replace").splitlines()[-count:]
    return "\n".join([f"the end of {log_file}:", *(f"  {line}" for line in lines)])
