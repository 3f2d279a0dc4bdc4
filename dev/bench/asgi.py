"""`python -m dev.bench.asgi SERVER`: the gateway under a given ASGI server.

With `--port` it serves an application that never reads a request's body: the benchmark
measures how much of the body the server buffers.
"""

import argparse
import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import hypercorn.asyncio
import uvicorn
import uvloop
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from hypercorn.config import Config

from gateway import settings
from gateway.app import create_app
from gateway.http import cors, request_log
from schemas.runtime import logging

LOOPBACK: Final = "127.0.0.1"


def gateway() -> Any:  # noqa: ANN401  # each server has its own type for an application
    loaded = settings.Settings.load()
    logging.configure(loaded, service="gateway")
    return request_log.RequestLog(
        cors.RefusedPreflights(create_app(loaded, settings.load_store(loaded)))
    )


def never_reading() -> Any:  # noqa: ANN401  # each server has its own type for an application
    return _never_reads


async def _never_reads(scope: Mapping[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401  # each server has its own type for an application
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["path"] == "/health/ready":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
    else:
        await asyncio.Event().wait()


def under_uvicorn(application: Callable[[], Any], *, host: str, port: int) -> None:
    uvicorn.run(
        application(), host=host, port=port, loop="uvloop", http="httptools", log_config=None
    )


def under_granian(application: Callable[[], Any], *, host: str, port: int) -> None:
    Granian(
        f"dev.bench.asgi:{application.__name__}",
        factory=True,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        workers=1,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        log_enabled=False,
    ).serve()


def under_hypercorn(application: Callable[[], Any], *, host: str, port: int) -> None:
    config = Config()
    config.loglevel = "WARNING"
    config.bind = [f"{host}:{port}"]
    uvloop.run(hypercorn.asyncio.serve(application(), config))


SERVERS: Final = {
    "uvicorn": under_uvicorn,
    "granian": under_granian,
    "hypercorn": under_hypercorn,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--port", type=int, help="serve the application that does not read")
    arguments = parser.parse_args()
    serve = SERVERS[arguments.server]
    if arguments.port is not None:
        serve(never_reading, host=LOOPBACK, port=arguments.port)
        return
    loaded = settings.Settings.load()
    serve(gateway, host=loaded.gateway_host, port=loaded.gateway_port)


if __name__ == "__main__":
    main()
