"""The feed: the events of a tenant, in the order of their positions."""

from typing import Annotated

import msgspec

EventBody = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        description="the event, a CloudEvent 1.0, as its webhooks carry it",
        extra_json_schema={"type": "object"},
    ),
]


class FeedPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events in the order of the feed."""

    items: list[EventBody]
    next_cursor: Annotated[
        str,
        msgspec.Meta(description="send it as `after`; there is one after the newest event, too"),
    ]
    has_more: Annotated[bool, msgspec.Meta(description="whether to ask again without a wait")]
