"""`python -m gateway`: serve HTTP, or make an API key."""

import argparse
import asyncio
import socket
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway import administration, db, settings, telemetry
from gateway.app import create_app
from schemas.api.scopes import Scope

log = structlog.stdlib.get_logger("gateway")

HEAD_BYTES_MAX: Final = 64 * 1024
GRACE_SECONDS: Final = 30
# Longer than a proxy keeps an idle connection, or it would send a request into one just closed.
KEEP_ALIVE_SECONDS: Final = 75
TENANT_NAME_MAX: Final = 200


class BoundedHeadProtocol(HttpToolsProtocol):
    """Refuses a request whose head does not end; the parser alone would keep all of it in memory."""

    _is_in_head = False
    _head_bytes = 0

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                b"connection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()


class GracefulServer(uvicorn.Server):
    """Says where it listens, and lets waiting requests go before it waits for them."""

    def __init__(self, config: uvicorn.Config, *, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                host, port = listener.getsockname()[:2]
                log.info("gateway.listening", host=host, port=port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signal's own signature
        # Not handed on: uvicorn would raise the signal again at the end, and a stop that
        # was asked for and went well would look like a crash.
        self._on_exit()
        self.should_exit = True


def serve() -> None:
    loaded = settings.load(settings.Settings)
    telemetry.configure(loaded)
    app = create_app(loaded)
    config = uvicorn.Config(
        telemetry.RequestLog(app),
        host=loaded.gateway_host,
        port=loaded.gateway_port,
        loop="uvloop",
        http=BoundedHeadProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    GracefulServer(config, on_exit=app.state.job_watch.drain).run()


def tenant_name(text: str) -> str:
    """Take the name of a tenant from the command line.

    Raises:
        argparse.ArgumentTypeError: it is empty, too long, or not printable.
    """
    if not text.strip() or len(text) > TENANT_NAME_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(
            f"a tenant's name is 1 to {TENANT_NAME_MAX} printable characters"
        )
    return text


def create_key(*, tenant: str, scopes: Sequence[Scope]) -> str:
    loaded = settings.load(settings.AdministrationSettings)
    telemetry.configure(loaded)

    async def create() -> str:
        engine = db.build_engine(loaded)
        try:
            async with db.transactions(engine)() as session:
                return await administration.create_key(session, tenant=tenant, scopes=scopes)
        finally:
            await engine.dispose()

    return asyncio.run(create())


def main() -> None:
    parser = argparse.ArgumentParser(prog="gateway", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="answer HTTP until stopped")
    key = commands.add_parser("create-key", help="print a new API key; it is not shown again")
    key.add_argument("--tenant", required=True, type=tenant_name, help="made if missing")
    key.add_argument(
        "--scope",
        dest="scopes",
        action="append",
        type=Scope,
        choices=list(Scope),
        help="may be given more than once; all scopes where none is given",
    )
    arguments = parser.parse_args()
    if arguments.command == "serve":
        serve()
    else:
        print(create_key(tenant=arguments.tenant, scopes=arguments.scopes or list(Scope)))  # noqa: T201  # the key is the command's output


if __name__ == "__main__":
    main()
