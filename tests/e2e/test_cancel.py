"""Whenever an upload is cancelled, nothing of it stays, and it is told once."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.e2e.cancellable_uploads import Moment, Uploads
from tests.e2e.traces import Remains
from tests.e2e.watched_store import WatchedStore
from tests.e2e.whole_system import Scene
from tests.eventually import eventually
from tests.fakes.receiver import Receiver

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def uploads(scene: Scene, store: WatchedStore, receiver: Receiver, tmp_path: Path) -> Uploads:
    return Uploads(
        scene=scene, directory=tmp_path, store=store, options={"callback_url": receiver.url}
    )


def traces(remains: Remains, upload_id: str) -> dict[str, object]:
    """Return everything of an upload but the rows that say it is cancelled."""
    seen = {
        "files": remains.files(upload_id),
        "objects": remains.objects(upload_id),
        "multiparts": remains.multiparts(upload_id),
        "chunk rows": remains.chunk_rows(upload_id),
    }
    return {name: what for name, what in seen.items() if what}


@pytest.mark.parametrize(
    "moment",
    [
        Uploads.without_chunks,
        Uploads.half_sent,
        Uploads.queued,
        Uploads.mid_transfer,
        Uploads.stored_and_not_read,
        Uploads.completed,
    ],
    ids=lambda moment: moment.__name__,
)
def test_nothing_stays_of_a_cancelled_upload_and_it_is_told_once(
    moment: Callable[[Uploads], AbstractContextManager[Moment]],
    scene: Scene,
    uploads: Uploads,
    receiver: Receiver,
) -> None:
    with moment(uploads) as reached:
        upload_id = reached.upload_id
        if reached.is_stored:
            with pytest.raises(httpx.HTTPStatusError, match="409"):
                scene.client.cancel(upload_id)
        answers = [scene.client.cancel(upload_id, purge=reached.is_stored) for _ in range(2)]

    assert [answer["status"] for answer in answers] == ["cancelled", "cancelled"]
    eventually(lambda: traces(scene.remains, upload_id), until=lambda left: not left)
    assert scene.client.get(f"/uploads/{upload_id}").json()["status"] == "cancelled"
    if reached.job_id is not None:
        job = scene.client.job(reached.job_id)
        assert (job["status"], job["result"], job["error"]) == ("cancelled", None, None)
    # An upload after it has gone through every queue behind it.
    with uploads.completed():
        told = [event.type for event in scene.remains.told(upload_id)]
    assert told.count("upload.cancelled") == 1
    assert told[-1] == "upload.cancelled"
    delivered = eventually(
        lambda: delivered_about(receiver, upload_id),
        until=lambda types: "upload.cancelled" in types,
    )
    assert delivered.count("upload.cancelled") == 1
    assert traces(scene.remains, upload_id) == {}


def delivered_about(receiver: Receiver, upload_id: str) -> list[str]:
    events = [json.loads(request.body) for request in receiver.received]
    return [event["type"] for event in events if event["data"]["upload_id"] == upload_id]
