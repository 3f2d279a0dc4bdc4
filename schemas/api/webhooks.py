"""Webhooks: endpoints that receive events, and their secrets."""

from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from schemas.api.uploads import MetadataName, MetadataValue
from schemas.ids import UploadId, WebhookId
from schemas.lifecycle import EndpointState
from schemas.policy import event_filters

EVENT_TYPES_MAX: Final = 64
OVERLAP_MAX: Final = 7 * 24 * 60 * 60
BACKLOG_MAX: Final = 1_000

Url = Annotated[str, msgspec.Meta(max_length=2048, extra_json_schema={"format": "uri"})]
Description = Annotated[str, msgspec.Meta(max_length=500, pattern=r"^[^\x00]*$")]
EventTypes = Annotated[
    list[str],
    msgspec.Meta(
        max_length=EVENT_TYPES_MAX,
        description="exact types, all types of a noun (`document.*`), or `*`; empty means every type",
    ),
]
MetadataFilter = Annotated[
    dict[MetadataName, MetadataValue],
    msgspec.Meta(
        max_length=event_filters.METADATA_COUNT_MAX,
        description="only events of uploads whose `metadata` has all these members",
    ),
]
Timeout = Annotated[
    float,
    msgspec.Meta(
        ge=1,
        description="seconds of one attempt, from the DNS lookup to the head of the answer; at most"
        " `WEBHOOK_TIMEOUT_MAX`; null for the server's default",
    ),
]
Concurrency = Annotated[
    int,
    msgspec.Meta(ge=1, le=100, description="most attempts at the same time; null for the default"),
]
Rate = Annotated[
    float,
    msgspec.Meta(ge=0.01, le=1_000, description="most attempts per second; null for no limit"),
]
Ordered = Annotated[
    bool,
    msgspec.Meta(
        description="the events of one upload are delivered one after the other, in their order"
    ),
]
SecretText = Annotated[
    str,
    msgspec.Meta(
        max_length=256,
        description="a secret of your own: `whsec_…` (base64 of 24 to 64 bytes), or `whsk_…` (base64"
        " of an ed25519 seed and its public key); null for a new one",
        extra_json_schema={"format": "password", "writeOnly": True},
    ),
]
Scheme: TypeAlias = Literal["v1", "v1a"]
Signature = Annotated[
    Scheme,
    msgspec.Meta(
        description="`v1`: HMAC-SHA256 with the secret; `v1a`: ed25519, verified with a public key"
    ),
]
ShownSecret = Annotated[
    str | None,
    msgspec.Meta(
        description="`whsec_…`, verifies the signatures; only the first answer has it: null in a"
        " repetition of the request, and for `v1a`, whose private key is never shown"
    ),
]
ShownPublicKey = Annotated[
    str | None,
    msgspec.Meta(description="`whpk_…`, verifies the signatures of `v1a`; null for `v1`"),
]

# Unset is not encoded. The hash of a request without the field, which an `Idempotency-Key` is bound
# to, is therefore the same as in versions before the field.
Unset: TypeAlias = msgspec.UnsetType


class WebhookHeader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A further header of every request to the endpoint.

    Attributes:
        name: not one that Waybill or HTTP sets.
        value: null keeps the value that the endpoint has for this name.
        sensitive: whether the value is never shown.
    """

    name: str
    value: str | None = None
    sensitive: bool = True


class CreateWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Registers an endpoint; empty `event_types` means every event of the tenant."""

    url: Url
    event_types: EventTypes = []
    description: Description | None = None
    metadata_filter: MetadataFilter | Unset | None = msgspec.UNSET
    headers: list[WebhookHeader] | Unset = msgspec.UNSET
    timeout: Timeout | Unset | None = msgspec.UNSET
    concurrency: Concurrency | Unset | None = msgspec.UNSET
    rate: Rate | Unset | None = msgspec.UNSET
    ordered: Ordered | Unset = msgspec.UNSET
    secret: SecretText | Unset | None = msgspec.UNSET
    signature: Signature | Unset = msgspec.UNSET


