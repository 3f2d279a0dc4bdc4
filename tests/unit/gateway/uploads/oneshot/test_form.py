import asyncio
import tracemalloc
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads.oneshot.form import (
    FIELD_BYTES_MAX,
    FRAME_BYTES_MAX,
    FileHead,
    Form,
)
from gateway.uploads.oneshot.part import FormRefused
from gateway.uploads.oneshot.splitter import ChunkSplitter
from schemas.api.submissions import FormFields
from schemas.settings import MIB

pytestmark = pytest.mark.anyio

TYPE = "multipart/form-data; boundary=XYZ"
SHA256 = "0" * 64


def part(disposition: str, content: bytes = b"", *headers: str) -> bytes:
    head = "\r\n".join((f"Content-Disposition: form-data; {disposition}", *headers))
    return b"--XYZ\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def field(name: str, value: str) -> bytes:
    return part(f'name="{name}"', value.encode())


def file(content: bytes = b"content", *, filename: str = "a.bin") -> bytes:
    return part(f'name="file"; filename="{filename}"', content)


def closed(*parts: bytes, end: bytes = b"--XYZ--\r\n") -> bytes:
    return b"".join(parts) + end


async def in_pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
    yield b""  # as the framework ends a body


def form_of(content: bytes, *, piece: int = 64 * 1024, content_type: str = TYPE) -> Form:
    return Form.of(in_pieces(content, piece), content_type=content_type, length=len(content))


async def read(form: Form) -> tuple[FileHead, bytes, FormFields]:
    head = await form.head()
    content = b"".join([some async for some in form.file()])
    await form.rest()
    return head, content, form.fields


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64, 1000, 64 * 1024])
async def test_a_form_may_arrive_in_pieces_of_any_size(piece: int) -> None:
    content = b"\r\n--XY\r\n\r\n--XY-Z \r\r\n" * 100
    body = closed(
        field("sha256", SHA256), file(content), field("callback_url", "https://example.com/")
    )

    head, received, fields = await read(form_of(body, piece=piece))

    assert received == content
    assert (head.filename, head.content_type) == ("a.bin", None)
    assert fields == FormFields(sha256=SHA256, callback_url="https://example.com/")


@given(content=st.binary(max_size=300), piece=st.integers(1, 100))
async def test_any_content_is_returned_unchanged(content: bytes, piece: int) -> None:
    if b"\r\n--XYZ" in content or content.startswith(b"--XYZ"):
        return

    _, received, _ = await read(form_of(closed(file(content)), piece=piece))

    assert received == content


@pytest.mark.parametrize("piece", [1, 7, 64 * 1024])
async def test_the_size_of_a_file_at_the_end_of_the_form_is_known_before_its_first_byte(
    piece: int,
) -> None:
    body = closed(field("sha256", SHA256), file(b"x" * 1000), end=b"--XYZ--")

    assert (await form_of(body, piece=piece).head()).size_max == 1000
    trailing = await form_of(body + b"\r\n", piece=piece).head()
    assert trailing.size_max == 1002


async def test_fields_before_the_file_are_available_before_it() -> None:
    form = form_of(closed(field("sha256", SHA256), file()))

    await form.head()

    assert form.fields.sha256 == SHA256


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        ("../../etc/passwd", "../../etc/passwd"),
        (r"C:\Users\me\a.pdf", r"C:\Users\me\a.pdf"),
        (r"\\server\share\a.pdf", r"\\server\share\a.pdf"),
        ("Ünïcode ☃.pdf", "Ünïcode ☃.pdf"),
        ("a%22b.pdf", 'a"b.pdf'),
        (r"a\"b.pdf", 'a"b.pdf'),
        ("100%.pdf", "100%.pdf"),
        ("a;b=c.pdf", "a;b=c.pdf"),
    ],
)
async def test_a_filename_is_data(sent: str, filename: str) -> None:
    head = await form_of(closed(file(filename=sent))).head()

    assert head.filename == filename


