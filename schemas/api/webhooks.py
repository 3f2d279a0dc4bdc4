"""Webhooks: endpoints that receive events."""

from datetime import datetime
from typing import Annotated, Final

import msgspec

from schemas.ids import WebhookId

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # not secret


class CreateWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Registers an endpoint; empty `event_types` means every event of the tenant."""

    url: Annotated[str, msgspec.Meta(max_length=2048)]
    event_types: list[str] = []
    description: Annotated[str, msgspec.Meta(max_length=500, pattern=r"^[^\x00]*$")] | None = None


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    webhook_id: WebhookId
    url: str
    event_types: list[str]
    description: str | None
    enabled: bool
    disabled_reason: str | None
    created_at: datetime


class WebhookCreated(msgspec.Struct, frozen=True, kw_only=True):
    """`secret` (`whsec_…`) verifies the signatures; only this response has it."""

    webhook_id: WebhookId
    url: str
    event_types: list[str]
    description: str | None
    secret: str
    created_at: datetime
