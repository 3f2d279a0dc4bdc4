"""Object storage on S3 and on stores with the same API.

Requests avoid what stores implement differently: optional headers are left out, and every
body has a Content-MD5, which nearly every store checks.
"""

from pipeline.storage.s3.adapter import S3Storage
from pipeline.storage.s3.checksums import ChecksumMode

__all__ = ["ChecksumMode", "S3Storage"]
