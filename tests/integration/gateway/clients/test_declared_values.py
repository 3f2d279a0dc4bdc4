"""What clients declare beside their bytes: types, digests, conditions, numbers, encodings, text."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.gateway.api import Api, problem

pytestmark = pytest.mark.anyio

CONTENT = b"content"
OTHER = b"another"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=X"}
BODY = (
    b'--X\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncontent\r\n--X--\r\n'
)


def encoded(algorithm: str, content: bytes) -> str:
    return base64.b64encode(hashlib.new(algorithm, content).digest()).decode()


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body without a length, which is sent in HTTP's chunks."""
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("declared", "kept"),
    [
        ("", None),
        ("  ", None),
        (None, None),
        ("text/plain", "text/plain"),
        (" TEXT/Plain ; charset=utf-8 ", "TEXT/Plain ; charset=utf-8"),
    ],
)
async def test_an_empty_content_type_is_unknown(
    api: Api, declared: str | None, kept: str | None
) -> None:
    upload_id = await api.created(size=1, content_type=declared)

    assert (await api.get(f"/uploads/{upload_id}")).json()["content_type"] == kept


@pytest.mark.parametrize("declared", ["pdf", "/", "text/", "a b/c", "text/plain\n", "text/plain\0"])
async def test_an_invalid_content_type_is_refused(api: Api, declared: str) -> None:
    answer = await api.create(size=1, content_type=declared)

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["errors"][0]["field"] == "content_type"


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize(
    ("field", "prefix", "algorithm", "suffix"),
    [
        ("Content-MD5", "", "md5", ""),
        ("Digest", "MD5=", "md5", ""),
        ("Digest", "SHA=", "sha1", ""),
        ("Digest", "SHA-256=", "sha256", ""),
        ("Digest", "id-sha-512=", "sha512", ""),
        ("Content-Digest", "md5=:", "md5", ":"),
        ("Repr-Digest", "sha-512=:", "sha512", ":"),
    ],
)
@pytest.mark.parametrize("target", ["chunk", "form", "json", "chunked json"])
async def test_a_declared_digest_is_checked(  # cases
    api: Api, *, field: str, prefix: str, algorithm: str, suffix: str, target: str, wrong: bool
) -> None:
    def value(body: bytes) -> dict[str, str]:
        return {field: prefix + encoded(algorithm, OTHER if wrong else body) + suffix}

    create = json.dumps({"filename": "a", "size": 1}).encode()
    if target == "chunk":
        upload_id = await api.created(size=len(CONTENT))
        answer = await api.put(upload_id, 0, CONTENT, value(CONTENT))
        assert await api.stored(upload_id) == ([] if wrong else [0])
    elif target == "form":
        answer = await api.ask("POST", "/jobs", content=BODY, headers=FORM | value(BODY))
    else:
        content = create if target == "json" else in_pieces(create)
        answer = await api.ask("POST", "/uploads", content=content, headers=JSON | value(create))

    if wrong:
        code = "chunk_digest_mismatch" if target == "chunk" else "body_digest_mismatch"
        assert problem(answer) == (400, code)
        assert field in answer.json()["detail"]
    else:
        assert answer.is_success, answer.text


async def test_a_legacy_checksum_is_checked(api: Api) -> None:
    upload_id = await api.created(size=len(CONTENT))
    adler = f"adler32={zlib.adler32(CONTENT):x}"

    wrong = await api.put(upload_id, 0, CONTENT, {"Digest": "adler32=1"})
    right = await api.put(upload_id, 0, CONTENT, {"Digest": adler})

    assert problem(wrong) == (400, "chunk_digest_mismatch")
    assert right.status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Content-MD5", ""),
        ("Content-MD5", hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()),
        ("Digest", "sha-256"),
        ("Digest", f"sha-256={hashlib.sha256(CONTENT).hexdigest()}"),
        ("Digest", "unixsum=30637"),
        ("Digest", f"md5={encoded('md5', CONTENT)}, blake3=AAAA"),
        ("Content-Digest", f"md5={encoded('md5', CONTENT)}"),
    ],
)
@pytest.mark.parametrize("target", ["chunk", "form", "json"])
async def test_a_digest_that_cannot_be_checked_is_refused(
    api: Api, field: str, value: str, target: str
) -> None:
    if target == "chunk":
        upload_id = await api.created(size=len(CONTENT))
        answer = await api.put(upload_id, 0, CONTENT, {field: value})
        assert await api.stored(upload_id) == []
    elif target == "form":
        answer = await api.ask("POST", "/jobs", content=BODY, headers=FORM | {field: value})
    else:
        answer = await api.create(size=1, headers={field: value})

    assert problem(answer) == (400, "digest_invalid")
    assert answer.json()["detail"].startswith(field)


