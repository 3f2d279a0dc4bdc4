"""The differences between object stores: the store tests assert this table.

A store whose behaviour changes fails a test; then the table is updated.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from dev.stack.infrastructure import Store


class EtagOfParts(Enum):
    """The ETag that HEAD returns for an object made of parts."""

    OF_PARTS = auto()  # MD5 of the parts' MD5s and the number of parts, as on AWS
    OF_WHOLE = auto()  # MD5 of the object


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBehaviour:
    """The defaults describe AWS."""

    honours_if_none_match: bool = True
    """A conditional put or completion replaces no object; else the last writer wins."""
    copies_parts: bool = True
    """A part can be copied from an object; else the store stores an empty part."""
    cuts_copied_ranges: bool = False
    """A copied range that ends after the object is shortened; else it is refused."""
    replaces_parts: bool = True
    """A part can be replaced by a part with other bytes; else only by the same bytes."""
    survives_an_altered_part: bool = True
    """A part whose bytes do not match its digest is discarded; else the multipart upload is lost."""
    survives_a_replaced_part: bool = True
    """Completing with a replaced part leaves the multipart upload open; else it is lost."""
    demands_large_parts: bool = True
    """Parts other than the last must have 5 MiB."""
    keeps_multiparts_over_restart: bool = True
    """Open multipart uploads survive a restart of the store."""
    remembers_completed: bool = True
    """Completing twice succeeds; else the second request finds no multipart upload."""
    takes_crc32: bool = True
    """Accepts bodies with a CRC32; over https it follows the body as a trailer."""
    checks_crc32: bool = True
    """A body with a wrong CRC32 is refused; else the CRC32 is ignored."""
    etag_of_parts: EtagOfParts = EtagOfParts.OF_PARTS


_SWIFT: Final = StoreBehaviour(cuts_copied_ranges=True)
_RCLONE: Final = StoreBehaviour(
    honours_if_none_match=False,
    copies_parts=False,
    replaces_parts=False,
    survives_an_altered_part=False,
    survives_a_replaced_part=False,
    demands_large_parts=False,
    keeps_multiparts_over_restart=False,
    remembers_completed=False,
    checks_crc32=False,
    etag_of_parts=EtagOfParts.OF_WHOLE,
)
# Over https the CRC32 is a trailer, and rclone refuses a body without a Content-Length.
_RCLONE_TLS: Final = replace(_RCLONE, takes_crc32=False)

BEHAVIOUR_OF: Final = MappingProxyType(
    {
        Store.SWIFT: _SWIFT,
        Store.SWIFT_TLS: _SWIFT,
        Store.RCLONE: _RCLONE,
        Store.RCLONE_TLS: _RCLONE_TLS,
    }
)
