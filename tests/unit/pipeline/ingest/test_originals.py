import errno
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pipeline.context import Context
from pipeline.ingest import originals
from pipeline.ingest.errors import NoDiskSpace
from schemas.settings import CelerySettings

if TYPE_CHECKING:
    from pipeline.ingest.record import StoredDocument

DOCUMENT = cast("StoredDocument", SimpleNamespace(object_key="documents/a"))


def context_of(directory: Path, *, error: int | None) -> Context:
    """Return a context whose store writes half of an object, and then meets an error."""

    def download(_key: str, *, to: Path) -> None:
        to.write_bytes(b"half")
        if error is not None:
            raise OSError(error, "while writing")

    settings = SimpleNamespace(work_dir=directory, task_time_limit=CelerySettings().task_time_limit)
    return cast(
        "Context", SimpleNamespace(settings=settings, storage=SimpleNamespace(download=download))
    )


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_reason_to_try_again_and_leaves_nothing(
    tmp_path: Path, error: int
) -> None:
    context = context_of(tmp_path, error=error)
    with (
        pytest.raises(NoDiskSpace) as raised,
        originals.downloaded(context, DOCUMENT, heartbeat=lambda: None),
    ):
        pass
    assert raised.value.retryable
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_the_disk_is_not_hidden(tmp_path: Path) -> None:
    context = context_of(tmp_path, error=errno.EIO)
    with (
        pytest.raises(OSError, match="while writing"),
        originals.downloaded(context, DOCUMENT, heartbeat=lambda: None),
    ):
        pass


def test_an_error_of_the_reading_is_not_taken_for_one_of_the_copy(tmp_path: Path) -> None:
    def read() -> None:
        with originals.downloaded(
            context_of(tmp_path, error=None), DOCUMENT, heartbeat=lambda: None
        ) as file:
            assert file.read_bytes() == b"half"
            raise OSError(errno.ENOSPC, "elsewhere")

    with pytest.raises(OSError, match="elsewhere"):
        read()
