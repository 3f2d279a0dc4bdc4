from urllib.parse import unquote

import pytest

from gateway.documents.content_disposition import (
    NAME_BYTES_MAX,
    content_disposition,
    media_type_of,
)


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        pytest.param("a b.pdf", 'inline; filename="a b.pdf"', id="ascii"),
        pytest.param(
            "Öl für Zoë.pdf",
            "inline; filename=\"Ol fur Zoe.pdf\"; filename*=UTF-8''%C3%96l%20f%C3%BCr%20Zo%C3%AB.pdf",
            id="letters with marks",
        ),
        pytest.param(
            "契約.pdf",
            "inline; filename=\"__.pdf\"; filename*=UTF-8''%E5%A5%91%E7%B4%84.pdf",
            id="characters without a fallback",
        ),
        pytest.param(
            'the "100%" file.pdf',
            "inline; filename=\"the _100__ file.pdf\"; filename*=UTF-8''the%20%22100%25%22%20file.pdf",
            id="quotes and percent",
        ),
        pytest.param("../../etc/passwd", 'inline; filename="_.._etc_passwd"', id="path"),
        pytest.param("..\\..\\a.pdf", 'inline; filename="_.._a.pdf"', id="path of Windows"),
        pytest.param(
            "\uff0e\uff0e\uff0fa.pdf",
            "inline; filename=\"_a.pdf\"; filename*=UTF-8''%EF%BC%8E%EF%BC%8E%EF%BC%8Fa.pdf",
            id="path of full-width characters",
        ),
        pytest.param("a\u202efdp.exe", 'inline; filename="a_fdp.exe"', id="reversed suffix"),
        pytest.param("a\r\nSet-Cookie: b", 'inline; filename="a__Set-Cookie: b"', id="line break"),
        pytest.param(" .. ", 'inline; filename="document"', id="only dots"),
    ],
)
def test_a_name_has_an_ascii_fallback_and_its_exact_form(filename: str, expected: str) -> None:
    assert content_disposition(filename, content_type="application/pdf") == expected


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        pytest.param("契" * 400 + ".pdf", "契" * 83 + ".pdf", id="characters of three bytes"),
        pytest.param("x" * 400, "x" * NAME_BYTES_MAX, id="no suffix"),
        pytest.param("x" * 300 + "." + "y" * 50, "x" * NAME_BYTES_MAX, id="long text after a dot"),
    ],
)
def test_a_long_name_is_cut_before_its_suffix(filename: str, expected: str) -> None:
    value = content_disposition(filename, content_type="application/pdf")

    plain, _, extended = value.partition("; filename*=UTF-8''")
    assert unquote(extended) == expected or plain == f'inline; filename="{expected}"'


@pytest.mark.parametrize(
    ("content_type", "kind", "served_as"),
    [
        ("application/pdf", "inline", "application/pdf"),
        ("image/png", "inline", "image/png"),
        ("Application/PDF; x=1", "inline", "Application/PDF; x=1"),
        ("text/plain; charset=utf-8", "attachment", "text/plain; charset=utf-8"),
        ("text/html", "attachment", "application/octet-stream"),
        ("Text/HTML; charset=utf-8", "attachment", "application/octet-stream"),
        ("image/svg+xml", "attachment", "application/octet-stream"),
        ("application/atom+xml", "attachment", "application/octet-stream"),
        ("application/zip", "attachment", "application/zip"),
    ],
)
def test_a_type_that_may_run_scripts_is_an_attachment_of_bytes(
    content_type: str, kind: str, served_as: str
) -> None:
    value = content_disposition("a", content_type=content_type)

    assert value.partition(";")[0] == kind
    assert media_type_of(content_type) == served_as
