"""`rclone serve s3`: a second real object store that behaves differently from Swift."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Final

from dev.stack import environment
from dev.stack.certificates import Certificates
from dev.stack.errors import ProgramMissing
from dev.stack.object_store import ObjectStore
from dev.stack.specification import ProcessSpec
from dev.stack.supervisor import Supervisor

BUCKET: Final = "waybill"
ACCESS_KEY_ID: Final = "waybill"


@dataclass(frozen=True, kw_only=True)
class Rclone:
    """Stores each bucket as a directory; serves TLS if it has certificates."""

    name: str
    home: Path
    program: Path
    port: int
    secret_access_key: str
    marker: dict[str, str]
    certificates: Certificates | None = None

    @property
    def environment(self) -> dict[str, str]:
        scheme = "https" if self.certificates else "http"
        reach = {
            "S3_ENDPOINT_URL": f"{scheme}://127.0.0.1:{self.port}",
            "S3_REGION": "us-east-1",
            "S3_BUCKET": BUCKET,
            "S3_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "S3_SECRET_ACCESS_KEY": self.secret_access_key,
        }
        if self.certificates:
            reach["S3_CA_BUNDLE"] = str(self.certificates.authority)
        return reach

    async def bring_up(self, supervisor: Supervisor) -> None:
        if not self.program.exists():
            raise ProgramMissing("rclone", remedy="make install")
        self._disk.mkdir(parents=True, exist_ok=True)
        if self.certificates:
            self.certificates.make()
        await supervisor.start(
            ProcessSpec(
                name=self.name,
                command=(
                    *(str(self.program), "serve", "s3", str(self._disk)),
                    *("--addr", f"127.0.0.1:{self.port}"),
                    *("--config", str(self.home / "rclone.conf")),
                    *self._tls(),
                ),
                environment=environment.of_infrastructure()
                # Every user of the machine can read a command line.
                | {"RCLONE_AUTH_KEY": f'"{ACCESS_KEY_ID},{self.secret_access_key}"'}
                | self.marker,
                directory=self.home,
                is_ready=self._serves_bucket,
            )
        )

    def _tls(self) -> tuple[str, ...]:
        if self.certificates is None:
            return ()
        server, key = self.certificates.server, self.certificates.server_key
        return ("--cert", str(server), "--key", str(key))

    async def _serves_bucket(self, _: datetime) -> bool:
        return await asyncio.to_thread(self._store.offers_bucket, BUCKET)

    @property
    def _disk(self) -> Path:
        return self.home / "disk"

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore.from_settings(self.environment)
