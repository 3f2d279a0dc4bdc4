"""A tenant with many waiting jobs delays neither another tenant nor its own interactive work."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session

from dev.client import Client
from dev.stack.stack import Stack
from schemas import object_keys
from schemas.errors import ErrorCode
from schemas.ids import TenantId
from schemas.lifecycle import Priority, StepStatus
from schemas.settings import StepSettings
from schemas.steps import StepName
from schemas.tables.steps import Step, TenantSteps
from schemas.tables.tenants import Tenant
from tests.e2e.deployment import Deployment
from tests.eventually import eventually
from tests.stack import fresh_name

pytestmark = pytest.mark.timeout(120)

REFERENCES = 100
CLIENTS = 8
PROCESSES = 2
"""Of the worker `transfer`."""
TIMEOUT = timedelta(seconds=60)

SHARES = {
    Priority.INTERACTIVE: StepSettings().tenant_steps_max,
    Priority.BULK: StepSettings().tenant_bulk_steps_max,
}


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A new tenant: its client, and a session to look at its steps."""

    tenant_id: TenantId
    client: Client
    session: Session

    def submit_references_to_nothing(self, *, priority: Priority) -> None:
        def submit(number: int) -> None:
            key = f"{object_keys.incoming(self.tenant_id)}missing-{number}"
            answer = self.client.http.post("/jobs", json={"object_key": key, "priority": priority})
            answer.raise_for_status()

        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(submit, range(REFERENCES)))

    def counters(self, priority: Priority) -> tuple[int, int, int]:
        """Return how many transfers wait, are in the broker, and have ended."""
        row = self.session.execute(
            select(TenantSteps.waiting, TenantSteps.in_broker, TenantSteps.finished).where(
                TenantSteps.tenant_id == self.tenant_id,
                TenantSteps.name == StepName.TRANSFER,
                TenantSteps.priority == priority,
            )
        ).one()
        return row.waiting, row.in_broker, row.finished

    def ended_before(self, moment: datetime, *, priority: Priority) -> int:
        """Return how many transfers ended before a moment."""
        return self.session.scalars(
            select(func.count()).where(
                Step.tenant_id == self.tenant_id,
                Step.priority == priority,
                Step.finished_at <= moment,
            )
        ).one()

    def outcomes(self, priority: Priority) -> list[tuple[StepStatus, str | None, int]]:
        """Return the number of steps by status and error code."""
        rows = self.session.execute(
            select(Step.status, Step.error_code, func.count())
            .where(Step.tenant_id == self.tenant_id, Step.priority == priority)
            .group_by(Step.status, Step.error_code)
        )
        return [(status, code, count) for status, code, count in rows]


NewOwner: TypeAlias = Callable[[], Owner]


@pytest.fixture
def new_owner(system: Stack) -> Iterator[NewOwner]:
    engine = create_engine(system.environment["DATABASE_URL"], isolation_level="AUTOCOMMIT")
    with ExitStack() as end:
        end.callback(engine.dispose)
        session = end.enter_context(Session(engine))

        def new_owner() -> Owner:
            name = fresh_name()
            client = Client(system.url, api_key=system.create_api_key(tenant=name))
            tenant_id = session.scalars(select(Tenant.id).where(Tenant.name == name)).one()
            return Owner(tenant_id=tenant_id, client=end.enter_context(client), session=session)

        yield new_owner


@pytest.fixture
def deployment(system: Stack) -> Iterator[Deployment]:
    with Deployment.of(system) as deployment:
        yield deployment


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "note.bin"
    path.write_bytes(b"note\n")
    return path


def assert_upload_passes_references(
    note: Path, *, of: Owner, crowd: Owner, priority: Priority, deployment: Deployment
) -> None:
    """Upload a file behind references to nothing; only the share of the references precedes it."""
    share = SHARES[priority]
    with deployment.paused("transfer"):
        crowd.submit_references_to_nothing(priority=priority)
        waiting, in_broker, ended = crowd.counters(priority)
        assert waiting >= REFERENCES - share - ended > share
        assert in_broker <= share
        job_id = of.client.upload(note)["job_id"]
    job = of.client.wait_until_settled(job_id, timeout=TIMEOUT)

    assert job["status"] == "completed", job
    finished_at = datetime.fromisoformat(job["finished_at"])
    passed = crowd.ended_before(finished_at, priority=priority) - ended
    # While one process works on the upload, each other process ends a few more.
    assert passed <= share + 4 * PROCESSES

    eventually(
        lambda: crowd.counters(priority),
        until=lambda counted: counted == (0, 0, REFERENCES),
        within=TIMEOUT,
    )
    assert crowd.outcomes(priority) == [
        (StepStatus.FAILED, ErrorCode.REFERENCE_MISSING, REFERENCES)
    ]


def test_an_upload_passes_the_waiting_jobs_of_another_tenant(
    deployment: Deployment, new_owner: NewOwner, note: Path
) -> None:
    assert_upload_passes_references(
        note,
        of=new_owner(),
        crowd=new_owner(),
        priority=Priority.INTERACTIVE,
        deployment=deployment,
    )


def test_an_upload_passes_the_bulk_jobs_of_its_tenant(
    deployment: Deployment, new_owner: NewOwner, note: Path
) -> None:
    owner = new_owner()
    assert_upload_passes_references(
        note, of=owner, crowd=owner, priority=Priority.BULK, deployment=deployment
    )
