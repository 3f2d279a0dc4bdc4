"""Engine, transactions and the way to listen, for one process."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeAlias

import psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from schemas.settings import DatabaseSettings

Transaction: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncSession]]
"""Opens a session, commits when the block ends, rolls back when it raises.

Never hold one open while a request's body comes in: a slow client would keep a
connection from everybody else.
"""

POOL_TIMEOUT_SECONDS: Final = 10

# A server that vanished without a word must become an error within seconds, not a hang.
_CONNECTION: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    # After a failover the old primary may still answer, read-only.
    "target_session_attrs": "read-write",
}


def build_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Return the engine; it connects when it is first used."""
    return create_async_engine(
        _url(settings).set(drivername="postgresql+psycopg"),
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        # A connection the server closed meanwhile would fail the first request after a restart.
        pool_pre_ping=True,
        # A statement that fails may be logged; what the client sent stays out of it.
        hide_parameters=True,
        connect_args={**_CONNECTION, "application_name": "waybill-gateway"},
    )


def transactions(engine: AsyncEngine) -> Transaction:
    return async_sessionmaker(engine, expire_on_commit=False).begin


async def connect_to_listen(settings: DatabaseSettings) -> psycopg.AsyncConnection[Any]:
    """Open a connection outside the pool, for ``LISTEN``.

    Raises:
        psycopg.OperationalError: the database cannot be reached.
    """
    url = _url(settings).set(drivername="postgresql")
    return await psycopg.AsyncConnection.connect(
        url.render_as_string(hide_password=False),
        autocommit=True,
        application_name="waybill-gateway-watch",
        **_CONNECTION,
    )


def _url(settings: DatabaseSettings) -> URL:
    return make_url(settings.database_url.get_secret_value())
