"""Object storage on S3 and on the stores that speak its protocol.

What differs between stores is kept out of the way: no header they may not know
where they can do without it, and Content-MD5 on every body, which nearly all of
them check.
"""

from pipeline.storage.s3.adapter import S3Storage
from pipeline.storage.s3.checksums import ChecksumMode

__all__ = ["ChecksumMode", "S3Storage"]
