"""The one client of the store, set up as the settings want it."""

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from boto3.session import Session
from botocore.config import Config

from schemas.settings import ObjectStoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def client(settings: ObjectStoreSettings) -> "S3Client":
    """Return a client that adds no checksum by itself; only the adapter speaks through it."""
    made = Session().client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        verify=None if settings.s3_ca_bundle is None else str(settings.s3_ca_bundle),
        config=Config(
            signature_version="s3v4",
            s3={
                "addressing_style": "path",
                # Content-MD5 is among the signed headers, so the body is bound to the
                # signature already; signing it too would cost one more SHA-256 per byte.
                "payload_signing_enabled": False,
            },
            connect_timeout=settings.s3_connect_timeout.total_seconds(),
            read_timeout=settings.s3_read_timeout.total_seconds(),
            # Two retry loops, one inside the other, would multiply their tries.
            retries={"mode": "standard", "total_max_attempts": 1},
            # A caller whose parts are all under way still asks for other things.
            max_pool_connections=settings.s3_parallel_parts + 2,
            # The adapter asks for CRC32 where it wants it.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
        ),
    )
    made.meta.events.register("before-call.s3.DeleteObjects", _add_content_md5)
    return made


def _add_content_md5(params: dict[str, Any], **_: object) -> None:
    # The library sends a CRC32 in its place, which stores older than that do not take for one.
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode("ascii")
