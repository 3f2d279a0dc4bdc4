"""What each object store does where stores differ: the table the store tests are held against.

A store that gains or loses a habit fails a test, and the table is brought up to date.
"""

from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from dev.stack.infrastructure import Store


class EtagOfParts(Enum):
    """What HEAD answers for an object made of parts."""

    OF_PARTS = auto()  # MD5 of the parts' MD5s, and their number; what AWS answers
    OF_WHOLE = auto()  # MD5 of the object


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBehaviour:
    """The defaults are what AWS does."""

    honours_if_none_match: bool = True
    """Puts and completions replace nothing; else the last one wins."""
    copies_parts: bool = True
    """Else a copy is taken for an empty part."""
    cuts_copied_ranges: bool = False
    """A range beyond the end of an object is copied as far as it goes; else it is refused."""
    replaces_parts: bool = True
    """A part may be sent again with other bytes; else only with the same."""
    survives_an_altered_part: bool = True
    """A part that arrives with other bytes than announced is not kept; else the upload ends with it."""
    survives_a_replaced_part: bool = True
    """Complete with a part that was replaced leaves the upload open; else it ends with it."""
    demands_large_parts: bool = True
    """Only the last part may be smaller than 5 MiB."""
    keeps_multiparts_over_restart: bool = True
    """Unfinished uploads outlive the store's process."""
    remembers_completed: bool = True
    """Complete may be said again; else the upload is unknown by then."""
    takes_crc32: bool = True
    """Bodies with a CRC32, which over https follows them as a trailer."""
    checks_crc32: bool = True
    """A wrong one is refused; else it is overlooked."""
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
# Over https the checksum is a trailer, and a body without a Content-Length is refused.
_RCLONE_TLS: Final = replace(_RCLONE, takes_crc32=False)

BEHAVIOUR_OF: Final = MappingProxyType(
    {
        Store.SWIFT: _SWIFT,
        Store.SWIFT_TLS: _SWIFT,
        Store.RCLONE: _RCLONE,
        Store.RCLONE_TLS: _RCLONE_TLS,
    }
)
