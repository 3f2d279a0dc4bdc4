"""Random requests to the chunk endpoint, and the rules for every answer."""

import hashlib
from collections.abc import Sequence

import httpx
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.fuzz import wire
from tests.fuzz.gateway import Fuzzed
from tests.fuzz.wire import CHUNK_SIZE, PIECES, Answer, Put

PROBLEM = "application/problem+json"
NOT_HTTP = "text/plain; charset=utf-8"
"""Media type of the HTTP server's own answer to a request that it cannot parse."""


def send_random_requests(fuzzed: Fuzzed, *, examples: int, is_repeatable: bool) -> None:
    """Send `examples` conversations of one to three requests, each to a new upload."""
    with httpx.Client(
        base_url=f"{fuzzed.url}/api/v1",
        headers={"Authorization": f"Bearer {fuzzed.key}"},
        trust_env=False,
        timeout=20,
    ) as http:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=is_repeatable,
            suppress_health_check=list(HealthCheck),
        )
        @given(puts=st.lists(wire.puts(), min_size=1, max_size=3))
        def converse(puts: list[Put]) -> None:
            upload_id = _created(http)
            requests = [put.encoded(upload_id, key=fuzzed.key) for put in puts]
            answers = wire.converse(
                fuzzed.url,
                requests=requests,
                then_hang_up=not all(put.is_complete for put in puts),
            )
            note(f"{puts}\n{answers}")
            if len(puts) == 1 and puts[0].is_complete:
                assert len(answers) == 1
            for answer in answers:
                _check(answer)
            manifest = http.get(f"/uploads/{upload_id}").raise_for_status().json()
            stored = {chunk["index"]: chunk["sha256"] for chunk in manifest["chunks"]}
            acked = [answer.json for answer in answers if answer.status == 200]
            assert {chunk["index"]: chunk["sha256"] for chunk in acked}.items() <= stored.items()
            for index, sha256 in stored.items():
                assert sha256 in _possible(index, puts=puts, requests=requests)

        converse()


def _created(http: httpx.Client) -> str:
    body = {
        "filename": "fuzzed.bin",
        "size": sum(map(len, PIECES)),
        "chunk_size": CHUNK_SIZE,
    }
    answer = http.post("/uploads", json=body).raise_for_status()
    upload_id: str = answer.json()["upload_id"]
    return upload_id


def _check(answer: Answer) -> None:
    assert answer.status < 500
    if answer.status < 400:
        return
    media_type = answer.headers.get("content-type")
    if answer.status == 400 and media_type == NOT_HTTP:
        return
    assert media_type == PROBLEM
    assert answer.json["status"] == answer.status
    assert answer.json["code"]


def _possible(index: int, *, puts: Sequence[Put], requests: Sequence[bytes]) -> set[str]:
    """Return the sha256 of every content that these requests may store for a chunk."""
    size = len(PIECES[index])
    contents: set[bytes] = set()
    sent = b""
    for put, request in zip(puts, requests, strict=True):
        sent += request
        if put.addresses(index):
            # A request with too large a Content-Length takes bytes of the next request as its body.
            follows = b"".join(requests)[len(sent) - len(put.payload) :]
            contents |= {
                content
                for content in (put.body[:size], follows[:size])
                if not put.excludes(content)
            }
    return {hashlib.sha256(content).hexdigest() for content in contents if len(content) == size}
