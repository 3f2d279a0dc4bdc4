"""Error codes whose meaning depends on the call."""

from typing import Final

from botocore import exceptions as botocore

from pipeline.storage.errors import (
    CopyUnsupported,
    MultipartGone,
    ObjectExists,
    ObjectMissing,
    PartReplaced,
)
from pipeline.storage.port import Multipart, ObjectRange
from schemas.object_keys import ObjectKey
from schemas.runtime.s3 import Meanings, code_of, status_of

# Some stores answer NoSuchKey for a missing multipart upload; an answer to HEAD has no body with a code.
MISSING_CODES: Final = frozenset({"NoSuchUpload", "NoSuchKey", "404"})
UNKNOWN_CALL_CODES: Final = frozenset({"NotImplemented", "MethodNotAllowed", "501", "405"})


def missing_object(key: ObjectKey) -> Meanings:
    return dict.fromkeys(MISSING_CODES, ObjectMissing(key))


def missing_multipart(multipart: Multipart) -> Meanings:
    return dict.fromkeys(MISSING_CODES, MultipartGone(multipart.key))


def existing_object(key: ObjectKey) -> Meanings:
    return dict.fromkeys(("PreconditionFailed", "412"), ObjectExists(key))


def replaced_part(multipart: Multipart) -> Meanings:
    return {"InvalidPart": PartReplaced(multipart.key)}


def of_a_copy(multipart: Multipart, *, source: ObjectRange) -> Meanings:
    return {
        "NoSuchUpload": MultipartGone(multipart.key),
        "NoSuchKey": ObjectMissing(source.key),
        # AWS copies no range of an object of at most 5 MiB, some stores no range at all.
        "InvalidRequest": CopyUnsupported(),
        **dict.fromkeys(UNKNOWN_CALL_CODES, CopyUnsupported()),
    }


def is_unknown_call(error: botocore.ClientError) -> bool:
    """Return whether the store does not support this kind of request, or one of its headers."""
    return code_of(error) in UNKNOWN_CALL_CODES or status_of(error) in {405, 501}
