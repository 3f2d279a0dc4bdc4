"""The file other programs source to find the running system."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from dev.stack import private_files

if TYPE_CHECKING:
    from dev.stack.stack import Stack

FILE_NAME: Final = "dev.env"
SETTINGS: Final = (
    "RABBITMQ_URL",
    "RABBITMQ_MANAGEMENT_URL",
    "DATABASE_URL",
    "S3_ENDPOINT_URL",
    "S3_BUCKET",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
)


def write(stack: "Stack") -> None:
    settings = {"WAYBILL_URL": stack.url, "WAYBILL_API_KEY": stack.api_key or ""}
    settings |= {name: stack.environment.get(name, "") for name in SETTINGS}
    lines = "".join(f"{name}={value}\n" for name, value in settings.items() if value)
    private_files.write(stack.state_dir / FILE_NAME, lines.encode())


def read(state_dir: Path) -> dict[str, str]:
    lines = (state_dir / FILE_NAME).read_text().splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def remove(state_dir: Path) -> None:
    (state_dir / FILE_NAME).unlink(missing_ok=True)
