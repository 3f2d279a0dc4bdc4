"""The settings of the workers and of beat."""

from schemas.runtime.settings_loader import ServiceSettings
from schemas.settings import (
    BatchSettings,
    BrokerSettings,
    CelerySettings,
    DatabaseSettings,
    EmbeddingSettings,
    ExportSettings,
    IngestSettings,
    LivenessSettings,
    MalwareScanChoiceSettings,
    MalwareScanSettings,
    ObjectStoreSettings,
    OcrChoiceSettings,
    OcrSettings,
    PassageSettings,
    ProcessSettings,
    QuotaSettings,
    ReplaySettings,
    ScratchSettings,
    SecretSettings,
    StagingSettings,
    StepSettings,
    SweepSettings,
    TablesSettings,
    TransferSettings,
)


class PublishSettings(StepSettings, EmbeddingSettings):
    """Settings of the publication of a document: shares of the tenants, and the model of vectors."""


class Settings(
    DatabaseSettings,
    BrokerSettings,
    SecretSettings,
    ObjectStoreSettings,
    StagingSettings,
    ScratchSettings,
    PublishSettings,
    TransferSettings,
    QuotaSettings,
    SweepSettings,
    ReplaySettings,
    ExportSettings,
    BatchSettings,
    MalwareScanChoiceSettings,
    MalwareScanSettings,
    IngestSettings,
    PassageSettings,
    TablesSettings,
    CelerySettings,
    LivenessSettings,
    OcrChoiceSettings,
    OcrSettings,
    ProcessSettings,
    ServiceSettings,
):
    """Settings of a worker and of beat."""
