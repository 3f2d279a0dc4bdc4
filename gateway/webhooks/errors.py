"""What can be wrong with a request about an endpoint."""

from uuid import UUID

from schemas.errors import DomainError, ErrorCode
from schemas.ids import WebhookId


class WebhookNotFound(DomainError):
    """The webhook does not exist, was deleted, or belongs to another tenant."""

    code = ErrorCode.WEBHOOK_NOT_FOUND

    def __init__(self, webhook_id: WebhookId) -> None:
        super().__init__(f"there is no webhook {webhook_id}")


class EarlierWebhookDeleted(WebhookNotFound):
    """The endpoint that an earlier request with the key created is deleted."""

    def __init__(self, webhook_id: WebhookId) -> None:
        DomainError.__init__(
            self,
            f"webhook {webhook_id}, which this Idempotency-Key registered, is deleted; use another"
            " key for another webhook",
        )


class TooManyWebhooks(DomainError):
    """The tenant has as many endpoints as it may."""

    code = ErrorCode.TOO_MANY_WEBHOOKS

    def __init__(self, *, limit: int) -> None:
        super().__init__(f"the tenant has {limit} endpoints or more; delete one first")


class WebhookDisabled(DomainError):
    """The endpoint is disabled, so that its state cannot be set to another."""

    code = ErrorCode.WEBHOOK_DISABLED

    def __init__(self, webhook_id: WebhookId) -> None:
        super().__init__(
            f"webhook {webhook_id} is disabled; POST /webhooks/{webhook_id}/enable enables it"
        )


class SecretNotFound(DomainError):
    """The endpoint has no such secret."""

    code = ErrorCode.WEBHOOK_SECRET_NOT_FOUND

    def __init__(self, secret_id: UUID) -> None:
        super().__init__(f"there is no secret {secret_id} of this webhook")


class SecretInUse(DomainError):
    """The secret is the present one: without it, no delivery would be signed."""

    code = ErrorCode.WEBHOOK_SECRET_IN_USE

    def __init__(self, secret_id: UUID) -> None:
        super().__init__(f"secret {secret_id} is the present one; rotate it first")


class TooManySecrets(DomainError):
    """The endpoint has as many secrets that have not expired as it may."""

    code = ErrorCode.TOO_MANY_WEBHOOK_SECRETS

    def __init__(self, *, limit: int) -> None:
        super().__init__(
            f"{limit} secrets of this webhook have not expired; delete one, or wait for its end"
        )
