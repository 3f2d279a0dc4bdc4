"""A whole system, together with every way to look at it."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev.client import Client
from dev.stack.stack import Stack
from tests.bucket import Bucket
from tests.e2e.files import MIB, settle
from tests.e2e.persistent_client import Sent
from tests.e2e.traces import Remains
from tests.eventually import eventually

PART_SIZE: Final = 5 * MIB
"""Small enough for a transfer of many parts, so that there is a middle to be killed in."""
PARALLEL_PARTS: Final = 4

SETTINGS: Final = {
    # A killed worker's upload is free again after this; the default would make tests wait.
    "TRANSFER_LEASE": "5s",
    "S3_PART_SIZE": str(PART_SIZE),
    "S3_PARALLEL_PARTS": str(PARALLEL_PARTS),
    "PDF_TIMEOUT": "20s",
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    system: Stack
    client: Client
    bucket: Bucket
    remains: Remains

    @property
    def key(self) -> str:
        return str(self.system.api_key)

    @property
    def gateway_environment(self) -> dict[str, str]:
        """The settings of one more gateway, of which nobody expects that it sees any file."""
        environment = dict(self.system.environment)
        if environment.get("STAGING") == "s3":
            del environment["STAGING_DIR"], environment["WORK_DIR"]
        return environment

    def check_objects(self, sent: Sequence[Sent]) -> None:
        """Wait for the jobs of these uploads; each must have made one object of the right bytes."""
        for one in sent:
            job = settle(self.client, one.job_id)
            assert (job["upload_id"], job["status"]) == (one.upload_id, "completed"), job
        keys = self.bucket.keys()
        key_of = {key.rpartition("/")[2]: key for key in keys}
        wrong = [one for one in sent if self.bucket.sha256(key_of[one.upload_id]) != one.sha256]
        assert not wrong, wrong

    def check_no_files(self, sent: Sequence[Sent]) -> None:
        """See that soon no file of these uploads is left, and with staging in the bucket none ever was."""
        staging = Path(self.system.environment["STAGING_DIR"])
        if self.system.environment.get("STAGING") == "s3":
            assert [found.name for found in staging.iterdir()] == []
        upload_ids = [one.upload_id for one in sent]
        eventually(lambda: self.remains.files(*upload_ids), until=lambda files: not files)

    def check_end(self, upload_id: str, *, sha256: str) -> None:
        """See one object, with these bytes, and soon nothing else of the upload."""
        # A job is settled before what was staged for it is gone.
        (key,) = eventually(
            lambda: self.remains.objects(upload_id), until=lambda keys: len(keys) == 1
        )
        assert self.bucket.sha256(key) == sha256
        assert self.remains.multiparts(upload_id) == []
        eventually(lambda: self.remains.files(upload_id), until=lambda files: not files)

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Let a process do nothing for as long as this lasts; what comes for it waits."""
        process = self.system.processes[name]
        process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)


@contextmanager
def of(system: Stack) -> Iterator[Scene]:
    remains = Remains(system.environment)
    with Client(system.url, api_key=str(system.api_key)) as client:
        yield Scene(
            system=system, client=client, bucket=Bucket(system.environment), remains=remains
        )
    remains.close()
