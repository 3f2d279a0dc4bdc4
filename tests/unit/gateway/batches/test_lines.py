import random
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from gateway.batches import lines
from gateway.batches.lines import LineSplitter
from gateway.http.problems import InvalidRequest
from schemas.api.batches import BatchLine
from schemas.errors import DomainError
from schemas.ids import TenantId

TENANT = TenantId(UUID(int=7))
KEY = f"incoming/{TENANT}/a/b.pdf"


def split(*pieces: bytes, line_bytes_max: int = 1000) -> list[tuple[int, bytes | None]]:
    splitter = LineSplitter(line_bytes_max=line_bytes_max)
    found = [line for piece in pieces for line in splitter.lines_of(piece)]
    return [*found, *splitter.last()]


def encoded(**fields: Any) -> bytes:  # noqa: ANN401  # any field of a line
    return msgspec.json.encode(fields)


def refusal(content: bytes) -> tuple[str, str]:
    with pytest.raises(InvalidRequest) as refused:
        lines.decode(content, tenant_id=TENANT)
    return refused.value.field, refused.value.reason


@pytest.mark.parametrize("length", [1, 2, 3, 7, 100])
def test_lines_do_not_depend_on_the_pieces_of_the_body(length: int) -> None:
    body = b'{"a":1}\n\r\n  \n{"b":2}\r\n\n' + b"x" * 40 + b'\n{"c":3}'
    pieces = [body[start : start + length] for start in range(0, len(body), length)]

    assert split(*pieces, line_bytes_max=20) == [
        (1, b'{"a":1}'),
        (4, b'{"b":2}\r'),
        (6, None),
        (7, b'{"c":3}'),
    ]


def test_a_body_without_text_has_no_lines() -> None:
    assert split() == []
    assert split(b"") == []
    assert split(b"\n\n", b" \t\r\n", b"  ") == []


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert split(b"\xef", b"\xbb\xbf{}", b"\n\xef\xbb\xbf{}") == [
        (1, b"{}"),
        (2, b"\xef\xbb\xbf{}"),
    ]


def test_the_length_of_a_line_is_counted_without_its_end() -> None:
    assert split(b"12345\n123456\n12345", line_bytes_max=5) == [
        (1, b"12345"),
        (2, None),
        (3, b"12345"),
    ]


def test_a_line_that_is_too_long_is_not_kept_in_memory() -> None:
    splitter = LineSplitter(line_bytes_max=1000)
    for _ in range(10_000):
        assert list(splitter.lines_of(b"x" * 1000)) == []
        assert splitter.kept_bytes <= 1000
    assert list(splitter.lines_of(b"\nab")) == [(1, None)]
    assert list(splitter.last()) == [(2, b"ab")]


def test_an_object_gets_the_last_part_of_its_key_as_filename() -> None:
    assert lines.decode(encoded(object_key=KEY), tenant_id=TENANT) == BatchLine(
        object_key=KEY, filename="b.pdf"
    )
    named = encoded(object_key=KEY, filename="c.pdf", content_type="", metadata={"a": "b"})
    assert lines.decode(named, tenant_id=TENANT) == BatchLine(
        object_key=KEY, filename="c.pdf", metadata={"a": "b"}
    )


def test_a_line_may_name_an_upload() -> None:
    upload_id = uuid4()
    line = lines.decode(encoded(upload_id=upload_id, sha256="a" * 64), tenant_id=TENANT)
    assert (line.upload_id, line.sha256, line.filename) == (upload_id, "a" * 64, None)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        pytest.param(b"{", "line", id="cut off"),
        pytest.param(b"object_key", "line", id="no JSON"),
        pytest.param(b"[]", "line", id="a list"),
        pytest.param(b"{} {}", "line", id="two values"),
        pytest.param(b"{}", "line", id="names nothing"),
        pytest.param(b"\x00", "line", id="NUL"),
        pytest.param(b'{"object_key": "\xff"}', "line", id="no UTF-8"),
        pytest.param(b'{"object_key": "\\ud800"}', "object_key", id="half of a surrogate pair"),
        pytest.param(b'{"object_key": ' + b"[" * 50_000, "object_key", id="nested too deeply"),
        pytest.param(encoded(object_key=KEY, upload_id=str(uuid4())), "line", id="names two"),
        pytest.param(encoded(upload_id=str(uuid4()), filename="a"), "line", id="renames an upload"),
        pytest.param(encoded(object_key=KEY, priority="bulk"), "line", id="unknown field"),
        pytest.param(encoded(upload_id="1"), "upload_id", id="no id"),
        pytest.param(encoded(object_key=KEY, filename="a\x00"), "filename", id="NUL in a name"),
        pytest.param(encoded(object_key=KEY, sha256="a"), "sha256", id="no digest"),
        pytest.param(
            encoded(object_key=KEY, metadata={"a": "\x00"}), "metadata[...]", id="NUL in metadata"
        ),
    ],
)
def test_a_line_that_is_not_valid_is_refused(content: bytes, field: str) -> None:
    assert refusal(content)[0] == field


@pytest.mark.parametrize(
    "key", ["a.pdf", f"incoming/{TENANT}/", f"incoming/{TENANT}/../x", f"incoming/{UUID(int=8)}/a"]
)
def test_an_object_of_others_is_refused(key: str) -> None:
    with pytest.raises(DomainError) as refused:
        lines.decode(encoded(object_key=key), tenant_id=TENANT)
    assert refused.value.code == "reference_refused"


def test_damaged_lines_are_refused_one_by_one() -> None:
    source = random.Random(7)
    valid = encoded(object_key=KEY, filename="a", metadata={"a": "b"})
    refused = []
    for _ in range(3000):
        content = bytearray(valid)
        for _ in range(source.randint(0, 3)):
            content[source.randrange(len(content))] = source.randrange(256)
        try:
            lines.decode(bytes(content), tenant_id=TENANT)
        except DomainError as error:
            refused.append(lines.shown(str(error)))
    assert 0 < len(refused) < 3000
    assert all(text.isprintable() for text in refused)


def test_the_text_of_an_error_can_be_stored() -> None:
    assert lines.shown("a\x00b\nc\\d\t") == "a\ufffdb\ufffdc\\d\ufffd"
    assert len(lines.shown("a" * 1000)) == 500