@pytest.mark.parametrize(
    ("header", "declared"),
    [
        ("Content-Type: Application/PDF; x=y", "Application/PDF; x=y"),
        ("Content-Type: application/octet-stream", None),
        ("Content-Type:", None),
        ("Content-Type:  text/plain ", "text/plain"),
        ("Content-Type: pdf", None),
        ("Content-Type: false", None),
        ("Content-Type: text/plain; name=Ü", None),
        ("Content-Type: text/" + "x" * 300, None),
        ("X-Other: 1", None),
    ],
)
async def test_the_type_of_the_part_is_the_declared_one(header: str, declared: str | None) -> None:
    body = closed(part('name="file"; filename="a"', b"x", header))

    assert (await form_of(body).head()).content_type == declared


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed"),
        (b"nonsense", "malformed"),
        (closed(), "no file"),
        (closed(field("sha256", SHA256)), "no file"),
        (closed(part('name="file"', b"x")), "no file"),
        (closed(file(filename="")), "file's name"),
        (closed(file(filename="a" * 1025)), "file's name"),
        (closed(file(filename="a%0Ab")), "file's name"),
        (closed(file(filename="a\tb")), "file's name"),
        (
            closed(part('name="file"; filename="a"', b"x", "Content-Transfer-Encoding: base64")),
            "Content-Transfer-Encoding",
        ),
        (closed(file(), file()), "more than one file"),
        (
            closed(field("sha256", SHA256), field("sha256", SHA256), file()),
            "more than one 'sha256'",
        ),
        (closed(part('filename="a"', b"x"), file()), "part without a name"),
        (closed(part('name="other"; filename="a"', b"x"), file()), "'other' is a file"),
        (closed(file(), part('name="other"; filename="a"', b"x")), "'other' is a file"),
        (closed(part('name="other"; filename=""', b"x"), file()), "'other' is a file"),
        (
            closed(part('name="note"', b"x", "Content-Transfer-Encoding: base64"), file()),
            "'note' is stored as it is sent",
        ),
        (closed(part('name="note"', b"\xff"), file()), "'note' is not utf-8"),
        (
            closed(part('name="note"', b"x", "Content-Type: text/plain; charset=rot13"), file()),
            "'note' is not rot13",
        ),
        (closed(field("_charset_", "unicode_escape"), field("note", "x"), file()), "'note' is not"),
        (closed(field("note", "a\0b"), file()), "the field 'note' is invalid"),
        (closed(field("note", "x" * 2049), file()), "the field 'note' is invalid"),
        (closed(field("x" * 129, "x"), file()), "the name of the field 'xxx"),
        (closed(*[field(f"note{n}", "x") for n in range(65)], file()), "more than 64 fields"),
        (closed(field("priority", "high"), file()), "priority"),
        (closed(file(), field("priority", "high")), "priority"),
        (closed(field("sha256", "zz"), file()), "sha256"),
        (closed(file(), field("sha256", "zz")), "sha256"),
        (closed(field("callback_url", "x" * (FIELD_BYTES_MAX + 1)), file()), "more than 8192"),
        (closed(part('name="sha256"', b"\xff"), file()), "not utf-8"),
        (b"x" * (FRAME_BYTES_MAX + 1) + b"\r\n" + closed(file()), "begin with its boundary"),
        (closed(file()) + b"x" * FRAME_BYTES_MAX, "besides its file"),
        (closed(file())[:-4], "malformed: its final boundary is missing"),
        (closed(file())[:-12], "malformed: its final boundary is missing"),
        (file() + b"x" * 100, "malformed: its final boundary is missing"),
        (closed(file(b"x" * 1000))[:-500], "malformed: its final boundary is missing"),
        (closed(file(), end=b"--XY--\r\n"), "malformed: its final boundary is missing"),
        (b"--XYZ\r\nContent-Disposition: form-data; name=file\r\n", "malformed"),
        (b"--XYZ\r\n" + b"x" * 5000, "malformed"),
        (b"--XYZ\r\nContent-Type: text/plain\r\n\r\nx\r\n--XYZ--", "malformed"),
        (b"--XYZ\r\nContent-Disposition: attachment; name=file\r\n\r\n", "malformed"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1000, 64 * 1024])
async def test_an_invalid_form_is_refused_with_the_reason(
    body: bytes, reason: str, piece: int
) -> None:
    with pytest.raises(FormRefused, match=reason):
        await read(form_of(body, piece=piece))


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=XYZ",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="a\nb"',
        "multipart/form-data; boundary=" + "x" * 71,
        "multipart/form-data; boundary=Ü",
    ],
)
def test_a_request_without_a_form_is_refused_before_it_is_read(content_type: str) -> None:
    with pytest.raises(FormRefused, match="multipart/form-data"):
        form_of(closed(file()), content_type=content_type)


@pytest.mark.parametrize(
    "content_type",
    [
        'Multipart/Form-Data; boundary="XYZ"',
        "multipart/form-data;boundary=XYZ;",
        "multipart/form-data; charset=utf-8; boundary=XYZ",
        "multipart/form-data; boundary=XYZ; charset=ISO-8859-1",
        "multipart/form-data; BOUNDARY = XYZ",
    ],
)
async def test_the_boundary_is_read_as_clients_send_it(content_type: str) -> None:
    assert (await read(form_of(closed(file()), content_type=content_type)))[1] == b"content"


