"""Why a replay ends before it has read its whole time range."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import WebhookId


class EndpointDeleted(DomainError):
    """The endpoint was deleted while its deliveries were replayed."""

    code = ErrorCode.WEBHOOK_NOT_FOUND
    caused_by_client = True

    def __init__(self, webhook_id: WebhookId) -> None:
        super().__init__(f"webhook {webhook_id} was deleted")


class EndpointOff(DomainError):
    """The endpoint was disabled while its deliveries were replayed."""

    code = ErrorCode.WEBHOOK_DISABLED
    caused_by_client = True

    def __init__(self, webhook_id: WebhookId) -> None:
        super().__init__(f"webhook {webhook_id} was disabled; enable it, then replay again")
