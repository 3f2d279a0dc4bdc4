"""Where received bytes stay until a worker has transferred them.

The row of an upload names the kind of its backend; only the composition root
imports the backends themselves.
"""

from gateway.staging.backends import Staging
from gateway.staging.buffers import BufferLimits, Buffers, BuffersBusy
from gateway.staging.errors import StagingElsewhere, StagingFull
from gateway.staging.hashing import BodyHasher, ChunkDigestMismatch, ExpectedDigest
from gateway.staging.port import ChunkWriter, Disk, Sink, StagedUpload, StagingBackend

__all__ = [
    "BodyHasher",
    "BufferLimits",
    "Buffers",
    "BuffersBusy",
    "ChunkDigestMismatch",
    "ChunkWriter",
    "Disk",
    "ExpectedDigest",
    "Sink",
    "StagedUpload",
    "Staging",
    "StagingBackend",
    "StagingElsewhere",
    "StagingFull",
]
