"""The only reader of the environment in this package."""

import sys
from pathlib import Path

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.settings import (
    BrokerSettings,
    CelerySettings,
    DatabaseSettings,
    IngestSettings,
    LivenessSettings,
    ObjectStoreSettings,
    ProcessSettings,
    QuotaSettings,
    ScratchSettings,
    StagingSettings,
    SweepSettings,
    TransferSettings,
)

SECRETS = Path("/run/secrets")


class Settings(
    DatabaseSettings,
    BrokerSettings,
    ObjectStoreSettings,
    StagingSettings,
    ScratchSettings,
    TransferSettings,
    QuotaSettings,
    SweepSettings,
    IngestSettings,
    CelerySettings,
    LivenessSettings,
    ProcessSettings,
    BaseSettings,
):
    """Everything a pipeline worker needs to know."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")


def load() -> Settings:
    """Read the environment and mounted secrets; exit with the name of what is missing."""
    try:
        return Settings(_secrets_dir=SECRETS if SECRETS.is_dir() else None)
    except ValidationError as error:
        # The values themselves stay out of the message: one of them may be a password.
        for problem in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in problem["loc"]).upper()
            print(f"pipeline: setting {name}: {problem['msg']}", file=sys.stderr)  # noqa: T201  # there is no log yet
        raise SystemExit(2) from None
