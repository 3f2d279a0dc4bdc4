"""Object storage on S3 and on stores with the same API.

Requests avoid what stores implement differently: optional headers are left out, and every
body has a Content-MD5, which nearly every store checks.
"""

from pipeline.storage.s3.checksums import ChecksumMode
from pipeline.storage.s3.multiparts import S3Multiparts
from pipeline.storage.s3.objects import S3Objects

__all__ = ["ChecksumMode", "S3Storage"]


class S3Storage(S3Objects, S3Multiparts):
    """The operations on one bucket. Each process makes its own instance, after any fork."""
