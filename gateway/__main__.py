"""`waybill-gateway`, or `python -m gateway serve`: serve HTTP until SIGTERM."""

import argparse
import gc
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Final

import structlog
import uvicorn

from gateway import descriptors, settings
from gateway.app import create_app
from gateway.http import cors, request_log
from gateway.http.protocol import IdleConnections
from gateway.http.reading import BoundedReads
from schemas.runtime import logging

log = structlog.stdlib.get_logger("gateway")

GRACE_SECONDS: Final = 30


class GracefulServer(uvicorn.Server):
    """Logs its address. When it stops, it first ends the requests that only wait for a job."""

    def __init__(self, config: uvicorn.Config, *, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Objects created until now live as long as the process. Without the freeze, each full
        # garbage collection would scan these objects and stop every request for 0.1 s and more.
        gc.collect()
        gc.freeze()
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                log.info("gateway.listening", host=host, port=port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signal's own signature
        # The signal is not passed on: uvicorn would raise the signal again at the end, and a
        # successful stop would look like a crash.
        self.should_exit = True


def serve() -> None:
    loaded = settings.Settings.load()
    logging.configure(loaded, service="gateway")
    descriptors.raise_limit(loaded)
    app = create_app(loaded, settings.load_store(loaded))
    config = uvicorn.Config(
        request_log.RequestLog(cors.RefusedPreflights(app)),
        host=loaded.gateway_host,
        port=loaded.gateway_port,
        loop="uvloop",
        http=partial(  # type: ignore[arg-type]  # called like the class
            BoundedReads.of,
            settings=loaded,
            idle=IdleConnections(loaded.idle_connections_max),
        ),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(loaded.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in loaded.trusted_proxies],
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    GracefulServer(config, drain=app.state.context.drain).run()


def main() -> None:
    parser = argparse.ArgumentParser(prog="waybill-gateway", description=__doc__)
    parser.add_argument("command", nargs="?", choices=["serve"], help="the default")
    parser.parse_args()
    serve()


if __name__ == "__main__":
    main()
