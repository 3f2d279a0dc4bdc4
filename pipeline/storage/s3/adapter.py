"""The adapter for stores with the API of S3."""

from pipeline.storage.s3.multiparts import S3Multiparts
from pipeline.storage.s3.objects import S3Objects


class S3Storage(S3Objects, S3Multiparts):
    """The operations on one bucket. Each process makes its own instance, after any fork."""
