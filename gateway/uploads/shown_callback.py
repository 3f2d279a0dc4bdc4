"""The callback of an upload, as an answer shows it."""

from dataclasses import dataclass
from typing import Final

import msgspec

from schemas.api.uploads import CallbackId, CallbackSecret


@dataclass(frozen=True, kw_only=True)
class ShownCallback:
    """Unset for an upload without callback; a repeated request gets no secret."""

    webhook_id: CallbackId
    secret: CallbackSecret


NO_CALLBACK: Final = ShownCallback(webhook_id=msgspec.UNSET, secret=msgspec.UNSET)
