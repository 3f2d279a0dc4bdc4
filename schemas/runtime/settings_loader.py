"""Reads the settings of a process from its environment and its mounted secrets."""

import sys
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRETS: Final = Path("/run/secrets")


def program() -> str:
    """Return the name of the program that runs: `waybill`, or `python -m gateway`."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module is not None:
        return f"python -m {module.name.removesuffix('.__main__')}"
    return Path(sys.argv[0]).name


class ServiceSettings(BaseSettings):
    """Base of the settings a process composes from the sections of `schemas.settings`."""

    # Without decoding, a list is comma separated instead of JSON.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", enable_decoding=False)

    @classmethod
    def read(cls, *, secrets: Path = SECRETS) -> Self:
        """Return the settings.

        Raises:
            pydantic.ValidationError: a setting is missing or invalid.
        """
        return cls(_secrets_dir=secrets if secrets.is_dir() else None)

    @classmethod
    def load(cls, *, service: str = "", secrets: Path = SECRETS) -> Self:
        """Return the settings; print each missing or invalid setting and exit with status 2.

        Args:
            service: named in the message; by default the program that runs.
            secrets: directory with a file for each secret.
        """
        try:
            return cls.read(secrets=secrets)
        except ValidationError as error:
            service = service or program()
            # The input stays out of the message: it may be a password.
            for problem in error.errors(include_input=False, include_url=False):
                # A rule over several settings has no location; its message names the settings. Parts
                # after the first are places in a list.
                name = "".join(map(str, problem["loc"][:1])).upper()
                text = problem["msg"].removeprefix("Value error, ")
                subject = f"{name}: {text}" if name else text
                print(f"{service}: setting {subject}", file=sys.stderr)  # noqa: T201  # no log is configured yet
            raise SystemExit(2) from None
