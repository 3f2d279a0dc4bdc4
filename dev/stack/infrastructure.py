"""PostgreSQL, RabbitMQ and the object store: started here, or supplied by the caller."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from dev.stack import ownership
from dev.stack.certificates import Certificates
from dev.stack.checkout import RCLONE, SWIFT_PROGRAMS
from dev.stack.errors import SettingMissing
from dev.stack.identity import Identity
from dev.stack.postgres import Postgres
from dev.stack.rabbitmq import RabbitMq
from dev.stack.rclone import Rclone
from dev.stack.supervisor import Supervisor
from dev.stack.swift import BUCKET, Swift, SwiftTls


class Part(StrEnum):
    POSTGRES = "postgres"
    RABBITMQ = "rabbitmq"
    OBJECT_STORE = "object store"


class Store(StrEnum):
    """An object store for tests; each starts when a test asks for it."""

    SWIFT = "swift-http"
    SWIFT_TLS = "swift-https"
    RCLONE = "rclone-http"
    RCLONE_TLS = "rclone-https"


ADDRESS_OF: Mapping[Part, str] = {
    Part.POSTGRES: "DATABASE_URL",
    Part.RABBITMQ: "RABBITMQ_URL",
    Part.OBJECT_STORE: "S3_ENDPOINT_URL",
}
"""A caller that sets this setting supplies the part."""


class LocalPart(Protocol):
    @property
    def environment(self) -> dict[str, str]:
        """The settings with which services reach the part."""

    async def bring_up(self, supervisor: Supervisor) -> None:
        """Start the part and return when it is ready."""


def local_parts(
    state_dir: Path, identity: Identity, *, consumer_timeout: timedelta, fsync: bool
) -> dict[Part, LocalPart]:
    marker = {ownership.MARKER: identity.stack_id}
    return {
        Part.POSTGRES: Postgres(
            home=state_dir / "postgres",
            port=identity.ports["postgres"],
            password=identity.postgres_password,
            fsync=fsync,
            marker=marker,
        ),
        Part.RABBITMQ: RabbitMq(
            home=state_dir / "rabbitmq",
            node_name=f"waybill-{identity.stack_id}@localhost",
            password=identity.rabbitmq_password,
            erlang_cookie=identity.erlang_cookie,
            ports=identity.ports,
            consumer_timeout=consumer_timeout,
            marker=marker,
        ),
        Part.OBJECT_STORE: _swift(state_dir, identity),
    }


def local_stores(state_dir: Path, identity: Identity) -> dict[Store, LocalPart]:
    """Return the object stores for tests; Swift over TLS needs the plain Swift."""
    swift = _swift(state_dir, identity)
    return {
        Store.SWIFT: swift,
        Store.SWIFT_TLS: SwiftTls(
            swift=swift,
            port=identity.ports["swift_proxy_tls"],
            certificates=Certificates(state_dir / "swift" / "tls"),
        ),
        Store.RCLONE: _rclone(state_dir, identity, name="rclone"),
        Store.RCLONE_TLS: _rclone(
            state_dir,
            identity,
            name="rclone-tls",
            certificates=Certificates(state_dir / "rclone-tls" / "tls"),
        ),
    }


def _swift(state_dir: Path, identity: Identity) -> Swift:
    return Swift(
        home=state_dir / "swift",
        programs=SWIFT_PROGRAMS,
        ports=identity.ports,
        secret_access_key=identity.s3_secret_access_key,
        hash_suffix=identity.swift_hash_suffix,
        marker={ownership.MARKER: identity.stack_id},
    )


def _rclone(
    state_dir: Path, identity: Identity, *, name: str, certificates: Certificates | None = None
) -> Rclone:
    return Rclone(
        name=name,
        home=state_dir / name,
        program=RCLONE,
        port=identity.ports[name.replace("-", "_")],
        secret_access_key=identity.s3_secret_access_key,
        marker={ownership.MARKER: identity.stack_id},
        certificates=certificates,
    )


def supplied(settings: Mapping[str, str]) -> dict[Part, dict[str, str]]:
    """Return the parts that the caller supplies, each with its settings.

    Raises:
        SettingMissing: an object store has no credentials.
    """
    return {
        part: reach(settings)
        for part, reach in _SETTINGS_OF.items()
        if ADDRESS_OF[part] in settings
    }


def _object_store(settings: Mapping[str, str]) -> dict[str, str]:
    for name in ("S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"):
        if name not in settings:
            raise SettingMissing(name, because="S3_ENDPOINT_URL is set")
    given = {name: value for name, value in settings.items() if name.startswith("S3_")}
    return {"S3_BUCKET": BUCKET} | given


def _only(*names: str) -> Callable[[Mapping[str, str]], dict[str, str]]:
    return lambda settings: {name: settings[name] for name in names if name in settings}


_SETTINGS_OF: Mapping[Part, Callable[[Mapping[str, str]], dict[str, str]]] = {
    Part.POSTGRES: _only("DATABASE_URL"),
    Part.RABBITMQ: _only("RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL"),
    Part.OBJECT_STORE: _object_store,
}
