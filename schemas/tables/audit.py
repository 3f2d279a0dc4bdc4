"""Acts of operators, and of tenants on endpoints. A row is written in the transaction of its act and is never changed."""

from datetime import datetime
from typing import Any

from sqlalchemy import Identity, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from schemas.tables.base import Base


class AuditEntry(Base):
    """One act on one target.

    Attributes:
        actor: who acted, such as `root@host-1` or `api_key/<id>`.
        action: what was done, such as `dead_letter.dropped`.
        target: kind and id, such as `dead_letter/17`.
        detail: facts about the target that stay known after its deletion; no secrets.
    """

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    actor: Mapped[str]
    action: Mapped[str]
    target: Mapped[str]
    detail: Mapped[dict[str, Any]]

    __table_args__ = (
        Index("ix_audit_log_at", "at", "id"),
        Index("ix_audit_log_target", "target", "id"),
    )
