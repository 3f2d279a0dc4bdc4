"""The only reader of the environment in this package."""

import sys
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.lifecycle import StagingKind
from schemas.settings import (
    DatabaseSettings,
    HttpSettings,
    ObjectStoreSettings,
    ProcessSettings,
    QuotaSettings,
    ScratchSettings,
    StagingSettings,
    UploadSettings,
    WebhookTargetSettings,
)

API_PREFIX: Final = "/api/v1"
SECRETS: Final = Path("/run/secrets")


class Settings(
    DatabaseSettings,
    StagingSettings,
    ScratchSettings,
    UploadSettings,
    QuotaSettings,
    HttpSettings,
    WebhookTargetSettings,
    ProcessSettings,
    BaseSettings,
):
    """Everything the server needs to know."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


class StoreSettings(ObjectStoreSettings, BaseSettings):
    """What the server needs besides where `STAGING=s3`."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


class AdministrationSettings(DatabaseSettings, QuotaSettings, ProcessSettings, BaseSettings):
    """What the commands beside the server need: the database, and the quotas it has by default."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


Sections = TypeVar("Sections", Settings, StoreSettings, AdministrationSettings)


def load_store(settings: Settings) -> StoreSettings | None:
    """Read where the object store is, if it is needed or told; exit where it is needed and not told.

    With `STAGING=directory` it serves uploads begun with `STAGING=s3`, and nothing else.
    """
    if settings.staging == StagingKind.OBJECTS:
        return load(StoreSettings)
    try:
        return StoreSettings(_secrets_dir=_secrets())
    except ValidationError:
        return None


def load(sections: type[Sections]) -> Sections:
    """Read the environment and mounted secrets; exit with the name of what is missing."""
    try:
        return sections(_secrets_dir=_secrets())
    except ValidationError as error:
        # The values themselves stay out of the message: one of them may be a password.
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"gateway: setting {name}: {problem['msg']}", file=sys.stderr)  # noqa: T201  # there is no log yet
        raise SystemExit(2) from None


def _secrets() -> Path | None:
    return SECRETS if SECRETS.is_dir() else None
