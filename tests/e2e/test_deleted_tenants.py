"""A tenant is deleted while the system works for others."""

from pathlib import Path
from uuid import uuid4

import pytest

from dev.demo import paper
from tests.e2e.deleted_tenants import Member, delete
from tests.e2e.deployment import Deployment
from tests.e2e.files import settled
from tests.eventually import eventually
from tests.fakes.receiver import Receiver

pytestmark = pytest.mark.timeout(240)


def test_nothing_of_a_deleted_tenant_is_left_also_of_its_messages_in_the_broker(
    forgetful_deployment: Deployment, tmp_path: Path
) -> None:
    deployment, system = forgetful_deployment, forgetful_deployment.system
    path = tmp_path / "consignment.pdf"
    paper.write_pdf(path, seed=51)
    with (
        Receiver() as receiver,
        Member.of(deployment, name=f"leaving-{uuid4()}") as leaving,
        Member.of(deployment, name=f"staying-{uuid4()}") as staying,
    ):
        for each in (leaving, staying):
            each.client.create_webhook(receiver.url)
            each.read(path)
        leaving.begin()
        deployment.bucket.put(f"incoming/{leaving.id}/file.pdf", b"%PDF-1.7")
        kept = staying.rows()
        # Their messages stay in the broker: facts for webhooks, and a step.
        with deployment.paused("deliver"), deployment.paused("metadata"):
            for _ in range(3):
                leaving.submit(path)
            eventually(
                lambda: leaving.client.get("/documents").json()["items"],
                until=lambda documents: len(documents) == 4,
            )

            printed = delete(system, leaving)

            assert leaving.left() == {}
        deleted = {name: rows for name, (rows, _) in printed.items() if rows}
        assert {"documents", "events", "jobs", "pages", "steps", "uploads"} <= deleted.keys()
        assert {left for _, left in printed.values()} == {0}
        assert leaving.client.http.get("/jobs").status_code == 401
        assert staying.rows() == kept

        # The messages of the deleted tenant are before those of this upload.
        before = len(receiver.received)
        assert settled(staying.client, staying.submit(path))["status"] == "completed"
        eventually(lambda: len(receiver.received), until=lambda count: count > before + 1)
        assert leaving.left() == {}
