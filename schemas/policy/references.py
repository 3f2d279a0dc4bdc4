"""Which objects of the bucket a tenant may submit by reference."""

from typing import Final

from schemas import object_keys
from schemas.errors import DomainError, ErrorCode
from schemas.ids import TenantId

KEY_BYTES_MAX: Final = 1024
"""Limit of S3 for the key of an object."""

FORBIDDEN_PARTS: Final = frozenset({"", ".", ".."})


class ReferenceRefused(DomainError):
    """The tenant may not submit the named object."""

    code = ErrorCode.REFERENCE_REFUSED


def name_in(object_key: str, *, tenant_id: TenantId) -> str:
    """Return the last part of the key of an object that the tenant may submit.

    Raises:
        ReferenceRefused: the tenant may not submit this object.
    """
    prefix = object_keys.incoming(tenant_id)
    if not object_key.startswith(prefix):
        raise ReferenceRefused(f"the object must be under {prefix}")
    parts = object_key.removeprefix(prefix).split("/")
    if not FORBIDDEN_PARTS.isdisjoint(parts):
        raise ReferenceRefused("the key has an empty part, or one that is '.' or '..'")
    if not object_key.isprintable() or len(object_key.encode()) > KEY_BYTES_MAX:
        raise ReferenceRefused(f"a key has at most {KEY_BYTES_MAX} bytes and no control characters")
    return parts[-1]