class UpdateWebhook(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes the given fields (RFC 7396); null resets one to its default."""

    url: Url | Unset = msgspec.UNSET
    event_types: EventTypes | Unset | None = msgspec.UNSET
    description: Description | Unset | None = msgspec.UNSET
    metadata_filter: dict[MetadataName, MetadataValue | None] | Unset | None = msgspec.UNSET
    headers: list[WebhookHeader] | Unset | None = msgspec.UNSET
    timeout: Timeout | Unset | None = msgspec.UNSET
    concurrency: Concurrency | Unset | None = msgspec.UNSET
    rate: Rate | Unset | None = msgspec.UNSET
    ordered: Ordered | Unset | None = msgspec.UNSET
    state: Literal["active", "paused"] | Unset = msgspec.UNSET


class RotateSecret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Adds a secret; the earlier ones sign beside it for `overlap` seconds.

    Attributes:
        signature: null for that of the present secret.
        overlap: seconds; null for the server's default.
    """

    secret: SecretText | None = None
    signature: Signature | None = None
    overlap: Annotated[float, msgspec.Meta(ge=0, le=OVERLAP_MAX)] | None = None


class SecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A secret that signs; `expires_at` is null for the present one."""

    secret_id: UUID
    scheme: Scheme
    created_at: datetime
    expires_at: datetime | None


class SecretRotated(msgspec.Struct, frozen=True, kw_only=True):
    secret_id: UUID
    secret: ShownSecret
    public_key: ShownPublicKey
    secrets: list[SecretView]


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint; `upload_id` is set for the callback of an upload."""

    webhook_id: WebhookId
    upload_id: UploadId | None
    url: str
    event_types: list[str]
    metadata_filter: dict[str, str] | None
    description: str | None
    headers: Annotated[
        list[WebhookHeader], msgspec.Meta(description="`value` is null if it is sensitive")
    ]
    timeout: float | None
    concurrency: int | None
    rate: float | None
    ordered: bool
    state: EndpointState
    enabled: Annotated[bool, msgspec.Meta(description="false if `state` is `disabled`")]
    disabled_reason: str | None
    disabled_at: datetime | None
    secrets: Annotated[list[SecretView], msgspec.Meta(description="those that sign, newest first")]
    created_at: datetime


class WebhookCreated(WebhookView, frozen=True, kw_only=True):
    secret: ShownSecret
    public_key: ShownPublicKey


class LastError(msgspec.Struct, frozen=True, kw_only=True):
    """The last failed attempt; `status_code` is null if there was no answer."""

    at: datetime
    outcome: str
    status_code: int | None
    error: str | None


class WebhookHealth(msgspec.Struct, frozen=True, kw_only=True):
    """How the last attempts of an endpoint ended."""

    attempts: Annotated[
        int, msgspec.Meta(description="the last attempts, which the figures are about")
    ]
    success_share: Annotated[
        float | None, msgspec.Meta(description="of 0 to 1; null without attempts")
    ]
    latency_p95_ms: Annotated[
        float | None, msgspec.Meta(description="of the attempts that were answered")
    ]
    last_error: LastError | None
    last_delivered_at: datetime | None
    backlog: Annotated[
        int,
        msgspec.Meta(
            le=BACKLOG_MAX, description=f"pending deliveries, counted up to {BACKLOG_MAX}"
        ),
    ]
    failing_since: Annotated[
        datetime | None, msgspec.Meta(description="the first failure since the last success")
    ]
    blocked_until: Annotated[
        datetime | None,
        msgspec.Meta(description="the endpoint asked for a pause (429, 503), or throttles"),
    ]


class WebhookDetail(WebhookView, frozen=True, kw_only=True):
    health: WebhookHealth


class PublicJwk(msgspec.Struct, frozen=True, kw_only=True):
    """A public key as JWK (RFC 8037), with its form in Standard Webhooks."""

    kid: UUID
    x: str
    whpk: str
    expires_at: datetime | None
    kty: Literal["OKP"] = "OKP"
    crv: Literal["Ed25519"] = "Ed25519"
    alg: Literal["EdDSA"] = "EdDSA"
    use: Literal["sig"] = "sig"


class PublicKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A JWK Set (RFC 7517) of the keys that sign, newest first; empty if none is asymmetric."""

    public_key: ShownPublicKey
    keys: list[PublicJwk]
