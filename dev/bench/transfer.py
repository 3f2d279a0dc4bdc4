"""How fast a staged file becomes an object, next to boto3's own `upload_file`.

    python -m dev.bench.transfer [--mebibytes 1024] [--rounds 3]

Store and bucket come from the environment, or from `var/dev.env` after `make up`.
Every run is a process of its own, so that memory and processor time are its own;
the peers take turns, each round another one first, and a ratio is taken within a
round, so that a busy machine slows all of them alike. Ours also checks the SHA-256
of every chunk and of the file, which boto3 has no notion of.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
import structlog
from boto3.s3.transfer import TransferConfig
from boto3.session import Session
from botocore.config import Config
from pydantic_settings import BaseSettings, SettingsConfigDict

from dev.bench.memory import watched
from pipeline.storage.s3 import S3Storage
from pipeline.transfer import plan, upload
from pipeline.transfer.checksums import Chunk
from pipeline.transfer.staged import StagedFile
from pipeline.transfer.upload import Watch
from schemas.object_keys import ObjectKey
from schemas.settings import GIB, MIB, ObjectStoreSettings

CHUNK_SIZE: Final = 8 * MIB
KEY: Final = ObjectKey("benchmarks/transfer")


class StackSettings(ObjectStoreSettings, BaseSettings):
    """The store of the running stack."""

    model_config = SettingsConfigDict(env_file="var/dev.env", extra="ignore")


class Peer(StrEnum):
    WAYBILL = "waybill"
    BOTO3 = "boto3 upload_file"
    BOTO3_ALIKE = "boto3 upload_file, parts as ours"


class Order(msgspec.Struct, frozen=True):
    """What a run is told on stdin."""

    peer: Peer
    store: dict[str, str]
    path: str
    chunks: list[tuple[int, bytes]]


class Run(msgspec.Struct, frozen=True):
    seconds: float
    cpu_seconds: float
    memory_mib: float = 0.0


def main(
    settings: ObjectStoreSettings, *, size_bytes: int = GIB, rounds: int = 3
) -> dict[Peer, list[Run]]:
    """Let every peer send `rounds` times, print a table of medians and ratios, and return the runs."""
    store = settings.model_dump(mode="json", exclude_none=True) | {
        "s3_access_key_id": settings.s3_access_key_id.get_secret_value(),
        "s3_secret_access_key": settings.s3_secret_access_key.get_secret_value(),
    }
    runs: dict[Peer, list[Run]] = {peer: [] for peer in Peer}
    with _random_file(size_bytes) as (path, chunks):
        turns = deque(Peer)
        for _ in range(rounds):
            for peer in turns:
                order = Order(
                    peer, {name: str(value) for name, value in store.items()}, str(path), chunks
                )
                runs[peer].append(_run(order))
            turns.rotate()
    _print_table(runs, size_bytes=size_bytes)
    return runs


def _print_table(runs: dict[Peer, list[Run]], *, size_bytes: int) -> None:
    print(f"{f'transfer of {size_bytes // MIB} MiB':34} MiB/s   best  ratio (range)  CPU s  memory")
    for peer, its_runs in runs.items():
        seconds = [run.seconds for run in its_runs]
        ratios = [
            theirs.seconds / run.seconds
            for theirs, run in zip(runs[Peer.BOTO3], its_runs, strict=True)
        ]
        cpu = median(run.cpu_seconds for run in its_runs)
        memory = max(run.memory_mib for run in its_runs)
        print(
            f"{peer:34} {size_bytes / MIB / median(seconds):5.0f}  {size_bytes / MIB / min(seconds):5.0f}"
            f"  {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})  {cpu:5.1f}  {memory:+.0f} MiB"
        )


@contextmanager
def _random_file(size_bytes: int) -> Iterator[tuple[Path, list[tuple[int, bytes]]]]:
    chunks = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "staged"
        with path.open("wb") as file:
            for offset in range(0, size_bytes, CHUNK_SIZE):
                content = os.urandom(min(CHUNK_SIZE, size_bytes - offset))
                chunks.append((len(content), hashlib.sha256(content).digest()))
                file.write(content)
        yield path, chunks


def _run(order: Order) -> Run:
    """Have a process get ready, then send, and watch its memory meanwhile."""
    with subprocess.Popen(
        [sys.executable, "-m", "dev.bench.transfer", "--peer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError
        print(msgspec.json.encode(order).decode(), file=process.stdin)
        process.stdout.readline()
        with watched({order.peer: process.pid}) as growth:
            print(file=process.stdin)
            answer = process.stdout.readline()
        print(file=process.stdin)
    run = msgspec.json.decode(answer, type=Run)
    return msgspec.structs.replace(run, memory_mib=growth.mib[order.peer])


def _peer() -> None:
    """Be the process that sends."""
    order = msgspec.json.decode(sys.stdin.readline(), type=Order)
    settings = ObjectStoreSettings.model_validate(order.store)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    send = _waybill(order, settings) if order.peer is Peer.WAYBILL else _boto3(order, settings)
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu_began = time.perf_counter(), time.process_time()
    send()
    run = Run(seconds=time.perf_counter() - began, cpu_seconds=time.process_time() - cpu_began)
    print(msgspec.json.encode(run).decode(), flush=True)
    sys.stdin.readline()
    storage = S3Storage.connect(settings)
    storage.delete(KEY)
    storage.close()


def _waybill(order: Order, settings: ObjectStoreSettings) -> Callable[[], object]:
    path = Path(order.path)
    staged = StagedFile(
        path=path,
        size_bytes=path.stat().st_size,
        chunk_size=CHUNK_SIZE,
        chunks=[
            Chunk(index, size_bytes=size, sha256=sha256)
            for index, (size, sha256) in enumerate(order.chunks)
        ],
        sha256=None,
        content_type=None,
    )
    storage = S3Storage.connect(settings)
    cut = plan.split(
        staged.size_bytes, part_size=settings.s3_part_size, max_parts=settings.s3_max_parts
    )
    unwatched = Watch(on_created=lambda _: None, on_progress=lambda _: None, heartbeat=lambda: None)
    return lambda: upload.send(
        staged,
        to=KEY,
        storage=storage,
        plan=cut,
        parallel_parts=settings.s3_parallel_parts,
        resume=None,
        watch=unwatched,
    )


def _boto3(order: Order, settings: ObjectStoreSettings) -> Callable[[], object]:
    connected = Session().client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_access_key.get_secret_value(),
        config=Config(s3={"addressing_style": "path"}),
    )
    alike = TransferConfig(
        multipart_chunksize=settings.s3_part_size, max_concurrency=settings.s3_parallel_parts
    )
    config = alike if order.peer is Peer.BOTO3_ALIKE else TransferConfig()
    return lambda: connected.upload_file(order.path, settings.s3_bucket, KEY, Config=config)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    arguments.add_argument("--mebibytes", type=int, default=1024)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.peer:
        _peer()
    else:
        main(
            StackSettings(),
            size_bytes=given.mebibytes * MIB,
            rounds=given.rounds,
        )
