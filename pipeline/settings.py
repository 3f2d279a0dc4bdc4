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


class FollowingSettings(TablesSettings, EmbeddingSettings):
    """Settings that say what follows the publication of a document."""


class Settings(
    DatabaseSettings,
    BrokerSettings,
    SecretSettings,
    ObjectStoreSettings,
    StagingSettings,
    ScratchSettings,
    StepSettings,
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
    FollowingSettings,
    CelerySettings,
    LivenessSettings,
    OcrChoiceSettings,
    OcrSettings,
    ProcessSettings,
    ServiceSettings,
):
    """Settings of a worker and of beat."""
