"""Forms as browsers, upload widgets and HTTP libraries send them, and forms that are cut off."""

import asyncio
import base64
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from gateway import db
from schemas.settings import DatabaseSettings
from schemas.tables.jobs import Job
from schemas.tables.uploads import Upload
from tests.integration.gateway.api import KIB64, Api, problem
from tests.integration.gateway.clients.conftest import Gateway

pytestmark = pytest.mark.anyio

CONTENT = b"content\r\n--XY\r\n" * 20
FORM = {"Content-Type": "multipart/form-data; boundary=XYZ"}
Counts = Callable[[], Awaitable[tuple[int, int]]]
WORD = base64.b64encode("файл.pdf".encode()).decode()


def part(head: str | bytes, content: bytes) -> bytes:
    head = head if isinstance(head, bytes) else head.encode()
    return b"--XYZ\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


def field(name: str, value: str = "x") -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', value.encode())


def file(content: bytes = CONTENT, *, name: str = "file", filename: str = "a.bin") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
    return part(f"{head}\r\nContent-Type: application/octet-stream", content)


def closed(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--XYZ--\r\n"


async def post(api: Api, body: bytes) -> httpx.Response:
    return await api.ask("POST", "/upload-async", content=body, headers=FORM)


async def stored(api: Api, answer: httpx.Response) -> dict[str, object]:
    """Return the manifest of an accepted form, after checking the file's bytes."""
    assert answer.status_code == 202, answer.text
    manifest: dict[str, object] = (await api.get(f"/uploads/{answer.json()['upload_id']}")).json()
    assert manifest["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    return manifest


@pytest.fixture
async def counts(module_database: DatabaseSettings) -> AsyncIterator[Counts]:
    """Return a function that counts jobs, and uploads that are not cancelled."""
    engine = db.build_engine(module_database)

    async def count() -> tuple[int, int]:
        async with db.Database(engine).transaction() as session:
            uploads = select(func.count()).where(Upload.status != "cancelled")
            jobs = select(func.count()).select_from(Job)
            return (await session.scalar(jobs) or 0), (await session.scalar(uploads) or 0)

    yield count
    await engine.dispose()


@pytest.mark.parametrize(
    ("head", "filename", "content_type"),
    [
        pytest.param(
            'Content-Disposition: form-data; name="file"; filename="nginx.conf"\r\nContent-Type: ',
            "nginx.conf",
            None,
            id="browser_unknown_type",
        ),
        pytest.param(
            'Content-Disposition: form-data; name="file"; filename="a%22b;c=d.pdf"\r\n'
            "Content-Type: application/pdf",
            'a"b;c=d.pdf',
            "application/pdf",
            id="browser_quote",
        ),
        pytest.param(
            "Content-Type: application/pdf\r\nContent-Disposition: form-data; name=file; "
            f"filename=\"=?utf-8?B?{WORD}?=\"; filename*=utf-8''%D1%84%D0%B0%D0%B9%D0%BB.pdf",
            "файл.pdf",
            "application/pdf",
            id="dotnet",
        ),
        pytest.param(
            "Content-Disposition: form-data; name=file; filename*=utf-8''%D1%84.pdf",
            "ф.pdf",
            None,
            id="extended_filename_alone",
        ),
        pytest.param(
            f'Content-Disposition: form-data; name="file"; filename="=?utf-8?B?{WORD}?="',
            "файл.pdf",
            None,
            id="encoded_word_alone",
        ),
        pytest.param(
            b'Content-Disposition: form-data; name="file"; filename="gr\xfc\xdfe.pdf"\r\n'
            b"Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit",
            "grüße.pdf",
            "text/plain; charset=ISO-8859-1",
            id="apache_latin_1",
        ),
        pytest.param(
            'content-disposition:form-data;name="file";filename="a\\"b\\\\c.pdf"\r\n'
            f"content-length:{len(CONTENT)}",
            'a"b\\c.pdf',
            None,
            id="okhttp_escaped_quote",
        ),
        pytest.param(
            "Content-Disposition: form-data; name=file; filename=my file.pdf\r\n"
            "Content-Type: false",
            "my file.pdf",
            None,
            id="unquoted",
        ),
        pytest.param(
            'Content-Disposition: form-data; name="file"; filename="C:\\new\\"\r\n'
            "Content-Type:  TEXT/Plain ",
            "C:\\new\\",
            "TEXT/Plain",
            id="backslashes",
        ),
    ],
)
async def test_the_name_and_type_of_a_file_are_read_as_its_client_means_them(
    api: Api, head: str | bytes, filename: str, content_type: str | None
) -> None:
    manifest = await stored(api, await post(api, closed(part(head, CONTENT))))

    assert (manifest["filename"], manifest["content_type"]) == (filename, content_type)


@pytest.mark.parametrize(
    ("before", "after", "metadata"),
    [
        pytest.param(
            field("relativePath", "null") + field("name", "a.bin") + field("type", ""),
            b"",
            {"relativePath": "null", "name": "a.bin", "type": ""},
            id="uppy",
        ),
        pytest.param(
            field("dzuuid", "1") + field("dzchunkindex", "0"),
            b"",
            {"dzuuid": "1", "dzchunkindex": "0"},
            id="dropzone",
        ),
        pytest.param(field("file", "{}"), b"", {"file": "{}"}, id="filepond"),
        pytest.param(
            b"",
            field("note", "after") + field("tags[]", "a") + field("tags[]", "b"),
            {"note": "after", "tags[]": "a\nb"},
            id="fields_after_the_file",
        ),
        pytest.param(
            field("_charset_", "iso-8859-1")
            + part('Content-Disposition: form-data; name="note"', b"\xfc")
            + field("sha256", "")
            + field("callback_url", "")
            + field("priority", "")
            + part('Content-Disposition: form-data; name="other"; filename=""', b""),
            b"",
            {"note": "ü"},
            id="html_form_with_empty_inputs",
        ),
        pytest.param(
            b"".join(field(f"note{n}", "x" * 700) for n in range(64)),
            b"",
            {f"note{n}": "x" * 700 for n in range(64)},
            id="as_many_as_in_json",
        ),
    ],
)
async def test_other_fields_are_kept_as_metadata(
    api: Api, before: bytes, after: bytes, metadata: dict[str, str]
) -> None:
    manifest = await stored(api, await post(api, closed(before, file(), after)))

    assert manifest["metadata"] == metadata


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        pytest.param([file(), file(name="files[]")], "'files[]' is a file", id="two_files"),
        pytest.param([file(name="upload")], "'upload' is a file", id="another_name"),
        pytest.param([file(filename="")], "file's name", id="no_chosen_file"),
        pytest.param([field("file", "x" * 9000)], "'file' has more than", id="no_filename"),
        pytest.param([field(f"n{n}") for n in range(65)], "more than 64 fields", id="many"),
        pytest.param([field("note", "x" * 2049)], "field 'note' is invalid", id="long"),
        pytest.param([field("note", "a\0b")], "field 'note' is invalid", id="nul"),
        pytest.param([field("sha256", "zz")], "sha256", id="wrong_value"),
    ],
)
@pytest.mark.parametrize("is_after", [True, False])
async def test_a_refusal_names_the_field(
    api: Api, counts: Counts, parts: list[bytes], reason: str, *, is_after: bool
) -> None:
    has_file = any(b'name="file"' in one for one in parts)
    files = [] if has_file else [file()]
    before = await counts()

    answer = await post(api, closed(*files, *parts) if is_after else closed(*parts, *files))

    assert problem(answer) == (400, "invalid_request")
    assert reason in answer.json()["detail"]
    assert await counts() == before


