"""The limit on the open files of the process."""

import resource
from typing import Final

import structlog

from gateway.settings import Settings

log = structlog.stdlib.get_logger(__name__)

PER_BODY: Final = 2
"""The connection, and the staged file of its chunk."""

OTHERS: Final = 256
"""Listeners, logs, libraries, connections to the object store, and answers to other requests."""


def needed(settings: Settings) -> int:
    """Return how many files are open when every limit of the settings is reached."""
    return (
        PER_BODY * settings.bodies_max
        + settings.idle_connections_max
        + 2 * settings.database_pool_size
        + OTHERS
    )


def raise_limit(settings: Settings) -> None:
    """Allow as many open files as the system grants; warn if the settings may need more.

    The usual limit of 1,024 is the soft one, for programs that use select(2); the gateway does not.
    At the limit no connection is accepted any more, not even that of a health check.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < needed(settings):
        log.warning(
            "gateway.open_files_limited",
            allowed=hard,
            needed=needed(settings),
            advice="raise the limit (ulimit -Hn, LimitNOFILE), or lower BODIES_MAX",
        )
