"""What a tenant has in a whole system, and what is left of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from dev.client import Chunk, Client
from dev.stack.stack import Stack
from schemas.ids import TenantId
from schemas.tables import tenant_rows
from schemas.tables.tenants import Tenant
from tests.e2e.deployment import Deployment
from tests.e2e.files import MIB, settled

DELETE: Final = ("waybill", "tenants", "delete")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A tenant of a system, with the uploads that it made."""

    name: str
    id: TenantId
    client: Client
    deployment: Deployment
    engine: Engine
    upload_ids: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def of(cls, deployment: Deployment, *, name: str) -> Iterator[Self]:
        """Create a tenant with a key of every scope."""
        system = deployment.system
        key = system.create_api_key(tenant=name)
        engine = create_engine(system.environment["DATABASE_URL"])
        try:
            with Session(engine) as session:
                tenant_id = session.scalars(select(Tenant.id).where(Tenant.name == name)).one()
            with Client(system.url, api_key=key) as client:
                yield cls(
                    name=name, id=tenant_id, client=client, deployment=deployment, engine=engine
                )
        finally:
            engine.dispose()

    def submit(self, path: Path) -> str:
        """Upload a file; return its job."""
        job = self.client.upload(path)
        self.upload_ids.append(job["upload_id"])
        job_id: str = job["job_id"]
        return job_id

    def read(self, path: Path) -> str:
        """Upload a document and ask for the image of its last page; return the document."""
        job = settled(self.client, self.submit(path))
        assert job["status"] == "completed", job["error"]
        document_id: str = job["result"]["document_id"]
        pages = self.client.get(f"/documents/{document_id}").json()["page_count"]
        image = self.client.http.get(f"/documents/{document_id}/pages/{pages}/image")
        assert image.status_code in {202, 302, 307}
        return document_id

    def begin(self) -> None:
        """Send the first half of an upload."""
        created = self.client.create_upload(filename="half.bin", size=2 * MIB, chunk_size=MIB)
        self.upload_ids.append(created["upload_id"])
        self.client.put_chunk(
            created["upload_id"], Chunk(index=0, content=bytes(MIB))
        ).raise_for_status()

    def rows(self) -> Mapping[str, int]:
        """Return the number of rows of the tenant, by table."""
        with Session(self.engine) as session:
            return {
                table.name: session.execute(tenant_rows.count(table, self.id)).scalar_one()
                for table in tenant_rows.tables()
            }

    def left(self) -> Mapping[str, object]:
        """Return what is left of the tenant, in the database, the bucket and the file system."""
        bucket, traces = self.deployment.bucket, self.deployment.traces
        mine = (str(self.id), *self.upload_ids)
        found = {
            "rows": {name: rows for name, rows in self.rows().items() if rows},
            "objects": named(bucket.keys(), mine),
            "multiparts": named(bucket.open_multiparts(), mine),
            "files": traces.files(*mine),
        }
        return {name: what for name, what in found.items() if what}


def named(keys: Iterable[str], ids: Sequence[str]) -> list[str]:
    """Return the keys that contain one of the ids."""
    return [key for key in keys if any(each in key for each in ids)]


def delete(system: Stack, member: Member) -> Mapping[str, tuple[int, int]]:
    """Run the command until nothing is left; return what it prints: deleted and left rows by table."""
    printed = system.run([*DELETE, member.name, "--yes"])
    rows = [line.split() for line in printed.splitlines()]
    return {
        row[0]: (int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3 and row[1].isdigit() and row[2].isdigit()
    }
