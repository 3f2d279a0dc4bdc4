"""Where things lie in the bucket.

Keys are built from our ids alone. A client's file name is data: it never
becomes a part of a key, so it can neither collide nor climb.
"""

from typing import NewType

from schemas.ids import TenantId, UploadId

ObjectKey = NewType("ObjectKey", str)


def original(tenant_id: TenantId, upload_id: UploadId) -> ObjectKey:
    """Return the key of the stored bytes of an upload."""
    return ObjectKey(f"originals/{tenant_id}/{upload_id}")
