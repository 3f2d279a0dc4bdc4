"""Changes of endpoints, in the log of acts: each in the transaction of its change.

The callbacks of uploads are not in the log: they come and go with their uploads.
"""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from gateway.http.security import Caller
from schemas.tables.audit import AuditEntry
from schemas.tables.webhooks import Webhook


def record(
    session: AsyncSession,
    webhook: Webhook,
    *,
    caller: Caller,
    action: str,
    **detail: Any,  # noqa: ANN401  # JSON values
) -> None:
    """Record an act of a caller; `detail` must contain no secret, URL or header."""
    if webhook.upload_id is None:
        session.add(
            AuditEntry(
                actor=f"api_key/{caller.key_id}",
                action=f"webhook.{action}",
                target=f"webhook/{webhook.id}",
                detail={"tenant_id": str(webhook.tenant_id), **detail},
            )
        )
