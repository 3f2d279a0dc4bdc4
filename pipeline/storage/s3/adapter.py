"""One bucket of a store that speaks S3."""

from pipeline.storage.s3.multiparts import S3Multiparts
from pipeline.storage.s3.objects import S3Objects


class S3Storage(S3Objects, S3Multiparts):
    """One bucket, through one client: make one per process, after any fork."""
