"""A file's way through the whole product, in two steps that are measured separately."""

from contextlib import closing
from datetime import timedelta
from typing import Any, Final

from dev.bench.receivers import Sending, Waybill
from dev.bench.system import System
from dev.bench.wire import Content
from dev.client import Client

TIMEOUT: Final = timedelta(minutes=15)


class JobFailed(Exception):
    """The job to measure did not complete."""

    def __init__(self, status: str, *, error: object) -> None:
        super().__init__(f"the job ended as {status}: {error}")


def stage(system: System, *, size: int, content: Content) -> Sending:
    """Send a file that repeats one chunk."""
    receiver = Waybill(system.url, api_key=system.api_key)
    with closing(receiver.connect()) as connection:
        sending = receiver.begin(connection, size=size, chunk_size=len(content.data))
        for index in sending.chunks:
            receiver.send(connection, sending, index=index, content=content)
    return sending


def finish(system: System, sending: Sending) -> dict[str, Any]:
    """Finalize a file and return its job once it is completed.

    Raises:
        JobFailed: the job failed or was cancelled.
    """
    with Client(system.url, api_key=system.api_key) as client:
        job_id = client.finalize(sending.id).json()["job_id"]
        job = client.wait_until_settled(job_id, timeout=TIMEOUT)
    if job["status"] != "completed":
        raise JobFailed(job["status"], error=job["error"])
    return job
