"""Where received bytes lie until a worker has stored them.

Code of the gateway speaks to `Staging`; in which kind of place an upload lies
is told by its row, and only the composition root knows the kinds.
"""

from gateway.staging.areas import Staging
from gateway.staging.buffers import Buffers
from gateway.staging.errors import StagingElsewhere, StagingFull, StagingMissing, StoreUnavailable
from gateway.staging.port import Area, Region, Sink, StagedUpload, Watch

__all__ = [
    "Area",
    "Buffers",
    "Region",
    "Sink",
    "StagedUpload",
    "Staging",
    "StagingElsewhere",
    "StagingFull",
    "StagingMissing",
    "StoreUnavailable",
    "Watch",
]
