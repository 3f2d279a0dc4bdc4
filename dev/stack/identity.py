"""The identity of a stack: its id, its secrets, and the ports it used last."""

import base64
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from dev.stack import ports, private_files
from schemas import key_ring

USER: Final = "waybill"
S3_ACCESS_KEY_ID: Final = "waybill:local"
PORTS: Final = (
    "gateway",
    "postgres",
    "amqp",
    "management",
    "prometheus",
    "distribution",
    "epmd",
    "swift_proxy",
    "swift_proxy_tls",
    "swift_account",
    "swift_container",
    "swift_object",
    "rclone",
    "rclone_tls",
)


class Identity(msgspec.Struct, frozen=True):
    """Created once: the databases on disk depend on these secrets."""

    stack_id: str
    postgres_password: str
    rabbitmq_password: str
    erlang_cookie: str
    s3_secret_access_key: str
    swift_hash_suffix: str
    ports: dict[str, int]
    secret_keys: str = ""
    """Empty in the file of an older checkout; a key is added."""


def new(random_hex: Callable[[int], str]) -> Identity:
    return Identity(
        stack_id=random_hex(6),
        postgres_password=random_hex(16),
        rabbitmq_password=random_hex(16),
        erlang_cookie=random_hex(16).upper(),
        s3_secret_access_key=random_hex(20),
        swift_hash_suffix=random_hex(16),
        ports={},
        secret_keys=_new_key(random_hex),
    )


def load_or_create(file: Path) -> Identity:
    """Return the stack's identity with ports that are free now, and write it to `file`."""
    known = (
        msgspec.json.decode(file.read_bytes(), type=Identity)
        if file.exists()
        else new(secrets.token_hex)
    )
    secret_keys = known.secret_keys or _new_key(secrets.token_hex)
    free_now = ports.choose(
        PORTS, preferred=known.ports, is_free=ports.is_free, random_below=secrets.randbelow
    )
    identity = msgspec.structs.replace(known, ports=free_now, secret_keys=secret_keys)
    private_files.write(file, msgspec.json.format(msgspec.json.encode(identity)))
    return identity


def _new_key(random_hex: Callable[[int], str]) -> str:
    return base64.b64encode(bytes.fromhex(random_hex(key_ring.KEY_BYTES))).decode()
