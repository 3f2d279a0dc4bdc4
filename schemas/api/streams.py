"""Tokens of event streams."""

from datetime import datetime
from typing import Annotated

import msgspec


class StreamTokenCreated(msgspec.Struct, frozen=True, kw_only=True):
    """A token that opens one event stream, for clients that cannot send a header."""

    token: Annotated[
        str, msgspec.Meta(description="a secret: its holder can read the events of the stream")
    ]
    url: Annotated[str, msgspec.Meta(description="the event stream, with the token in the query")]
    expires_at: Annotated[
        datetime,
        msgspec.Meta(
            description="a stream that is open then continues; a new one needs a new token"
        ),
    ]