ETAG = f'"{hashlib.sha256(CONTENT).hexdigest()}"'


@pytest.mark.parametrize(
    ("conditions", "if_absent", "if_stored"),
    [
        ({"If-Match": "*"}, 412, 200),
        ({"If-Match": ETAG}, 412, 200),
        ({"If-Match": f'"x", {ETAG}'}, 412, 200),
        ({"If-Match": f"W/{ETAG}"}, 412, 412),
        ({"If-Match": '"x"'}, 412, 412),
        ({"If-None-Match": "*"}, 200, 412),
        ({"If-None-Match": ETAG}, 200, 412),
        ({"If-None-Match": '"x"'}, 200, 200),
        ({"If-Match": "x"}, 400, 400),
        ({"If-Modified-Since": "Wed, 21 Oct 2015 07:28:00 GMT", "Range": "bytes=0-1"}, 200, 200),
        ({"If-Unmodified-Since": "Wed, 21 Oct 2015 07:28:00 GMT"}, 200, 200),
    ],
    ids=str,
)
async def test_the_condition_of_a_chunk_is_honoured(
    api: Api, conditions: dict[str, str], if_absent: int, if_stored: int
) -> None:
    upload_id = await api.created(size=len(CONTENT))

    absent = await api.put(upload_id, 0, CONTENT, conditions)
    assert absent.status_code == if_absent, absent.text
    assert await api.stored(upload_id) == ([0] if if_absent == 200 else [])

    assert (await api.put(upload_id, 0, CONTENT)).headers["etag"] == ETAG
    again = await api.put(upload_id, 0, CONTENT, conditions)
    assert again.status_code == if_stored, again.text
    for answer in (absent, again):
        if answer.status_code == 412:
            assert problem(answer) == (412, "precondition_failed")


@pytest.mark.parametrize("index", ["1_0", "%D9%A0", "%EF%BC%90", "+0", "-0", "%200", "0.0", "0x0"])
async def test_a_chunk_has_a_number_in_ascii_digits(api: Api, index: str) -> None:
    upload_id = await api.created(size=11, chunk_size=1)

    answer = await api.ask("PUT", f"/uploads/{upload_id}/chunks/{index}", content=b"x")

    assert problem(answer) == (404, "not_found")
    assert await api.stored(upload_id) == []


@pytest.mark.parametrize("number", ["1_0", "\u0661", "\uff11", "+1", " 1", "0x1", "1,0", ""])
@pytest.mark.parametrize("name", ["wait", "limit"])
async def test_a_number_of_a_query_has_ascii_digits(api: Api, name: str, number: str) -> None:
    path = f"/jobs/{uuid4()}" if name == "wait" else "/jobs"

    answer = await api.get(path, **{name: number})

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["errors"][0]["field"] == name


ROUTES = ["/uploads", "/upload", "/jobs", "/webhooks"]


def valid(path: str) -> dict[str, Any]:
    """Return a body that the route decodes, even if it then refuses it."""
    bodies: dict[str, dict[str, Any]] = {
        "/uploads": {"filename": "a", "size": 1},
        "/upload": {"upload_id": str(uuid4())},
        "/jobs": {"object_key": "incoming/x"},
        "/webhooks": {"url": "https://example.com/"},
    }
    return bodies[path]


@pytest.mark.parametrize("path", ROUTES)
async def test_json_may_arrive_in_chunks_and_with_a_byte_order_mark(api: Api, path: str) -> None:
    whole = json.dumps(valid(path)).encode()
    bodies: list[Any] = [whole, in_pieces(whole[:9], whole[9:]), b"\xef\xbb\xbf" + whole]

    answers = [await api.ask("POST", path, content=body, headers=JSON) for body in bodies]

    assert len({answer.status_code for answer in answers}) == 1
    assert answers[0].status_code in {201, 404, 422}


