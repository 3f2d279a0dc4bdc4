"""Writes docs/settings.md from `schemas.settings`: `python -m dev.settings_table`."""

import inspect
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ByteSize
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

import gateway.settings
import notifier.settings
import pipeline.settings
from dev.stack.checkout import CHECKOUT
from schemas import settings as sections

PAGE: Final = CHECKOUT / "docs" / "settings.md"

SERVICES: Final[Mapping[str, type[BaseSettings]]] = MappingProxyType(
    {
        "gateway": gateway.settings.Settings,
        "pipeline": pipeline.settings.Settings,
        "notifier": notifier.settings.DeliverSettings,
    },
)
"""The settings of each service; `pipeline` means the workers and beat, `notifier` relay and deliver."""

INTRODUCTION: Final = """\
# Settings

<!-- Written by `python -m dev.settings_table` from schemas/settings.py; edit that. -->

Every setting is an environment variable, or a file of the same name in lower case in
`/run/secrets` (`/run/secrets/database_url`); the variable takes precedence. A service does not
start if a setting is missing or invalid; it prints the name of the setting.

- Durations: `250ms`, `10s`, `5m`, `24h`, `7d`, plain seconds, or ISO 8601 (`PT10S`).
- Sizes: `16MiB`, `100GB`, or plain bytes.
- Switches: `true` and `false`.

`pipeline` means both workers (transfer and ingest) and beat; `notifier` means relay and deliver.
With `STAGING=s3` the gateway also reads the object store's settings. The migration
(`alembic upgrade head`) reads only `DATABASE_URL`.
"""

_DURATIONS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_SIZES: Final = {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024, "B": 1}


def page() -> str:
    """Return the whole of docs/settings.md."""
    return "\n".join([INTRODUCTION, *(table(section) for section in all_sections())])


def all_sections() -> Iterator[type[BaseModel]]:
    """Yield the sections of `schemas.settings` in their order in the module."""
    for member in vars(sections).values():
        if (
            inspect.isclass(member)
            and issubclass(member, BaseModel)
            and member.__module__ == sections.__name__
        ):
            yield member


def table(section: type[BaseModel]) -> str:
    lines = [
        f"## {title(section)}",
        "",
        "| variable | default | meaning | read by |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{variable(name, field)}` | {default(field)} | {meaning(field)} | {readers(name)} |"
            for name, field in section.model_fields.items()
        ),
    ]
    return "\n".join([*lines, ""])


def title(section: type[BaseModel]) -> str:
    words = re.findall(r"[A-Z][a-z]+", section.__name__.removesuffix("Settings"))
    return " ".join(words).capitalize().replace("Http", "HTTP")


def variable(name: str, field: FieldInfo) -> str:
    """Return the name of the environment variable for a field; the first name if it has several."""
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0]).upper()
    return name.upper()


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.default
    return "unset" if value in (None, ()) else f"`{written(value)}`"


def written(value: object) -> str:
    """Return a value as it is written in an environment variable."""
    match value:
        case bool():
            return str(value).lower()
        case timedelta():
            unit = next(unit for unit, length in _DURATIONS.items() if not value % length)
            return f"{value // _DURATIONS[unit]}{unit}"
        case tuple():
            return ",".join(map(written, value))
        case ByteSize():
            unit = next(unit for unit, length in _SIZES.items() if not value % length)
            return f"{value // _SIZES[unit]}{unit}"
        case _:
            return str(value)


def meaning(field: FieldInfo) -> str:
    text = field.description or ""
    if get_origin(field.annotation) is Literal:
        text += f" ({', '.join(f'`{choice}`' for choice in get_args(field.annotation))})"
    return text.replace("|", r"\|")


def readers(name: str) -> str:
    reading = [service for service, read in SERVICES.items() if name in read.model_fields]
    return "all" if len(reading) == len(SERVICES) else ", ".join(reading)


def write(file: Path = PAGE) -> None:
    file.write_text(page())


if __name__ == "__main__":
    write()
