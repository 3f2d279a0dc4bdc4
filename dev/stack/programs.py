"""Programs that run in the foreground with the settings of the running stack."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from dev.stack import dev_env, environment, postgres
from dev.stack.checkout import CHECKOUT, PROGRAMS
from dev.stack.errors import LogMissing, ProgramMissing, StackNotRunning

LINES_SHOWN = 20


def settings_of(state_dir: Path) -> dict[str, str]:
    """Return the environment in which a program reaches the running stack.

    Raises:
        StackNotRunning: no stack runs in this directory.
    """
    return environment.of_services(PROGRAMS) | dev_env.read(state_dir)


def run(state_dir: Path, command: Sequence[str]) -> NoReturn:
    """Replace this process by a program that reads the stack's settings."""
    _replace_by(command, settings=settings_of(state_dir))


def psql(state_dir: Path, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by psql, connected to the stack's database."""
    settings = settings_of(state_dir)
    address = urlsplit(settings["DATABASE_URL"])._replace(scheme="postgresql")
    login, _, host = address.netloc.rpartition("@")
    url = address._replace(netloc=f"{login.partition(':')[0]}@{host}" if login else host).geturl()
    # In the environment, because a command line is visible to every user of the machine.
    settings["PGPASSWORD"] = unquote(address.password or "")
    _replace_by([str(postgres.programs() / "psql"), url, *arguments], settings=settings)


def follow_logs(state_dir: Path, names: Sequence[str]) -> NoReturn:
    """Replace this process by `tail`, which follows the logs of these processes or of all.

    Raises:
        StackNotRunning: no stack runs in this directory.
        LogMissing: no process of the stack has this name.
    """
    if not (state_dir / dev_env.FILE_NAME).exists():
        raise StackNotRunning(state_dir)
    logs = {file.stem: file for file in sorted((state_dir / "log").glob("*.log"))}
    for name in names:
        if name not in logs:
            raise LogMissing(name, known=logs)
    files = [str(logs[name]) for name in names or logs]
    _replace_by(["tail", f"--lines={LINES_SHOWN}", "-F", *files], settings=settings_of(state_dir))


def _replace_by(command: Sequence[str], *, settings: Mapping[str, str]) -> NoReturn:
    os.chdir(CHECKOUT)
    try:
        os.execvpe(command[0], list(command), settings)  # noqa: S606  # the developer names the program
    except FileNotFoundError:
        raise ProgramMissing(command[0], remedy="make install, or install it yourself") from None
