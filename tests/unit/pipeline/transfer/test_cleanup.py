from datetime import timedelta

import pytest

from pipeline.steps.errors import LeaseLost
from pipeline.transfer import cleanup
from schemas.errors import StoreRejected
from tests.fakes.storage import FakeStorage, Object, raising
from tests.unit.pipeline.transfer.sending import REJECTED, HangingDelete, store_parts
from tests.unit.pipeline.transfer.staging import KEY, is_empty, part


@pytest.mark.parametrize("known", [True, False])
def test_delete_object_deletes_parts_and_object_and_may_be_repeated(known: bool) -> None:  # noqa: FBT001  # pytest passes it
    storage = FakeStorage()
    multipart = store_parts(storage, {1: part(1)})
    storage.objects[KEY] = Object(b"", "text/plain", etag="")

    for _ in range(2):
        cleanup.delete_object(KEY, storage=storage, multipart_id=multipart.id if known else None)

    assert is_empty(storage)


def test_delete_object_deletes_the_object_if_multipart_uploads_cannot_be_listed() -> None:
    storage = FakeStorage()
    storage.objects[KEY] = Object(b"", "text/plain", etag="")
    storage.before = raising(REJECTED, on="open_multiparts")

    with pytest.raises(StoreRejected):
        cleanup.delete_object(KEY, storage=storage)

    assert KEY not in storage.objects


def test_a_running_delete_is_abandoned_when_the_heartbeat_fails() -> None:
    storage = FakeStorage()
    storage.before = deleting = HangingDelete()

    with pytest.raises(LeaseLost):
        cleanup.delete_object_while_leased(
            deleting.lose_lease,
            heartbeat_interval=timedelta(milliseconds=1),
            key=KEY,
            storage=storage,
            multipart_id=None,
            keep_object=False,
        )

    assert deleting.was_abandoned == [True]
