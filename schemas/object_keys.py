"""Where things lie in the bucket.

Keys are built from our ids alone. A client's file name is data: it never
becomes a part of a key, so it can neither collide nor climb.
"""

from typing import Final, NewType
from uuid import UUID

from schemas.ids import TenantId, UploadId

ObjectKey = NewType("ObjectKey", str)

ORIGINALS: Final = "originals/"
STAGED: Final = "staging/"
INCOMING: Final = "incoming/"


def original(tenant_id: TenantId, upload_id: UploadId) -> ObjectKey:
    """Return the key of the stored bytes of an upload."""
    return ObjectKey(f"{ORIGINALS}{tenant_id}/{upload_id}")


def staged(tenant_id: TenantId, upload_id: UploadId) -> str:
    """Return the prefix of everything that is staged of an upload."""
    return f"{STAGED}{tenant_id}/{upload_id}/"


def staged_chunk(
    tenant_id: TenantId, upload_id: UploadId, *, index: int, sha256: bytes
) -> ObjectKey:
    """Return the key of a staged chunk.

    The digest is a part of it: two requests that send different bytes for one
    index at once never write to the same object, so no lock is needed.
    """
    return ObjectKey(f"{staged(tenant_id, upload_id)}{index:08d}-{sha256.hex()}")


def incoming(tenant_id: TenantId) -> str:
    """Return the prefix of the objects a tenant may name instead of sending them."""
    return f"{INCOMING}{tenant_id}/"


def upload_of(key: str) -> UploadId | None:
    """Return the upload an original or a staged chunk belongs to; None for any other key."""
    area, _, rest = key.partition("/")
    if f"{area}/" not in {ORIGINALS, STAGED}:
        return None
    try:
        return UploadId(UUID(rest.split("/")[1]))
    except (IndexError, ValueError):
        return None