async def test_a_boundary_may_have_spaces_and_equals_signs() -> None:
    body = closed(file()).replace(b"XYZ", b"----=_Part 1.2")

    for content_type in ('boundary="----=_Part 1.2"', "boundary=----=_Part 1.2"):
        form = form_of(body, content_type=f"multipart/form-data; {content_type}")
        assert (await read(form))[1] == b"content"


@pytest.mark.parametrize("padding", [b" ", b"\t", b" \t  "])
@pytest.mark.parametrize("piece", [1, 2, 7, 64 * 1024])
async def test_white_space_after_a_boundary_is_ignored(padding: bytes, piece: int) -> None:
    content = b" --XYZ\n--XYZ  \r\n--XY \r\n"
    body = closed(
        field("sha256", SHA256),
        file(content),
        field("note", "--XYZ" + " \r\n"),
    )
    body = body.replace(b"--XYZ\r\nContent-", b"--XYZ" + padding + b"\r\nContent-")
    body = body.replace(b"--XYZ--", b"--XYZ--" + padding)

    head, received, fields = await read(form_of(body, piece=piece))

    assert (received, fields.sha256) == (content, SHA256)
    assert head.size_max >= len(received)


@pytest.mark.parametrize("piece", [1, 7, 64 * 1024])
async def test_text_around_the_parts_is_ignored(piece: int) -> None:
    body = b"This is a form.\r\n--XY\r\n" + closed(file()) + b"the end\r\n--XYZ\r\n\r\n"

    assert (await read(form_of(body, piece=piece)))[1] == b"content"


@pytest.mark.parametrize("before", [True, False])
async def test_other_fields_are_metadata(*, before: bool) -> None:
    others = [
        field("name", "a.bin"),
        field("type", ""),
        field("tags[]", "a"),
        field("tags[]", "b\r\nc"),
        field("file", "{}"),
        field("größe", "ü"),
    ]

    form = form_of(closed(*others, file()) if before else closed(file(), *others))

    assert (await read(form))[2].metadata == {
        "name": "a.bin",
        "type": "",
        "tags[]": "a\nb\r\nc",
        "file": "{}",
        "größe": "ü",
    }


async def test_an_empty_optional_field_counts_as_absent() -> None:
    empty = [field(name, "") for name in ("sha256", "callback_url", "priority")]

    assert (await read(form_of(closed(*empty, file()))))[2] == FormFields()


async def test_a_file_input_without_a_chosen_file_is_ignored() -> None:
    body = closed(part('name="other"; filename=""', b"", "Content-Type: a/b"), file())

    assert (await read(form_of(body)))[2] == FormFields()


@pytest.mark.parametrize("first", [True, False])
async def test_the_charset_field_applies_to_every_field(*, first: bool) -> None:
    charset, note = field("_charset_", "iso-8859-1"), part('name="note"', b"gr\xfc\xdfe")
    parts = [charset, note] if first else [note, charset]

    assert (await read(form_of(closed(*parts, file()))))[2].metadata == {"note": "grüße"}


async def test_a_part_may_declare_its_charset() -> None:
    note = part('name="note"', b"gr\xfc\xdfe", 'Content-Type: text/plain; charset="ISO-8859-1"')

    assert (await read(form_of(closed(note, file()))))[2].metadata == {"note": "grüße"}


async def test_a_form_that_stalls_keeps_no_piece_of_its_file() -> None:
    has_stalled, may_go_on = asyncio.Event(), asyncio.Event()
    head = b"--XYZ\r\n" + b'Content-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    async def stalling() -> AsyncIterator[bytes]:
        yield head
        yield bytes(4 * MIB)
        has_stalled.set()
        await may_go_on.wait()
        yield b"\r\n--XYZ--\r\n"

    async def read_file(form: Form) -> int:
        await form.head()
        chunks = ChunkSplitter(form.file(), chunk_bytes=8 * MIB)
        async for piece in chunks.next_chunk():
            del piece
        return chunks.size

    tracemalloc.start()
    try:
        form = Form.of(stalling(), content_type=TYPE, length=len(head) + 4 * MIB + 11)
        reading = asyncio.create_task(read_file(form))
        await has_stalled.wait()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < MIB
    may_go_on.set()
    assert await reading == 4 * MIB


async def test_a_piece_of_a_file_is_refused_as_soon_as_its_fields_arrive() -> None:
    piece = field("dzchunkindex", "0") + field("dztotalchunkcount", "2")
    before, after = form_of(closed(piece, file())), form_of(closed(file(), piece))

    await before.head()
    with pytest.raises(FormRefused, match="only a piece of the file"):
        _ = before.fields
    with pytest.raises(FormRefused, match="only a piece of the file"):
        await read(after)
