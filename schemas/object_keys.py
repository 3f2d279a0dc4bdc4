"""Keys in the bucket; those of staging are in `staging_layout`.

A key consists of our ids alone. A client's file name is never a part of a key,
so two names cannot collide and no name leads into another prefix.
"""

from typing import Final, NewType

from schemas.ids import RevisionId, TenantId, UploadId, parse_uuid

ObjectKey = NewType("ObjectKey", str)

ORIGINALS: Final = "originals/"
DERIVED: Final = "derived/"


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


def incoming(tenant_id: TenantId) -> str:
    """Return the prefix of the objects that a tenant may submit by reference."""
    return f"incoming/{tenant_id}/"