@pytest.mark.parametrize("path", ROUTES)
async def test_too_much_json_is_refused_also_in_chunks(api: Api, path: str) -> None:
    piece = b" " * 2**20
    bodies: list[Any] = [piece * 5, in_pieces(*[piece] * 5)]

    for body in bodies:
        answer = await api.ask("POST", path, content=body, headers=JSON)
        assert problem(answer) == (413, "invalid_request")
        assert re.fullmatch(r"a JSON body has at most \d+ bytes", answer.json()["detail"])


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param(b'{"filename": "\\ud800"}', "filename", id="high_surrogate"),
        pytest.param(b'{"metadata": {"k": "x\\udc00"}}', "metadata.k", id="low_surrogate"),
        pytest.param(b'{"metadata": {"k\\ud83d": "x"}}', r"metadata.k\ud83d", id="in_a_key"),
        pytest.param(b'{"filename": "\xed\xa0\x80"}', "filename", id="encoded_surrogate"),
        pytest.param(b'{"size": 1e999}', "size", id="infinite"),
        pytest.param(b'{"size": ' + b"9" * 5000 + b"}", "size", id="thousands_of_digits"),
        pytest.param(b'{"filename": "\xff"}', "body", id="not_utf_8"),
        pytest.param(b"[" * 100_000, "body", id="deep"),
        pytest.param(b'{"filename":', "body", id="cut_off"),
    ],
)
async def test_json_that_is_not_text_is_refused_with_its_field(
    api: Api, path: str, body: bytes, field: str
) -> None:
    answer = await api.ask("POST", path, content=body, headers=JSON)

    assert problem(answer) == (400, "invalid_request")
    assert [one["field"] for one in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    ("path", "values", "field"),
    [
        ("/uploads", {"filename": "a\0"}, "filename"),
        ("/uploads", {"filename": "a" * 1025}, "filename"),
        ("/uploads", {"metadata": {"k": "a\0"}}, "metadata"),
        ("/uploads", {"metadata": {"k\0": "a"}}, "metadata"),
        ("/uploads", {"metadata": {"": "a"}}, "metadata"),
        ("/uploads", {"metadata": {"k": "a" * 2049}}, "metadata"),
        ("/uploads", {"metadata": {str(n): "" for n in range(65)}}, "metadata"),
        ("/uploads", {"size": 2**64}, "size"),
        ("/uploads", {"size": 10**30}, "size"),
        ("/uploads", {"size": -1}, "size"),
        ("/uploads", {"size": True}, "size"),
        ("/uploads", {"chunk_size": 2**64}, "chunk_size"),
        ("/uploads", {"callback_url": "a" * 2049}, "callback_url"),
        ("/upload", {"sha256": "0" * 63 + "\0"}, "sha256"),
        ("/jobs", {"filename": "a\0"}, "filename"),
        ("/jobs", {"metadata": {"k": "a\0"}}, "metadata"),
        ("/jobs", {"object_key": "a" * 1025}, "object_key"),
        ("/webhooks", {"description": "a\0"}, "description"),
        ("/webhooks", {"url": "a" * 2049}, "url"),
    ],
    ids=str,
)
async def test_a_value_that_cannot_be_stored_is_refused_with_its_field(
    api: Api, path: str, values: dict[str, Any], field: str
) -> None:
    answer = await api.ask("POST", path, json={**valid(path), **values})

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["errors"][0]["field"].startswith(field)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("/webhooks", {"url": "https://example.com/\0"}),
        ("/webhooks", {"event_types": ["upload.stored\0"]}),
        ("/uploads", {"callback_url": "https://example.com/\0"}),
        ("/jobs", {"object_key": "incoming/\0"}),
        ("/upload", {"chunks": [{"index": 2**70, "size": 2**63, "sha256": "0" * 64}]}),
    ],
    ids=str,
)
async def test_a_strange_value_is_a_refusal_and_no_fault(
    api: Api, path: str, values: dict[str, Any]
) -> None:
    answer = await api.ask("POST", path, json={**valid(path), **values})

    assert 400 <= problem(answer)[0] < 500, answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Content-Encoding", "gzip"),
        ("Content-Range", "bytes 0-6/14"),
        ("Trailer", "X, content-digest"),
    ],
)
@pytest.mark.parametrize("target", ["chunk", "form", "json", "reference"])
async def test_a_declaration_that_the_gateway_cannot_honour_is_refused(
    api: Api, field: str, value: str, target: str
) -> None:
    declared = {field: value}
    if target == "chunk":
        answer = await api.put(await api.created(size=len(CONTENT)), 0, CONTENT, declared)
    elif target == "form":
        answer = await api.ask("POST", "/upload-async", content=BODY, headers=FORM | declared)
    elif target == "json":
        answer = await api.create(size=1, headers=declared)
    else:
        answer = await api.ask("POST", "/jobs", json=valid("/jobs"), headers=declared)

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["errors"][0]["field"] == field
