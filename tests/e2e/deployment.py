"""A whole system, with a client and with views of its bucket, files, rows and events."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dev.client import Client
from dev.stack.stack import Stack
from tests.bucket import Bucket
from tests.e2e.files import MIB, settled
from tests.e2e.persistent_client import FinalizedUpload
from tests.e2e.traces import Traces
from tests.eventually import eventually

PART_SIZE: Final = 5 * MIB
"""The minimum part size: a transfer of a small file has many parts, and is killed in the middle."""
PARALLEL_PARTS: Final = 4

SETTINGS: Final = {
    # The lease of a killed worker expires soon; the default would make tests wait.
    "TRANSFER_LEASE": "5s",
    "S3_PART_SIZE": str(PART_SIZE),
    "S3_PARALLEL_PARTS": str(PARALLEL_PARTS),
    "PDF_TIMEOUT": "20s",
    # The first search of a gateway loads the model, which a busy machine does slowly.
    "SEARCH_TIMEOUT": "20s",
}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    system: Stack
    client: Client
    bucket: Bucket
    traces: Traces

    @classmethod
    @contextmanager
    def of(cls, system: Stack) -> Iterator[Self]:
        traces = Traces(system.environment)
        with Client(system.url, api_key=str(system.api_key)) as client:
            yield cls(
                system=system, client=client, bucket=Bucket(system.environment), traces=traces
            )
        traces.close()

    @property
    def key(self) -> str:
        return str(self.system.api_key)

    @property
    def gateway_environment(self) -> dict[str, str]:
        """The settings of an additional gateway; with staging in the bucket it has no directory."""
        environment = dict(self.system.environment)
        if environment.get("STAGING") == "s3":
            del environment["STAGING_DIR"], environment["WORK_DIR"]
        return environment

    def assert_objects_complete(self, uploads: Sequence[FinalizedUpload]) -> None:
        """Wait for the jobs of these uploads; each job has completed one object of the right bytes."""
        for upload in uploads:
            job = settled(self.client, upload.job_id)
            assert (job["upload_id"], job["status"]) == (upload.upload_id, "completed"), job
        keys = self.bucket.keys()
        key_of = {key.rpartition("/")[2]: key for key in keys}
        wrong = [
            upload
            for upload in uploads
            if self.bucket.sha256(key_of[upload.upload_id]) != upload.sha256
        ]
        assert not wrong, wrong

    def assert_no_files_left(self, uploads: Sequence[FinalizedUpload]) -> None:
        """No file of these uploads stays; with staging in the bucket, the directory is empty."""
        staging = Path(self.system.environment["STAGING_DIR"])
        if self.system.environment.get("STAGING") == "s3":
            assert [found.name for found in staging.iterdir()] == []
        upload_ids = [upload.upload_id for upload in uploads]
        eventually(lambda: self.traces.files(*upload_ids), until=lambda files: not files)

    def assert_only_object_left(self, upload_id: str, *, sha256: str) -> None:
        """One object with these bytes stays of the upload, and nothing else."""
        # A job settles before its staged bytes are deleted.
        (key,) = eventually(
            lambda: self.traces.objects(upload_id), until=lambda keys: len(keys) == 1
        )
        assert self.bucket.sha256(key) == sha256
        assert self.traces.multiparts(upload_id) == []
        eventually(lambda: self.traces.files(upload_id), until=lambda files: not files)

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Stop a process with SIGSTOP, so that its messages wait; continue it at the end."""
        process = self.system.processes[name]
        process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.signal(signal.SIGCONT)
