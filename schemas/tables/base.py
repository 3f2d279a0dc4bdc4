"""What all tables share: names of constraints, types of columns."""

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, DateTime, MetaData, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from schemas import ids


class Base(DeclarativeBase):
    """Declarative base; every constraint has a name a migration can address."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        },
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        dict[str, str]: JSONB,
        int: BigInteger,
        str: Text,
        UUID: Uuid,
        ids.TenantId: Uuid,
        ids.ApiKeyId: Uuid,
        ids.UploadId: Uuid,
        ids.JobId: Uuid,
        ids.DocumentId: Uuid,
        ids.EventId: Uuid,
        ids.WebhookId: Uuid,
        ids.DeliveryId: Uuid,
    }
