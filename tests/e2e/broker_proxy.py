"""A proxy between the system and its broker that cuts connections."""

import asyncio
from types import TracebackType
from typing import Self

from yarl import URL

from dev.stack.background_loop import BackgroundLoop
from tests.tcp_proxy import TcpProxy


class BrokerProxy:
    """Passes bytes to the broker at `upstream`, an AMQP URL. Thread-safe."""

    def __init__(self, upstream: str) -> None:
        self._upstream = URL(upstream)
        self._loop = BackgroundLoop("broker proxy")
        self._proxy = TcpProxy(
            lambda: asyncio.open_connection(self._upstream.host, self._upstream.port or 5672)
        )

    def __enter__(self) -> Self:
        self._loop.run(self._proxy.accept())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._loop.run(self._proxy.__aexit__(kind, error, traceback))
        finally:
            self._loop.close()

    @property
    def url(self) -> str:
        return str(self._upstream.with_host("127.0.0.1").with_port(self._proxy.port))

    def cut(self) -> int:
        """Cut every connection; return how many there were."""
        return self._loop.run(self._proxy.drop())
