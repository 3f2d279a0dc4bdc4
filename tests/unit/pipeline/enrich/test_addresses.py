import pytest

from pipeline.enrich import addresses


def found(text: str) -> list[tuple[str, str]]:
    return [
        (each.label, text[each.start : each.end])
        for finder in (addresses.emails, addresses.urls, addresses.ibans)
        for each in finder(text)
    ]


@pytest.mark.parametrize(
    ("text", "email"),
    [
        ("Write to Bob.Smith@Example.com today.", "Bob.Smith@Example.com"),
        ("'ann@x.org', she said", "ann@x.org"),
        ("see ann@x.org.The next", "ann@x.org"),
        ("mailto:a.b+c@bar.co.uk?x", "a.b+c@bar.co.uk"),
        ("an müller@bücher.de.", "müller@bücher.de"),
    ],
)
def test_an_email_address_is_found_without_what_surrounds_it(text: str, email: str) -> None:
    assert found(text) == [("EMAIL", email)]


@pytest.mark.parametrize(
    "text",
    [
        "9@AJ.1<?2",
        "x@Q.FG",
        "a@b",
        "a@b.c",
        "@home.org",
        "a..b@x.org",
        "5@6.7",
        "a@x.Qz",
        "a@x_y.de_f",
    ],
)
def test_garbage_is_no_email_address(text: str) -> None:
    assert found(text) == []


def test_the_domain_of_a_normal_email_address_is_in_lower_case() -> None:
    (email,) = addresses.emails("Ann.Lee@Example.ORG")
    assert email.normal == "Ann.Lee@example.org"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("See https://example.org/a?b=1.", "https://example.org/a?b=1"),
        ("On www.example.org, you", "www.example.org"),
        ("(http://en.example.org/wiki/A_(b)).", "http://en.example.org/wiki/A_(b)"),
        ("<http://example.org/>;", "http://example.org/"),
        ("“https://example.org/a-”", "https://example.org/a"),
        ("https://example.org/a\nThe end", "https://example.org/a"),
        ("https://example.org/a.\nhttps-free text", "https://example.org/a"),
        ("https://example.org/foo-\nbar/baz.html is", "https://example.org/foo-\nbar/baz.html"),
        ("https://example.org/\nlong/path is", "https://example.org/\nlong/path"),
        (
            "https://example.org/long/pa\nth/index.html",
            "https://example.org/long/pa\nth/index.html",
        ),
    ],
)
def test_a_web_address_is_found_without_punctuation_and_across_lines(text: str, url: str) -> None:
    assert found(text) == [("URL", url)]


@pytest.mark.parametrize("text", ["README.md and here.In it", "http://", "www.", "https://?x"])
def test_other_text_with_full_stops_is_no_web_address(text: str) -> None:
    assert found(text) == []


def test_the_normal_form_of_a_web_address_is_on_one_line_with_the_host_in_lower_case() -> None:
    (url,) = addresses.urls("HTTPS://Example.ORG/Foo-\nBar")
    assert url.normal == "https://example.org/Foo-Bar"


@pytest.mark.parametrize(
    ("text", "iban"),
    [
        ("to DE89370400440532013000 by", "DE89370400440532013000"),
        ("to DE89 3704 0044 0532 0130 00 BY US", "DE89 3704 0044 0532 0130 00"),
        ("NO93 8601 1117 947.", "NO93 8601 1117 947"),
    ],
)
def test_an_account_number_is_found_with_spaces_or_without(text: str, iban: str) -> None:
    (each,) = addresses.ibans(text)
    assert text[each.start : each.end] == iban
    assert each.normal == iban.replace(" ", "")


def test_an_account_number_with_wrong_check_digits_is_not_found() -> None:
    assert found("to DE88 3704 0044 0532 0130 00 by") == []


@pytest.mark.parametrize(
    "iban", ["DE89370400440532013000", "GB82WEST12345698765432", "NO9386011117947"]
)
def test_an_iban_has_the_right_check_digits(iban: str) -> None:
    assert addresses.is_iban(iban)
    assert not addresses.is_iban(iban[:-1] + ("1" if iban[-1] != "1" else "2"))


@pytest.mark.parametrize("other", ["", "DE89", "de89370400440532013000", "89370400440532013000DE"])
def test_a_text_without_the_form_of_an_iban_is_refused(other: str) -> None:
    assert not addresses.is_iban(other)


@pytest.mark.parametrize(
    "text",
    ["@" * 50_000, "a@a." * 25_000, "http://" * 25_000, "www.a-\n" * 25_000, "AB12" * 25_000],
)
@pytest.mark.timeout(20)
def test_hostile_addresses_take_time_in_proportion_to_their_length(text: str) -> None:
    found(text)
