from datetime import timedelta

import click
import pytest
from click.testing import CliRunner

from gateway.administration.cli import (
    NAME_MAX,
    changes_in,
    lifetime,
    main,
    printable_name,
    set_quotas,
)


@pytest.mark.parametrize("name", ["acme", "Müller & Söhne", "x" * NAME_MAX])
def test_a_printable_name_is_accepted(name: str) -> None:
    assert printable_name(name) == name


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x00", "x" * (NAME_MAX + 1)])
def test_an_empty_too_long_or_unprintable_name_is_refused(name: str) -> None:
    with pytest.raises(click.BadParameter):
        printable_name(name)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("1.5h", timedelta(minutes=90)),
        ("90 days", timedelta(days=90)),
        ("P90D", timedelta(days=90)),
    ],
)
def test_a_lifetime_has_a_unit(text: str, parsed: timedelta) -> None:
    assert lifetime(text) == parsed


@pytest.mark.parametrize("text", ["90", " 90 ", "1.5", "0", "-1"])
def test_a_lifetime_without_a_unit_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match=rf"has no unit.* {text.strip()}d"):
        lifetime(text)


@pytest.mark.parametrize("text", ["", "d", "90x", "9999999d", "-1d", "0d", "90d12"])
def test_a_malformed_lifetime_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration"):
        lifetime(text)


@pytest.mark.parametrize(
    ("given", "changes"),
    [
        (
            ["--bytes=1.5KiB", "--open-uploads=none", "--file-size=0"],
            {"quota_bytes": 1536, "quota_open_uploads": None, "quota_file_size": 0},
        ),
        (
            ["--types=image/*, Application/PDF"],
            {"allowed_types": ["image/*", "application/pdf"]},
        ),
        (["--staged-bytes=1KiB"], {"quota_staged_bytes": 1024}),
        (["--types=*/*"], {"allowed_types": ["*/*"]}),
        (["--types=none"], {"allowed_types": None}),
    ],
)
def test_only_the_given_quotas_are_changed(given: list[str], changes: dict[str, object]) -> None:
    options = set_quotas.make_context("set", ["acme", *given]).params
    assert options.pop("tenant") == "acme"

    assert changes_in(options) == changes


@pytest.mark.parametrize(
    "wrong",
    [
        "--bytes=much",
        "--bytes=-1",
        "--bytes=16EiB",
        "--bytes=inf",
        "--open-uploads=1.5",
        "--open-uploads=-1",
        "--open-uploads=²",
        "--open-uploads=99999999999999999999",
        "--types=pdf",
        "--types=",
        "--file-size=",
    ],
)
def test_a_value_that_is_not_a_quota_is_refused(wrong: str) -> None:
    result = CliRunner().invoke(main, ["quotas", "set", "acme", wrong])

    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert wrong.partition("=")[0] in result.output


def test_setting_no_quota_is_refused() -> None:
    assert CliRunner().invoke(main, ["quotas", "set", "acme"]).exit_code == 2