WHOLE = closed(file(bytes(3 * KIB64)))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(WHOLE[: -len("\r\n--XYZ--\r\n")], id="no_final_boundary"),
        pytest.param(WHOLE[: -len("--\r\n")], id="boundary_without_end"),
        pytest.param(WHOLE.replace(b"--XYZ--", b"--ABC--"), id="another_final_boundary"),
        pytest.param(WHOLE[: 2 * KIB64], id="cut_within_the_file"),
        pytest.param(file(bytes(KIB64))[:-2] + b"\r\n", id="ends_after_a_whole_chunk"),
        pytest.param(closed(file(b"x"))[:60], id="cut_within_the_head"),
        pytest.param(WHOLE.replace(b"--XYZ\r\n", b"--ABC\r\n"), id="no_boundary"),
        pytest.param(WHOLE.replace(b"\r\n", b"\n"), id="wrong_line_ends"),
        pytest.param(bytes(200 * 1024), id="no_form"),
        pytest.param(b"", id="empty"),
    ],
)
async def test_a_form_that_is_cut_off_is_malformed_and_stores_nothing(
    api: Api, counts: Counts, body: bytes
) -> None:
    before = await counts()

    answer = await post(api, body)

    assert problem(answer) == (400, "invalid_request")
    assert answer.json()["detail"].startswith("the form is malformed")
    assert await counts() == before


