"""The settings of the relay and the deliverer."""

from schemas.runtime.settings_loader import ServiceSettings
from schemas.settings import (
    BrokerSettings,
    DatabaseSettings,
    DeliverySettings,
    LivenessSettings,
    ProcessSettings,
    RelaySettings,
    SecretSettings,
    WebhookTargetSettings,
)


class Settings(
    DatabaseSettings,
    BrokerSettings,
    RelaySettings,
    DeliverySettings,
    WebhookTargetSettings,
    LivenessSettings,
    ProcessSettings,
    ServiceSettings,
):
    """Settings of the relay and the deliverer."""


class DeliverSettings(Settings, SecretSettings):
    """Settings of the deliverer, which alone reads secrets."""
