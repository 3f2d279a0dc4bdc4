"""Checks that a connection has no bytes after the response."""

import re
from typing import Final

_HEAD_END: Final = re.compile(rb"\n\r?\n")
_CHUNKS_END: Final = b"0\r\n\r\n"


def ends_exactly(last_read: bytes, *, last_chunk: bytes, chunked: bool) -> bool:
    """Return whether the last bytes read from a connection end where the response ends.

    Bytes after the end (a 204 with a body, an unsolicited second response) would
    be read as the response to the next event: a 2xx would settle that event
    undelivered, a 410 would disable its endpoint. A wrong False only costs a new connection.

    Args:
        last_read: the bytes of the last read from the network.
        last_chunk: the last piece of the body; empty without a body.
        chunked: whether the body has the chunked coding, whose end can be
            recognised but not proved.
    """
    if chunked:
        return last_read.endswith(_CHUNKS_END)
    if last_chunk and last_read == last_chunk:
        return True
    head_end = _HEAD_END.search(last_read)
    return head_end is not None and head_end.end() + len(last_chunk) == len(last_read)
