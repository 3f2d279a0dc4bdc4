"""A cancelled upload leaves nothing but its rows, and one event."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.e2e.cancellable_uploads import CancellableUpload, CancellableUploads
from tests.e2e.deployment import Deployment
from tests.e2e.store_proxy import StoreProxy
from tests.e2e.traces import Traces
from tests.eventually import eventually
from tests.fakes.receiver import Receiver

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def uploads(
    deployment: Deployment, store_proxy: StoreProxy, receiver: Receiver, tmp_path: Path
) -> CancellableUploads:
    return CancellableUploads(
        deployment=deployment,
        directory=tmp_path,
        store=store_proxy,
        options={"callback_url": receiver.url},
    )


def leftovers(traces: Traces, upload_id: str) -> dict[str, object]:
    """Return everything left of an upload, apart from its upload and job rows."""
    found = {
        "files": traces.files(upload_id),
        "objects": traces.objects(upload_id),
        "multiparts": traces.multiparts(upload_id),
        "chunk rows": traces.chunk_rows(upload_id),
    }
    return {name: what for name, what in found.items() if what}


@pytest.mark.parametrize(
    "stage",
    [
        CancellableUploads.without_chunks,
        CancellableUploads.half_sent,
        CancellableUploads.queued,
        CancellableUploads.mid_transfer,
        CancellableUploads.stored_and_not_read,
        CancellableUploads.completed,
    ],
    ids=lambda stage: stage.__name__,
)
def test_cancel_deletes_everything_and_publishes_one_event(
    stage: Callable[[CancellableUploads], AbstractContextManager[CancellableUpload]],
    deployment: Deployment,
    uploads: CancellableUploads,
    receiver: Receiver,
) -> None:
    with stage(uploads) as upload:
        upload_id = upload.upload_id
        if upload.is_stored:
            with pytest.raises(httpx.HTTPStatusError, match="409"):
                deployment.client.cancel(upload_id)
        answers = [deployment.client.cancel(upload_id, purge=upload.is_stored) for _ in range(2)]

    assert [answer["status"] for answer in answers] == ["cancelled", "cancelled"]
    eventually(lambda: leftovers(deployment.traces, upload_id), until=lambda left: not left)
    assert deployment.client.get(f"/uploads/{upload_id}").json()["status"] == "cancelled"
    if upload.job_id is not None:
        job = deployment.client.job(upload.job_id)
        assert (job["status"], job["result"], job["error"]) == ("cancelled", None, None)
    # A later upload has passed every queue behind the cancelled one.
    with uploads.completed():
        published = [event.type for event in deployment.traces.events(upload_id)]
    assert published.count("upload.cancelled") == 1
    assert published[-1] == "upload.cancelled"
    delivered = eventually(
        lambda: delivered_events(receiver, upload_id),
        until=lambda types: "upload.cancelled" in types,
    )
    assert delivered.count("upload.cancelled") == 1
    assert leftovers(deployment.traces, upload_id) == {}


def delivered_events(receiver: Receiver, upload_id: str) -> list[str]:
    events = [json.loads(request.body) for request in receiver.received]
    return [event["type"] for event in events if event["data"]["upload_id"] == upload_id]
