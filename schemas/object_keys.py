"""Keys in the bucket; those of staging are in `staging_layout`.

A key consists of our ids alone. A client's file name is never a part of a key,
so two names cannot collide and no name leads into another prefix.
"""

from collections.abc import Sequence
from typing import Final, NewType
from uuid import UUID

from schemas.ids import ExportId, RevisionId, TenantId, UploadId, parse_uuid

ObjectKey = NewType("ObjectKey", str)

ORIGINALS: Final = "originals/"
DERIVED: Final = "derived/"
EXPORTS: Final = "exports/"
INCOMING: Final = "incoming/"


def original(tenant_id: TenantId, upload_id: UploadId) -> ObjectKey:
    """Return the key of an upload's stored object."""
    return ObjectKey(f"{ORIGINALS}{tenant_id}/{upload_id}")


def upload_of_original(key: str) -> UploadId | None:
    """Return the upload of a stored object; None for a key of another form."""
    match key.split("/"):
        case ["originals", tenant, upload] if parse_uuid(tenant) is not None:
            upload_id = parse_uuid(upload)
            return None if upload_id is None else UploadId(upload_id)
        case _:
            return None


def derived(upload_id: UploadId) -> str:
    """Return the prefix of the objects that were made from an upload's document."""
    return f"{DERIVED}{upload_id}/"


def of_revision(upload_id: UploadId, revision_id: RevisionId) -> str:
    """Return the prefix of the objects that were made for one revision of a document."""
    return f"{derived(upload_id)}{revision_id}/"


def thumbnail(upload_id: UploadId, revision_id: RevisionId) -> ObjectKey:
    """Return the key of the picture of a document's first page, as one revision shows it.

    A worker that stores it and then finds the document deleted deletes it again: the cleanup of the
    upload may have ended before.
    """
    return ObjectKey(f"{of_revision(upload_id, revision_id)}thumbnail.png")


def page_image(upload_id: UploadId, revision_id: RevisionId, *, number: int) -> ObjectKey:
    """Return the key of the image of a page, as one revision shows it."""
    return ObjectKey(f"{of_revision(upload_id, revision_id)}pages/{number}.png")


def figure_image(upload_id: UploadId, revision_id: RevisionId, *, number: int) -> ObjectKey:
    """Return the key of the image of a figure, as one revision shows it."""
    return ObjectKey(f"{of_revision(upload_id, revision_id)}figures/{number}.png")


def of_export(tenant_id: TenantId, export_id: ExportId) -> str:
    """Return the prefix of the files that the attempts at an export store."""
    return f"{EXPORTS}{tenant_id}/{export_id}/"


def export_file(tenant_id: TenantId, export_id: ExportId, *, attempt: UUID) -> ObjectKey:
    """Return the key of the file of one attempt at an export.

    Each attempt has a key of its own: a worker that lost its lease cannot replace the file of its
    successor.
    """
    return ObjectKey(f"{of_export(tenant_id, export_id)}{attempt}")


def export_of_file(key: str) -> ExportId | None:
    """Return the export of a stored file; None for a key of another form."""
    match key.split("/"):
        case ["exports", tenant, export, attempt] if parse_uuid(tenant) and parse_uuid(attempt):
            export_id = parse_uuid(export)
            return None if export_id is None else ExportId(export_id)
        case _:
            return None


def incoming(tenant_id: TenantId) -> str:
    """Return the prefix of the objects that a tenant may submit by reference."""
    return f"{INCOMING}{tenant_id}/"


def of_tenant(tenant_id: TenantId) -> Sequence[str]:
    """Return the prefixes that have objects of one tenant alone.

    The objects under `DERIVED` have the ids of uploads instead, and those of staging have a prefix of
    their own.
    """
    return [f"{prefix}{tenant_id}/" for prefix in (ORIGINALS, EXPORTS, INCOMING)]