@pytest.mark.parametrize("missing", [1, 5, 12, 1000, 3 * KIB64])
async def test_a_too_small_content_length_makes_a_form_malformed(
    gateway: Gateway, missing: int
) -> None:
    async with gateway.connect() as connection:
        await connection.request(
            "POST",
            "/api/v1/upload-async",
            "Connection: close",
            *(f"{name}: {value}" for name, value in FORM.items()),
            f"Content-Length: {len(WHOLE) - 2 - missing}",
            body=WHOLE,
        )
        answer = await connection.answer()

    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert answer.json["detail"].startswith("the form is malformed")


@pytest.mark.parametrize("padding", [b" ", b"\t", b" \t "])
async def test_white_space_after_boundaries_and_text_around_the_parts_are_ignored(
    api: Api, padding: bytes
) -> None:
    body = closed(field("note"), file(), field("after"))
    body = body.replace(b"--XYZ\r\n", b"--XYZ" + padding + b"\r\n")
    body = b"preamble\r\n" + body.replace(b"--XYZ--\r\n", b"--XYZ--" + padding + b"\r\nepilogue")

    assert (await stored(api, await post(api, body)))["metadata"] == {"note": "x", "after": "x"}


async def test_a_form_of_curl_is_accepted(gateway: Gateway, api: Api, tmp_path: Path) -> None:
    path = tmp_path / 'my "file" ü;1.bin'
    path.write_bytes(CONTENT)
    escaped = str(path).replace('"', '\\"')

    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", f"{gateway.url}/api/v1/upload-async"),
        *("-H", f"Authorization: Bearer {gateway.key}", "-F", "note=a b"),
        *("-F", f'file=@"{escaped}"'),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()

    assert process.returncode == 0
    manifest = await stored(api, httpx.Response(202, content=out))
    assert (manifest["filename"], manifest["metadata"]) == (path.name, {"note": "a b"})


NODE = """
const form = new FormData()
form.append("name", "größe")
form.append("file", new Blob([process.argv[3]], {type: ""}), 'a "b"\\\\ü.conf')
const answer = await fetch(process.argv[1] + "/api/v1/upload-async", {
  method: "POST", body: form, headers: {Authorization: "Bearer " + process.argv[2]},
})
console.log(await answer.text())
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
async def test_a_form_of_fetch_is_accepted(gateway: Gateway, api: Api) -> None:
    process = await asyncio.create_subprocess_exec(
        *("node", "--input-type=module", "-e", NODE),
        *("--", gateway.url, gateway.key, CONTENT.decode()),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()

    assert process.returncode == 0
    manifest = await stored(api, httpx.Response(202, content=out))
    assert (manifest["filename"], manifest["content_type"]) == ('a "b"\\ü.conf', None)
    assert manifest["metadata"] == {"name": "größe"}
