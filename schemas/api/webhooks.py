"""Webhooks: endpoints that receive events."""

from datetime import datetime
from typing import Annotated

import msgspec

from schemas.ids import WebhookId


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
    webhook_id: WebhookId
    url: str
    event_types: list[str]
    description: str | None
    secret: Annotated[
        str | None,
        msgspec.Meta(
            description="`whsec_…`, verifies the signatures; only the first answer has it:"
            " null in a repetition of the request"
        ),
    ]
    created_at: datetime
