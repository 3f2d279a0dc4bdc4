"""Names in staging, for the writer, the reader and the sweep.

A directory has one file per upload, a bucket has one object per chunk.
"""

from pathlib import Path
from typing import Final

from schemas.ids import TenantId, UploadId, parse_uuid
from schemas.object_keys import ObjectKey

MARKER: Final = ".waybill-staging"
"""File that a gateway creates in the staging directory. If it is missing, the volume is not mounted."""

PREFIX: Final = "staging/"
PROBES: Final = f"{PREFIX}.probe/"
"""Prefix of the objects with which a process tests the store; it deletes them unless it dies."""


def file_of(directory: Path, upload_id: UploadId) -> Path:
    return directory / str(upload_id)


def upload_of_file(name: str) -> UploadId | None:
    """Return the upload of a file in the staging directory; None for a name of another form."""
    upload_id = parse_uuid(name)
    return None if upload_id is None else UploadId(upload_id)


def of_tenant(tenant_id: TenantId) -> str:
    """Return the prefix of the staged chunks of a tenant."""
    return f"{PREFIX}{tenant_id}/"


def prefix_of(tenant_id: TenantId, upload_id: UploadId) -> str:
    """Return the prefix of an upload's staged chunks."""
    return f"{of_tenant(tenant_id)}{upload_id}/"


def chunk_key(tenant_id: TenantId, upload_id: UploadId, *, index: int, sha256: bytes) -> ObjectKey:
    """Return the key of a staged chunk.

    The key contains the digest: two requests that send different bytes for one
    index at the same time write different objects, so no lock is needed.
    """
    return ObjectKey(f"{prefix_of(tenant_id, upload_id)}{index:08d}-{sha256.hex()}")


def upload_of_key(key: str) -> UploadId | None:
    """Return the upload of a staged chunk; None for a key of another form."""
    match key.split("/"):
        case ["staging", tenant, upload, _, *_] if parse_uuid(tenant) is not None:
            return upload_of_file(upload)
        case _:
            return None


def is_probe(key: str) -> bool:
    return key.startswith(PROBES)
