from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads.oneshot.form import (
    FIELD_BYTES_MAX,
    FRAME_BYTES_MAX,
    FileHead,
    Form,
    FormRefused,
)
from schemas.api.submissions import FormFields

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


async def test_an_extended_filename_is_ignored() -> None:
    body = closed(part('name="file"; filename="a.bin"; filename*=UTF-8\'\'b.bin', b"x"))

    assert (await form_of(body).head()).filename == "a.bin"


@pytest.mark.parametrize(
    ("header", "declared"),
    [
        ("Content-Type: Application/PDF; x=y", "Application/PDF; x=y"),
        ("Content-Type: application/octet-stream", None),
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
        (closed(part('name="file"', b"x")), "name or type"),
        (closed(file(filename="")), "name or type"),
        (closed(file(filename="a" * 1025)), "name or type"),
        (closed(file(filename="a%0Ab")), "name or type"),
        (closed(file(filename="a\tb")), "name or type"),
        (closed(part('name="file"; filename="a"', b"x", "Content-Type: pdf")), "name or type"),
        (
            closed(part('name="file"; filename="a"', b"x", "Content-Transfer-Encoding: base64")),
            "Content-Transfer-Encoding",
        ),
        (closed(file(), file()), "more than one file"),
        (
            closed(field("sha256", SHA256), field("sha256", SHA256), file()),
            "more than one 'sha256'",
        ),
        (closed(field("importance", "high"), file()), "unknown name: 'importance'"),
        (closed(field("priority", "high"), file()), "priority"),
        (closed(file(), field("importance", "high")), "unknown name: 'importance'"),
        (closed(file(), field("priority", "high")), "priority"),
        (closed(field("sha256", "zz"), file()), "sha256"),
        (closed(file(), field("sha256", "zz")), "sha256"),
        (closed(field("callback_url", "x" * (FIELD_BYTES_MAX + 1)), file()), "more than 4096"),
        (closed(part('name="sha256"', b"\xff"), file()), "not UTF-8"),
        (b"x" * (FRAME_BYTES_MAX + 1) + b"\r\n" + closed(file()), "besides its file"),
        (closed(file()) + b"x" * FRAME_BYTES_MAX, "besides its file"),
        (closed(file())[:-6], "malformed"),
        (b"--XYZ\r\nContent-Disposition: form-data; name=file\r\n", "malformed"),
        (b"--XYZ\r\n" + b"x" * 5000, "malformed"),
        (b"--XYZ\r\nContent-Type: text/plain\r\n\r\nx\r\n--XYZ--", "malformed"),
        (b"--XYZ\r\nContent-Disposition: form-data; name=\xff\r\n\r\n", "malformed"),
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


async def test_a_boundary_may_be_quoted() -> None:
    form = form_of(closed(file()), content_type='Multipart/Form-Data; boundary="XYZ"')

    assert (await read(form))[1] == b"content"
