"""Names of files and fields, as clients send them."""

import base64
import encodings
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.uploads.oneshot.part import FormRefused, Part, decoded, parameters_of, text_of

WORD = base64.b64encode("файл.pdf".encode()).decode()


def part(disposition: str | bytes, **headers: str) -> Part:
    """Return the part of this disposition, whose bytes a parser has decoded as Latin-1."""
    sent = disposition if isinstance(disposition, bytes) else disposition.encode()
    return Part.of(
        [
            ("Content-Disposition", "form-data; " + sent.decode("latin-1")),
            *((name.replace("_", "-").title(), value) for name, value in headers.items()),
        ]
    )


@pytest.mark.parametrize(
    ("sent", "filename"),
    [
        # .NET
        (
            f"filename=\"=?utf-8?B?{WORD}?=\"; filename*=utf-8''%D1%84%D0%B0%D0%B9%D0%BB.pdf",
            "файл.pdf",
        ),
        (f'filename="=?utf-8?B?{WORD}?="', "файл.pdf"),
        (f"filename==?utf-8?B?{WORD}?=", "файл.pdf"),
        ('filename="=?UTF-8?Q?gr=C3=BC_=C3=9Fe?= =?iso-8859-1?q?=FC?="', "grü ßeü"),
        ("filename=a.pdf; filename*=utf-8''a.pdf", "a.pdf"),
        # RFC 8187
        ("filename*=UTF-8''%e2%82%ac%20rates.pdf", "€ rates.pdf"),
        ("filename*=utf-8'en'a%2Fb.pdf", "a/b.pdf"),
        ("filename*=iso-8859-1''%A3.pdf; filename=x", "£.pdf"),
        ('filename="x"; filename*="UTF-8\'\'%C3%BC"', "ü"),
        ("filename*=utf-8''a'b", "a'b"),
        ("filename*=utf-8''ü.pdf", "ü.pdf"),
        # An extended name that cannot be decoded
        ("filename=a.pdf; filename*=utf-8''%ff", "a.pdf"),
        ("filename=a.pdf; filename*=rot13''n.cqs", "a.pdf"),
        ("filename=a.pdf; filename*=b.pdf", "a.pdf"),
        # Browsers
        ('filename="a%22b%0D%0Ac%25%2F.pdf"', 'a"b\r\nc%25%2F.pdf'),
        ('filename="a;b=c.pdf"', "a;b=c.pdf"),
        ('filename="a; name=x.pdf"', "a; name=x.pdf"),
        (r'filename="C:\new\a.pdf"', r"C:\new\a.pdf"),
        ('filename="a\\"', "a\\"),
        ('filename="=?.pdf"', "=?.pdf"),
        ('filename="=?utf-8?B?_?="', "=?utf-8?B?_?="),
        ('filename="=?nothing?Q?a?="', "=?nothing?Q?a?="),
        # Quotes with a backslash, or with nothing
        (r'filename="a\"b\\c.pdf"', r'a"b\c.pdf'),
        (r'filename="a\"; b.pdf"', 'a"; b.pdf'),
        ('filename="a"b.pdf"', 'a"b.pdf'),
        # Without quotes
        ("filename=my file.pdf", "my file.pdf"),
        ("filename=my file; v2 (1).pdf ;", "my file; v2 (1).pdf"),
        ('FileName = "a.pdf" ; size=5', "a.pdf"),
        ("filename=a=b.pdf", "a=b.pdf"),
        ("filename=", ""),
        ('filename="a.pdf"; nonsense; x', "a.pdf"),
        ('filename="a.pdf"; filename="b.pdf"', "a.pdf"),
        # Legacy charsets
        (b'filename="gr\xfc\xdfe.pdf"', "grüße.pdf"),
        (b'filename="\x80 \x81.pdf"', "\x80 \x81.pdf"),
        (b'filename="\x93a\x94.pdf"', "“a”.pdf"),
    ],
)
@pytest.mark.parametrize("is_last", [True, False])
def test_a_filename_is_read_as_the_client_means_it(
    sent: str | bytes, filename: str, *, is_last: bool
) -> None:
    sent = sent if isinstance(sent, bytes) else sent.encode()

    found = part(b"name=file; " + sent if is_last else sent + b'; name="file"')

    assert (found.name, found.filename) == ("file", filename)


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("name=note", "note"),
        ("name=my note", "my note"),
        ('name="größe"', "größe"),
        (f'name="=?utf-8?B?{WORD}?="', "файл.pdf"),
        ("name*=utf-8''%C3%BC", "ü"),
        (b'name="gr\xf6\xdfer"', "größer"),
    ],
)
def test_a_name_is_read_like_a_filename(sent: str | bytes, name: str) -> None:
    assert (part(sent).name, part(sent).filename) == (name, None)


@pytest.mark.parametrize("sent", ["", "name", 'name=""', "filename=a", 'name="', "; ;"])
def test_a_part_without_a_name_is_refused(sent: str) -> None:
    with pytest.raises(FormRefused, match="without a name"):
        part(sent)


def test_the_charset_of_the_form_applies_to_names() -> None:
    parameters = {"filename": "日本.pdf".encode("shift_jis").decode("latin-1")}

    assert text_of("filename", parameters=parameters, charset="shift_jis") == "日本.pdf"


@pytest.mark.parametrize("encoding", ["", "7bit", "8BIT ", "binary"])
def test_an_encoding_that_changes_nothing_is_accepted(encoding: str) -> None:
    assert part("name=a", content_transfer_encoding=encoding).name == "a"


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-gzip"])
def test_an_encoded_part_is_refused(encoding: str) -> None:
    with pytest.raises(FormRefused, match="Content-Transfer-Encoding"):
        part("name=a", content_transfer_encoding=encoding)


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "rot13", "idna", "x", "", "a\0b"])
def test_a_codec_that_is_no_charset_of_a_form_is_not_used(charset: str) -> None:
    assert decoded(b"a", charset=charset) is None


@pytest.mark.parametrize(
    "charset",
    [
        "UTF-8",
        "utf8",
        "us-ascii",
        "ISO-8859-1",
        "latin1",
        "iso8859-15",
        "windows-1252",
        "KOI8-U",
        "Shift_JIS",
        "EUC-JP",
        "ISO-2022-JP",
        "GB18030",
        "Big5",
        "ks_c_5601-1987",
        "cp949",
    ],
)
def test_a_charset_has_many_labels(charset: str) -> None:
    assert decoded(b"a", charset=charset) == "a"


@pytest.mark.parametrize("charset", ["no-such-charset", "u--t--f--8", "utf.....8", "x" * 8000])
def test_a_label_of_a_client_is_not_kept(charset: str) -> None:
    decoded(b"a", charset=charset)

    assert charset not in vars(encodings)["_cache"]


@given(st.text(st.characters(codec="latin-1")))
def test_any_header_is_parsed(header: str) -> None:
    for value in parameters_of(header).values():
        text = text_of("x", parameters={"x": value, "x*": value}, charset=None)
        assert text is not None
        text.encode()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters='"'), min_size=1))
def test_any_name_that_a_browser_sends_is_kept(filename: str) -> None:
    escaped = filename.replace("\n", "%0A").replace("\r", "%0D")
    if "=?" in filename or "%0" in filename or "%22" in filename:
        return

    assert part(f'name="file"; filename="{escaped}"').filename == filename


@pytest.mark.parametrize("header", [";" * 4096, 'x; a="' + ";" * 4000, "; a" * 1400, " " * 4096])
def test_a_hostile_header_takes_no_time(header: str) -> None:
    begun = time.process_time()
    parameters_of(header)
    assert time.process_time() - begun < 0.1
