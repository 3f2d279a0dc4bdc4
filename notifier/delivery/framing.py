"""Whether an answer was the last thing its connection had to say."""

import re
from typing import Final

_HEAD_END: Final = re.compile(rb"\n\r?\n")
_CHUNKS_END: Final = b"0\r\n\r\n"


def ends_exactly(last_read: bytes, *, last_chunk: bytes, chunked: bool) -> bool:
    """Tell whether the last bytes read from a connection end where the answer ends.

    Bytes beyond the end (a 204 with a body, a second answer nobody asked for)
    would be taken for the answer to the next event: a 2xx would settle it
    unheard, a 410 disable its endpoint. A wrong "no" costs one new connection.

    Args:
        last_read: what the last read from the network returned.
        last_chunk: the last piece of the body; empty where there was none.
        chunked: whether the body came in the chunked coding, whose end can
            only be recognised, not proved.
    """
    if chunked:
        return last_read.endswith(_CHUNKS_END)
    if last_chunk and last_read == last_chunk:
        return True
    head_end = _HEAD_END.search(last_read)
    return head_end is not None and head_end.end() + len(last_chunk) == len(last_read)
