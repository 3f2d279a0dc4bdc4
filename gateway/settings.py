"""The only reader of the environment in this package."""

import sys
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.settings import (
    DatabaseSettings,
    HttpSettings,
    ProcessSettings,
    StagingSettings,
    UploadSettings,
    WebhookTargetSettings,
)

API_PREFIX: Final = "/api/v1"
SECRETS: Final = Path("/run/secrets")


class Settings(
    DatabaseSettings,
    StagingSettings,
    UploadSettings,
    HttpSettings,
    WebhookTargetSettings,
    ProcessSettings,
    BaseSettings,
):
    """Everything the server needs to know."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


class AdministrationSettings(DatabaseSettings, ProcessSettings, BaseSettings):
    """What the commands beside the server need: the database alone."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


Sections = TypeVar("Sections", Settings, AdministrationSettings)


def load(sections: type[Sections]) -> Sections:
    """Read the environment and mounted secrets; exit with the name of what is missing."""
    try:
        return sections(_secrets_dir=SECRETS if SECRETS.is_dir() else None)
    except ValidationError as error:
        # The values themselves stay out of the message: one of them may be a password.
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"gateway: setting {name}: {problem['msg']}", file=sys.stderr)  # noqa: T201  # there is no log yet
        raise SystemExit(2) from None
