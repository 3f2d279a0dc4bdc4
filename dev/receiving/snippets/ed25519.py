import base64
import time
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

TOLERANCE_SECONDS = 5 * 60


def is_authentic(public_key: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Check a `v1a` signature; `public_key` is `whpk_…`."""
    message_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not (timestamp.isascii() and timestamp.isdigit()):
        return False
    if abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    content = f"{message_id}.{timestamp}.".encode() + body
    return any(
        _is_signature(key, signature.removeprefix("v1a,"), content)
        for signature in headers.get("webhook-signature", "").split(" ")
        if signature.startswith("v1a,")
    )


def _is_signature(key: Ed25519PublicKey, signature: str, content: bytes) -> bool:
    try:
        key.verify(base64.b64decode(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True
