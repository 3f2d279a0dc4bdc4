"""OpenStack Swift with its S3 API: a real object store from wheels, in its own environment."""

import asyncio
import os
import pwd
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from dev.stack import environment, readiness, swift_files
from dev.stack.certificates import Certificates
from dev.stack.checkout import CHECKOUT
from dev.stack.errors import (
    CommandFailed,
    ExtendedAttributesUnsupported,
    ProgramMissing,
    UserHasNoName,
)
from dev.stack.identity import S3_ACCESS_KEY_ID
from dev.stack.object_store import ObjectStore
from dev.stack.specification import Probe, ProcessSpec
from dev.stack.supervisor import Supervisor

BUCKET: Final = "waybill"


@dataclass(frozen=True, kw_only=True)
class Swift:
    home: Path
    programs: Path
    """The `bin` directory of Swift's environment."""
    ports: Mapping[str, int]
    secret_access_key: str
    hash_suffix: str
    marker: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['swift_proxy']}",
            "S3_REGION": swift_files.REGION,
            "S3_BUCKET": BUCKET,
            "S3_ACCESS_KEY_ID": S3_ACCESS_KEY_ID,
            "S3_SECRET_ACCESS_KEY": self.secret_access_key,
        }

    async def bring_up(self, supervisor: Supervisor) -> None:
        if not (self.programs / "swift-proxy-server").exists():
            raise ProgramMissing("Swift", remedy="make install (or set S3_ENDPOINT_URL)")
        for name in ("disk", "cache", "etc"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        require_extended_attributes(self.home / "disk")
        self._write_files()
        await asyncio.to_thread(self._build_rings)
        storage = [self._server(kind) for kind in swift_files.STORAGE_SERVERS]
        await supervisor.start(*storage, self._server("proxy"))

    def _write_files(self) -> None:
        user = _user_name()
        files = {
            f"{kind}-server.conf": swift_files.storage_server(
                kind, home=self.home, port=self.ports[f"swift_{kind}"], user=user
            )
            for kind in swift_files.STORAGE_SERVERS
        }
        files["proxy-server.conf"] = swift_files.proxy_server(
            home=self.home,
            port=self.ports["swift_proxy"],
            user=user,
            secret_key=self.secret_access_key,
        )
        files["swift.conf"] = swift_files.cluster(hash_suffix=self.hash_suffix)
        swift_files.write(self.home / "etc", files)

    def _build_rings(self) -> None:
        command = [
            str(self.programs / "python"),
            *("-m", "dev.stack.swift_rings"),
            str(self.home / "etc"),
            *(f"{kind}={self.ports[f'swift_{kind}']}" for kind in swift_files.STORAGE_SERVERS),
        ]
        result = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            env=environment.of_infrastructure(),
        )
        if result.returncode != 0:
            raise CommandFailed(command, exit_code=result.returncode, output=result.stderr)

    def _server(self, kind: str) -> ProcessSpec:
        port = self.ports[f"swift_{kind}"]
        return self.process(
            f"swift-{kind}",
            program=f"swift-{kind}-server",
            configuration=f"{kind}-server.conf",
            is_ready=self._serves_bucket if kind == "proxy" else readiness.port_open(port),
        )

    def process(
        self, name: str, *, program: str, configuration: str, is_ready: Probe
    ) -> ProcessSpec:
        return ProcessSpec(
            name=name,
            command=(
                str(self.programs / "python"),
                str(self.programs / program),
                str(self.home / "etc" / configuration),
                "--verbose",  # log to standard error
            ),
            environment=(
                environment.of_infrastructure() | {"PYTHONPATH": str(CHECKOUT)} | self.marker
            ),
            directory=self.home,
            is_ready=is_ready,
        )

    async def _serves_bucket(self, _: datetime) -> bool:
        return await asyncio.to_thread(self._serves)

    def _serves(self) -> bool:
        return self._store.offers_bucket(BUCKET)

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore.from_settings(self.environment)


@dataclass(frozen=True, kw_only=True)
class SwiftTls:
    """A TLS proxy for a running Swift; the objects are the same."""

    swift: Swift
    port: int
    certificates: Certificates

    @property
    def environment(self) -> dict[str, str]:
        return self.swift.environment | {
            "S3_ENDPOINT_URL": f"https://127.0.0.1:{self.port}",
            "S3_CA_BUNDLE": str(self.certificates.authority),
        }

    async def bring_up(self, supervisor: Supervisor) -> None:
        self.certificates.make()
        configuration = "proxy-tls-server.conf"
        sections = swift_files.proxy_server(
            home=self.swift.home,
            port=self.port,
            user=_user_name(),
            secret_key=self.swift.secret_access_key,
            certificates=self.certificates,
        )
        swift_files.write(self.swift.home / "etc", {configuration: sections})
        await supervisor.start(
            self.swift.process(
                "swift-proxy-tls",
                program="swift-proxy-server",
                configuration=configuration,
                is_ready=self._serves_bucket,
            )
        )

    async def _serves_bucket(self, _: datetime) -> bool:
        return await asyncio.to_thread(self._store.offers_bucket, BUCKET)

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore.from_settings(self.environment)


def require_extended_attributes(directory: Path) -> None:
    """Set an extended attribute, as Swift does for every object.

    Raises:
        ExtendedAttributesUnsupported: the file system refuses it.
    """
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        try:
            os.setxattr(file.name, "user.swift.metadata", b"{}")
        except OSError as error:
            raise ExtendedAttributesUnsupported(directory, reason=str(error.strerror)) from error


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise UserHasNoName(os.geteuid()) from None
