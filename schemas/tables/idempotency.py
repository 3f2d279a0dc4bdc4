"""What a request with an `Idempotency-Key` created, so that its repetition creates nothing."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import TenantId
from schemas.tables.base import Base


class IdempotentRequest(Base):
    """A key is bound to one operation and one body; the key with another body is refused."""

    __tablename__ = "idempotent_requests"

    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    operation: Mapped[str]
    request_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    resource_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
