"""The worker that deletes a large tenant is killed again and again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from operator import le
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from sqlalchemy import text

from dev.demo import paper
from dev.seed.extent import Extent
from dev.seed.load import seed
from dev.stack.stack import TENANT, Stack
from schemas import object_keys
from schemas.ids import UploadId
from tests.e2e.deleted_tenants import Member, delete
from tests.e2e.deployment import SETTINGS, Deployment
from tests.eventually import eventually

pytestmark = pytest.mark.timeout(1800)

KILLS = 20
EXTENT = Extent(rows=1_500, tenants=2, active=200)
OBJECTS = 200
NEXT_WORKER = timedelta(minutes=3)


@pytest.fixture
def deployment(infrastructure: Stack, migrated_template: str) -> Iterator[Deployment]:
    settings = SETTINGS | {"STEP_WATCH_EVERY": "1s"}
    with infrastructure.scoped("deletion", settings=settings, template=migrated_template) as own:
        seed(own.environment["DATABASE_URL"], EXTENT)
        own.api_key = own.create_api_key(tenant=TENANT)
        own.start_services(
            *("gateway", "relay", "deliver", "transfer", "ingest", "metadata", "batch", "beat")
        )
        with Deployment.of(own) as deployment:
            yield deployment


def test_a_deletion_with_twenty_kills_leaves_nothing_and_counts_each_row_once(
    deployment: Deployment, tmp_path: Path
) -> None:
    system, random = deployment.system, Random(51)
    path = tmp_path / "consignment.pdf"
    paper.write_pdf(path, seed=51)
    with (
        Member.of(deployment, name="seed-0001") as leaving,
        Member.of(deployment, name="seed-0002") as bystander,
        Member.of(deployment, name="staying") as staying,
        ThreadPoolExecutor(1) as command,
    ):
        with leaving.engine.begin() as connection:
            connection.execute(text("UPDATE steps SET lease_until = now()"))
        for _ in range(OBJECTS):
            deployment.bucket.put(object_keys.original(leaving.id, UploadId(uuid4())), b"object")
        staying.read(path)
        kept = [each.rows() for each in (bystander, staying)]
        before = leaving.rows()
        total = sum(before.values())
        thresholds = sorted(random.randrange(total * 9 // 10) for _ in range(KILLS))

        printed = command.submit(delete, system, leaving)
        for threshold in thresholds:
            eventually(partial(_deleted, leaving), until=partial(le, threshold), within=NEXT_WORKER)
            system.kill("transfer")

        left = {name: rows for name, (_, rows) in printed.result().items()}
        deleted = {name: rows for name, (rows, _) in printed.result().items()}
        assert set(left.values()) == {0}
        assert deleted == before
        assert leaving.left() == {}
        assert [each.rows() for each in (bystander, staying)] == kept


def _deleted(member: Member) -> int:
    """Return how many rows are deleted; 0 before the order."""
    with member.engine.connect() as connection:
        found = connection.execute(
            text(
                "SELECT sum(value::bigint) FROM tenant_deletions, jsonb_each_text(rows)"
                " WHERE tenant_id = :tenant_id"
            ),
            {"tenant_id": member.id},
        ).scalar_one()
    return int(found or 0)
