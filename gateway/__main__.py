"""`python -m gateway`: serve HTTP, make an API key, or set a tenant's quotas."""

import argparse
import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Final, TypeVar

import structlog
import uvicorn
from pydantic import ByteSize, TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from gateway import administration, db, settings
from gateway.administration import QuotaChanges, TenantUnknown
from gateway.app import create_app
from gateway.http import request_log
from gateway.http.protocol import HardenedProtocol
from schemas.api.scopes import Scope
from schemas.policy import quotas as quota_policy
from schemas.policy.quotas import Quotas

log = structlog.stdlib.get_logger("gateway")

GRACE_SECONDS: Final = 30
# Longer than a proxy keeps an idle connection, or it would send a request into one just closed.
KEEP_ALIVE_SECONDS: Final = 75
TENANT_NAME_MAX: Final = 200
QUOTA_MAX: Final = 2**63 - 1
BY_DEFAULT: Final = "none"
"""What an operator writes where a tenant is to have no quota of its own."""

Result = TypeVar("Result")


class GracefulServer(uvicorn.Server):
    """Says where it listens, and lets waiting requests go before it waits for them."""

    def __init__(self, config: uvicorn.Config, *, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What was loaded in order to serve stays as long as the process. Looked through for
        # garbage with the rest, it would stop every request for a tenth of a second and more.
        gc.collect()
        gc.freeze()
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
    request_log.configure(loaded)
    app = create_app(loaded, settings.load_store(loaded))
    config = uvicorn.Config(
        request_log.RequestLog(app),
        host=loaded.gateway_host,
        port=loaded.gateway_port,
        loop="uvloop",
        http=HardenedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    GracefulServer(config, on_exit=app.state.context.job_changes.drain).run()


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


def quota(text: str) -> int | None:
    """Take a number of bytes such as `10GiB`, or `none`, from the command line.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    if text == BY_DEFAULT:
        return None
    try:
        size = int(TypeAdapter(ByteSize).validate_python(text))
    except (ValidationError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a size such as 10GiB nor {BY_DEFAULT}"
        ) from error
    if not 0 <= size <= QUOTA_MAX:
        raise argparse.ArgumentTypeError(f"{text} is more than can be counted")
    return size


def count(text: str) -> int | None:
    """Take a number of things, or `none`, from the command line.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    if text == BY_DEFAULT:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) > QUOTA_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {BY_DEFAULT}")
    return int(text)


def media_range(text: str) -> str:
    """Take a media type or a range of them from the command line.

    Raises:
        argparse.ArgumentTypeError: it is neither.
    """
    try:
        return quota_policy.media_range(text)
    except quota_policy.NotAMediaRange as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def in_transaction(
    loaded: settings.AdministrationSettings, command: Callable[[AsyncSession], Awaitable[Result]]
) -> Result:
    request_log.configure(loaded)

    async def run() -> Result:
        engine = db.build_engine(loaded)
        try:
            async with db.Database(engine).transaction() as session:
                return await command(session)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def create_key(*, tenant: str, scopes: Sequence[Scope]) -> str:
    loaded = settings.load(settings.AdministrationSettings)
    return in_transaction(
        loaded,
        lambda session: administration.create_key(session, tenant=tenant, scopes=scopes),
    )


def set_quota(*, tenant: str, changes: QuotaChanges) -> Quotas:
    """Change some of a tenant's quotas; exit where there is no such tenant."""
    loaded = settings.load(settings.AdministrationSettings)
    defaults = Quotas.from_settings(loaded)
    try:
        return in_transaction(
            loaded,
            lambda session: administration.set_quota(
                session, tenant=tenant, changes=changes, defaults=defaults
            ),
        )
    except TenantUnknown as error:
        raise SystemExit(f"gateway: {error}") from None


def described(quotas: Quotas) -> str:
    """Return quotas as an operator reads them, one to a line."""
    total = "no limit" if quotas.total_bytes is None else str(quotas.total_bytes)
    return "\n".join(
        (
            f"bytes: {total}",
            f"open-uploads: {quotas.open_uploads}",
            f"file-size: {quotas.file_size}",
            f"types: {', '.join(quotas.types)}",
        )
    )


def changes_in(arguments: argparse.Namespace) -> QuotaChanges:
    """Return what was given on the command line, and nothing else."""
    given = vars(arguments)
    changes = QuotaChanges()
    for name in ("quota_bytes", "quota_open_uploads", "quota_file_size", "allowed_types"):
        if name in given:
            changes[name] = given[name]
    return changes


def parser() -> argparse.ArgumentParser:
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
    quotas = commands.add_parser(
        "set-quota",
        help=f"change a tenant's quotas and print those that count; {BY_DEFAULT!r} is the default again",
        # What is not given is not there, and stays as it is.
        argument_default=argparse.SUPPRESS,
    )
    quotas.add_argument("--tenant", required=True, type=tenant_name)
    quotas.add_argument("--bytes", dest="quota_bytes", type=quota, help="such as 10GiB, in all")
    quotas.add_argument("--open-uploads", dest="quota_open_uploads", type=count, help="at once")
    quotas.add_argument("--file-size", dest="quota_file_size", type=quota, help="of one file")
    types = quotas.add_mutually_exclusive_group()
    types.add_argument(
        "--allow-type",
        dest="allowed_types",
        action="append",
        type=media_range,
        help="a media type or a range such as 'image/*'; may be given more than once, and replaces those before",
    )
    types.add_argument(
        "--allow-any-type",
        dest="allowed_types",
        action="store_const",
        const=[quota_policy.ANY_TYPE],
    )
    types.add_argument(
        "--allow-default-types", dest="allowed_types", action="store_const", const=None
    )
    return parser


def main() -> None:
    arguments = parser().parse_args()
    if arguments.command == "serve":
        serve()
    elif arguments.command == "create-key":
        print(create_key(tenant=arguments.tenant, scopes=arguments.scopes or list(Scope)))  # noqa: T201  # the key is the command's output
    else:
        print(described(set_quota(tenant=arguments.tenant, changes=changes_in(arguments))))  # noqa: T201  # the quotas are the command's output


if __name__ == "__main__":
    main()
