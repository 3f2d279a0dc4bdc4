"""Tokens that open one event stream, for clients that cannot send an `Authorization` header.

`EventSource` in browsers sends no header of the caller. A token is in the URL instead, where proxies
log it and browsers keep it: it permits nothing but the events of one job, or the feed of the tenant,
for minutes, and only while its API key is valid. The database does not hold it.
"""

import base64
import binascii
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Self
from uuid import UUID

from schemas.api.streams import StreamTokenCreated
from schemas.errors import DomainError, ErrorCode
from schemas.ids import ApiKeyId, JobId, TenantId
from schemas.key_ring import SIGNATURE_BYTES, KeyRing

PREFIX: Final = "wbs_"
CONTEXT: Final = "stream token"
NO_JOB: Final = UUID(int=0)
"""In a token for the feed; no job has this id."""
_FIELDS: Final = struct.Struct(">16s16s16sQ")
LENGTH: Final = len(PREFIX) + (_FIELDS.size + SIGNATURE_BYTES) * 4 // 3


class StreamTokenRefused(DomainError):
    """The token does not open the stream; the message does not contain it."""

    code = ErrorCode.UNAUTHENTICATED

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: ask for a new one at …/stream-token")


@dataclass(frozen=True, kw_only=True)
class StreamToken:
    """The facts in a token; its holder may open the stream until `expires_at`, in whole seconds.

    Attributes:
        tenant_id: whose stream it is.
        job_id: the job whose events the stream has; None for the feed of the tenant.
        key_id: the API key that the token was made with.
        expires_at: the first moment at which the token is refused.
    """

    tenant_id: TenantId
    job_id: JobId | None
    key_id: ApiKeyId
    expires_at: datetime

    def encode(self, keys: KeyRing) -> str:
        """Return the signed token, of the characters that a URL may contain."""
        ids = (self.tenant_id.bytes, (self.job_id or NO_JOB).bytes, self.key_id.bytes)
        message = _FIELDS.pack(*ids, int(self.expires_at.timestamp()))
        signed = message + keys.sign(message, context=CONTEXT)
        return PREFIX + base64.urlsafe_b64encode(signed).decode()

    @classmethod
    def decode(cls, token: str, *, keys: KeyRing) -> Self:
        """Return the facts of a token; the caller checks stream and expiry.

        Raises:
            StreamTokenRefused: no key of the ring has signed the token.
        """
        try:
            signed = base64.b64decode(
                token.removeprefix(PREFIX).encode("ascii"), altchars=b"-_", validate=True
            )
        except (UnicodeEncodeError, binascii.Error):
            signed = b""
        message, signature = signed[: _FIELDS.size], signed[_FIELDS.size :]
        is_whole = token.startswith(PREFIX) and len(token) == LENGTH
        if not (is_whole and keys.is_signed(message, signature, context=CONTEXT)):
            raise StreamTokenRefused("the stream token is not valid")
        tenant_id, job_id, key_id, expires_at = _FIELDS.unpack(message)
        return cls(
            tenant_id=TenantId(UUID(bytes=tenant_id)),
            job_id=None if job_id == NO_JOB.bytes else JobId(UUID(bytes=job_id)),
            key_id=ApiKeyId(UUID(bytes=key_id)),
            expires_at=datetime.fromtimestamp(expires_at, UTC),
        )


def issued(token: StreamToken, *, keys: KeyRing, path: str) -> StreamTokenCreated:
    """Return the answer with a token, and with the URL of its stream.

    Args:
        token: for the stream.
        keys: sign the token.
        path: of the stream, without a query.
    """
    encoded = token.encode(keys)
    return StreamTokenCreated(
        token=encoded, url=f"{path}?token={encoded}", expires_at=token.expires_at
    )


def expiry(now: datetime, *, lifetime: timedelta) -> datetime:
    """Return when a token expires that is made now; a token holds whole seconds."""
    return (now + lifetime).replace(microsecond=0)
