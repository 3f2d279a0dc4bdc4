from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, Interval, LargeBinary, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import ApiKeyId, TenantId
from schemas.tables.base import Base


class Tenant(Base):
    """Owner of uploads, documents and webhooks; no tenant sees those of another.

    A quota that is None is the default of the settings.
    """

    __tablename__ = "tenants"

    id: Mapped[TenantId] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    quota_bytes: Mapped[int | None]
    quota_open_uploads: Mapped[int | None]
    quota_file_size: Mapped[int | None]
    quota_staged_bytes: Mapped[int | None]
    allowed_types: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """Media types or ranges such as `image/*`."""
    refuses_duplicates: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether a document with the bytes of an earlier one fails; otherwise its reading is reused."""
    document_retention: Mapped[timedelta | None] = mapped_column(Interval)
    """How long documents are kept after their file was stored; None keeps them."""


class TenantUsage(Base):
    """Usage of a tenant's uploads; only a trigger on `uploads` writes it.

    A change of an upload's size or status locks the row until the transaction
    ends, so two concurrent requests cannot exceed a quota that is checked after
    the change.
    """

    __tablename__ = "tenant_usage"

    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    bytes: Mapped[int] = mapped_column(server_default=text("0"))
    """Bytes of the uploads that are open, finalized or stored."""
    open_uploads: Mapped[int] = mapped_column(server_default=text("0"))
    staged_bytes: Mapped[int] = mapped_column(server_default=text("0"))
    """Bytes of the uploads that are open or finalized, except references."""


class ApiKey(Base):
    """An API key: its hash and its scopes, never the key itself.

    Attributes:
        name: what the operator called the key; None if it has no name.
        prefix: the first characters of the key, by which its owner recognises it; None for a key
            from before migration 0010.
        expires_at: from then on the key is refused; None if it never expires.
        last_used_at: the newest recorded use; up to a minute behind.
    """

    __tablename__ = "api_keys"

    id: Mapped[ApiKeyId] = mapped_column(primary_key=True)
    tenant_id: Mapped[TenantId] = mapped_column(ForeignKey("tenants.id"), index=True)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    name: Mapped[str | None]
    prefix: Mapped[str | None]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
