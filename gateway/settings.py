"""The settings of the gateway's processes."""

from typing import Final

from pydantic import ValidationError

from schemas.lifecycle import StagingKind
from schemas.runtime.settings_loader import ServiceSettings
from schemas.settings import (
    BacklogSettings,
    BatchLimitSettings,
    BodySettings,
    DatabaseSettings,
    EmbeddingSettings,
    ExportSettings,
    HttpSettings,
    LinkSettings,
    MalwareScanChoiceSettings,
    ObjectStoreSettings,
    OcrChoiceSettings,
    PageImageSettings,
    ProcessSettings,
    QuotaSettings,
    RequestRateSettings,
    ScratchSettings,
    SearchSettings,
    SecretSettings,
    StagingSettings,
    StepSettings,
    SweepSettings,
    UploadSettings,
    WebhookSettings,
    WebhookTargetSettings,
)

API_PREFIX: Final = "/api/v1"
EVENT_SOURCE: Final = "/waybill/gateway"


class Settings(
    DatabaseSettings,
    SecretSettings,
    StagingSettings,
    ScratchSettings,
    UploadSettings,
    QuotaSettings,
    StepSettings,
    BacklogSettings,
    HttpSettings,
    LinkSettings,
    PageImageSettings,
    SearchSettings,
    ExportSettings,
    BatchLimitSettings,
    BodySettings,
    RequestRateSettings,
    WebhookTargetSettings,
    WebhookSettings,
    MalwareScanChoiceSettings,
    OcrChoiceSettings,
    EmbeddingSettings,
    ProcessSettings,
    ServiceSettings,
):
    """Settings of the HTTP server."""


class StoreSettings(ObjectStoreSettings, ServiceSettings):
    """Settings of the object store; the server needs them if `STAGING=s3`, and for links to files."""


class AdministrationSettings(DatabaseSettings, QuotaSettings, ProcessSettings, ServiceSettings):
    """Settings of the operators' commands: the database and the default quotas."""


class RetentionSettings(AdministrationSettings, SweepSettings):
    """Settings of the command that counts what the sweeps delete: those of the sweeps too."""


class ReindexSettings(AdministrationSettings, EmbeddingSettings):
    """Settings of the command that orders the vectors of a model: the model too."""


class RescanSettings(AdministrationSettings, MalwareScanChoiceSettings):
    """Settings of the command that orders a malware scan: whether there is a scanner."""


class SecretAdministrationSettings(AdministrationSettings, SecretSettings):
    """Settings of the commands that read secrets: the keys too."""


def load_store(settings: Settings) -> StoreSettings | None:
    """Return the object store's settings; exit if `STAGING=s3` and they are missing or invalid.

    With `STAGING=directory` the store is optional: it serves only links to stored files, and uploads
    that were created with `STAGING=s3`.
    """
    if settings.staging == StagingKind.OBJECTS:
        return StoreSettings.load()
    try:
        return StoreSettings.read()
    except ValidationError:
        return None
