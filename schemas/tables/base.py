"""Names of constraints and types of columns, for all tables."""

from collections.abc import Callable, Sequence
from datetime import datetime
from enum import EnumType, StrEnum
from typing import Any, ClassVar, Generic, NewType, TypeVar, cast
from uuid import UUID

from sqlalchemy import (
    REAL,
    BigInteger,
    DateTime,
    Dialect,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import UserDefinedType

from schemas import ids, layout, lifecycle, outcomes, steps

E = TypeVar("E", bound=StrEnum)


class EnumText(TypeDecorator[E], Generic[E]):
    """A `StrEnum` in a text column. The database checks nothing: a new member needs no migration."""

    impl = Text
    cache_ok = True

    def __init__(self, enum: type[E]) -> None:
        super().__init__()
        self.enum = enum

    def process_result_value(self, value: str | None, dialect: Dialect) -> E | None:  # noqa: ARG002  # SQLAlchemy's signature
        return None if value is None else self.enum(value)


class PackedIntegers(TypeDecorator[Sequence[int]]):
    """Integers in an array column, which is sent as text: the driver would convert each one by itself."""

    impl = ARRAY(Integer)
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Sequence[int] | None], str | None]:  # noqa: ARG002  # SQLAlchemy's signature
        def as_text(values: Sequence[int] | None) -> str | None:
            return None if values is None else f"{{{','.join(map(str, values))}}}"

        return as_text


class HalfVector(UserDefinedType[str]):
    """The type `halfvec` of pgvector, of any dimension; a value is text such as `[0.5,-1]`."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "halfvec"


class Base(DeclarativeBase):
    """Declarative base. Every constraint has a name, so that a migration can refer to it."""

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
        dict[str, Any]: JSONB(none_as_null=True),
        dict[str, str]: JSONB(none_as_null=True),
        float: REAL,
        int: BigInteger,
        str: Text,
        UUID: Uuid,
        **{each: Uuid for each in vars(ids).values() if isinstance(each, NewType)},
        **{
            each: EnumText(each)
            for each in (
                *vars(layout).values(),
                *vars(lifecycle).values(),
                *vars(steps).values(),
                outcomes.Outcome,
            )
            if isinstance(each, EnumType) and each is not StrEnum
        },
    }


def table_of(rows: type[Base]) -> Table:
    """Return the table of a class, for statements without the object mapper.

    A statement on the table takes a third of the processor time of one on the class.
    """
    return cast("Table", rows.__table__)
