import argparse

import pytest

from gateway.__main__ import TENANT_NAME_MAX, changes_in, parser, tenant_name


@pytest.mark.parametrize("name", ["acme", "Müller & Söhne", "x" * TENANT_NAME_MAX])
def test_a_tenant_has_a_name_people_can_read(name: str) -> None:
    assert tenant_name(name) == name


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x00", "x" * (TENANT_NAME_MAX + 1)])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        tenant_name(name)


def test_an_operator_changes_only_what_is_given() -> None:
    arguments = parser().parse_args(
        ["set-quota", "--tenant=acme", "--bytes=1.5KiB", "--open-uploads=none", "--file-size=0"]
    )

    assert changes_in(arguments) == {
        "quota_bytes": 1536,
        "quota_open_uploads": None,
        "quota_file_size": 0,
    }


@pytest.mark.parametrize(
    ("given", "types"),
    [
        (["--allow-type=image/*", "--allow-type=Application/PDF"], ["image/*", "application/pdf"]),
        (["--allow-any-type"], ["*/*"]),
        (["--allow-default-types"], None),
    ],
)
def test_an_operator_names_types_or_all_or_the_default(
    given: list[str], types: list[str] | None
) -> None:
    arguments = parser().parse_args(["set-quota", "--tenant=acme", *given])

    assert changes_in(arguments) == {"allowed_types": types}


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
        "--allow-type=pdf",
        "--file-size=",
    ],
)
def test_what_is_no_quota_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["set-quota", "--tenant=acme", wrong])

    assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
