"""`var/dev.env`: the settings of the running stack, for shells and for programs run beside it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dev.stack import private_files
from dev.stack.errors import StackNotRunning

if TYPE_CHECKING:
    from dev.stack.stack import Stack

FILE_NAME: Final = "dev.env"


def write(stack: "Stack") -> None:
    settings = {"WAYBILL_URL": stack.url, "WAYBILL_API_KEY": stack.api_key or ""}
    settings |= stack.environment
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items() if value)
    private_files.write(stack.state_dir / FILE_NAME, lines.encode())


def read(state_dir: Path) -> dict[str, str]:
    """Return the settings by name.

    Raises:
        StackNotRunning: there is no such file.
    """
    try:
        lines = (state_dir / FILE_NAME).read_text().splitlines()
    except FileNotFoundError:
        raise StackNotRunning(state_dir) from None
    pairs = (line.partition("=") for line in lines)
    return {name: "".join(shlex.split(value)) for name, _, value in pairs}


def remove(state_dir: Path) -> None:
    (state_dir / FILE_NAME).unlink(missing_ok=True)
