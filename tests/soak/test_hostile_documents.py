"""Hostile documents among good ones: each ends with an outcome, and the others are read."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from dev.bench.papers import Words, write_text_pdf
from dev.client import Client
from schemas.outcomes import Outcome
from tests.e2e.deployment import Deployment
from tests.e2e.files import settled
from tests.factories.hostile_pdfs import HOSTILE

pytestmark = pytest.mark.timeout(3600)

GOOD = 200
BOMBS = ("a stream that inflates a millionfold", "forms shown ten thousand times")


def test_good_documents_are_read_among_hostile_ones(
    reading_deployment: Deployment, tmp_path: Path
) -> None:
    path = tmp_path / "good.pdf"
    write_text_pdf(path, pages=1, words=Words(seed=41))
    good = [path.read_bytes() + b"\n%% %d\n" % number for number in range(2 * GOOD)]
    alone = _read(reading_deployment.client, good[:GOOD])
    hostile = {name: build() for name, build in HOSTILE.items()}
    files = [*(hostile.pop(name) for name in BOMBS), *good[GOOD:]]
    for place, content in enumerate(hostile.values(), 1):
        files.insert(2 + place * (GOOD // (len(hostile) + 1)), content)

    jobs = _read(reading_deployment.client, files)

    known = set(good)
    among = [job for content, job in zip(files, jobs, strict=True) if content in known]
    others = [job for content, job in zip(files, jobs, strict=True) if content not in known]
    assert {job["status"] for job in alone + among} == {"completed"}
    assert {job["result"]["outcome"] for job in among} == {Outcome.COMPLETE}
    for job in others:
        assert job["status"] in {"completed", "failed"}
        assert job["error"] or job["result"]["outcome"], job
    assert _p95(among) <= 2 * _p95(alone), (_p95(among), _p95(alone))


def _read(client: Client, files: list[bytes]) -> list[dict[str, Any]]:
    def read(content: bytes) -> dict[str, Any]:
        answer = client.http.post(
            "/upload-async", files={"file": ("document.pdf", content, "application/pdf")}
        )
        answer.raise_for_status()
        return settled(client, answer.json()["job_id"])

    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(read, files))


def _p95(jobs: list[dict[str, Any]]) -> float:
    """Return how many seconds after it was stored a document was read."""
    times = [
        (
            datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["stored_at"])
        ).total_seconds()
        for job in jobs
    ]
    return quantiles(times, n=20)[-1]
