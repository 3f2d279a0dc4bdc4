"""Bodies whose media types schemathesis does not know; it loads this module."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson", "application/ndjson", "application/jsonl")
def one_line(ctx: schemathesis.SerializationContext, value: Any) -> bytes:  # noqa: ANN401, ARG001  # any JSON; the signature of a hook
    """Return a body of one line, which the description describes."""
    return json.dumps(value).encode() + b"\n"
