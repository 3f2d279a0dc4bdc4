from dataclasses import replace

import pytest

from schemas.policy import quotas as quota_policy
from schemas.policy.quotas import (
    FileTooLarge,
    NotAMediaRange,
    QuotaExceeded,
    Quotas,
    TooManyOpenUploads,
    TypeNotAllowed,
    Usage,
)
from schemas.settings import QuotaSettings

QUOTAS = Quotas(file_size=100, total_bytes=1000, open_uploads=10, types=("*/*",))
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def allowing(*types: str) -> Quotas:
    return replace(QUOTAS, types=types)


def test_a_file_may_be_as_large_as_the_quota_and_no_larger() -> None:
    quota_policy.check_size(100, quotas=QUOTAS)
    with pytest.raises(FileTooLarge):
        quota_policy.check_size(101, quotas=QUOTAS)


def test_the_upload_that_fills_a_quota_is_let_in_and_the_next_is_not() -> None:
    quota_policy.check_usage(Usage(total_bytes=1000, open_uploads=10), quotas=QUOTAS)
    with pytest.raises(TooManyOpenUploads) as too_many:
        quota_policy.check_usage(Usage(total_bytes=0, open_uploads=11), quotas=QUOTAS)
    with pytest.raises(QuotaExceeded) as too_much:
        quota_policy.check_usage(Usage(total_bytes=1001, open_uploads=1), quotas=QUOTAS)

    assert too_many.value.retryable
    assert not too_much.value.retryable


def test_bytes_that_may_not_be_the_files_do_not_count_against_it() -> None:
    quota_policy.check_usage(Usage(total_bytes=1002, open_uploads=1), quotas=QUOTAS, slack=2)
    with pytest.raises(QuotaExceeded):
        quota_policy.check_usage(Usage(total_bytes=1003, open_uploads=1), quotas=QUOTAS, slack=2)


def test_without_a_quota_of_bytes_there_is_no_limit() -> None:
    quotas = replace(QUOTAS, total_bytes=None)
    quota_policy.check_usage(Usage(total_bytes=2**62, open_uploads=1), quotas=quotas)


def test_a_tenants_own_quotas_go_before_the_settings() -> None:
    defaults = Quotas.from_settings(
        QuotaSettings.model_validate({"allowed_types": " application/pdf, image/* ,"})
    )

    assert defaults.types == ("application/pdf", "image/*")
    assert (
        defaults.replaced_by(file_size=None, total_bytes=None, open_uploads=None, types=None)
        == defaults
    )
    assert defaults.replaced_by(file_size=0, total_bytes=1, open_uploads=2, types=[]) == Quotas(
        file_size=0, total_bytes=1, open_uploads=2, types=()
    )


@pytest.mark.parametrize(
    ("media_type", "ranges", "is_allowed"),
    [
        ("application/pdf", ["application/pdf"], True),
        ("Application/PDF; version=1.7", ["application/pdf"], True),
        ("application/pdf", ["APPLICATION/PDF"], True),
        ("application/pdf", ["image/*", "application/pdf"], True),
        ("image/png", ["image/*"], True),
        ("image/png", ["*/*"], True),
        ("image/png", ["image/jpeg"], False),
        ("imagery/png", ["image/*"], False),
        ("application/pdfx", ["application/pdf"], False),
        ("image/png", [], False),
        ("image/*", ["image/png"], False),
    ],
)
def test_types_are_compared_without_parameters_and_case(
    media_type: str, ranges: list[str], *, is_allowed: bool
) -> None:
    assert quota_policy.is_allowed(media_type, ranges=ranges) is is_allowed


@pytest.mark.parametrize(
    ("sniffed", "declared", "actual"),
    [
        ("application/pdf", "image/png", "application/pdf"),
        ("application/pdf", None, "application/pdf"),
        (None, "Text/Plain; charset=utf-8", "text/plain"),
        (None, None, "application/octet-stream"),
        (None, "application/pdf", "application/octet-stream"),
        (None, "Image/PNG; charset=utf-8", "application/octet-stream"),
        ("application/zip", DOCX, DOCX),
        ("application/zip", "application/epub+zip", "application/epub+zip"),
        ("application/zip", "application/pdf", "application/zip"),
        ("application/zip", "text/plain", "application/zip"),
        ("application/zip", None, "application/zip"),
    ],
)
def test_what_the_bytes_show_counts_and_what_they_would_have_shown_is_not_believed(
    sniffed: str | None, declared: str | None, actual: str
) -> None:
    assert quota_policy.actual_type(sniffed, declared=declared) == actual
    quota_policy.check_content(sniffed, declared=declared, quotas=allowing(actual))
    with pytest.raises(TypeNotAllowed):
        quota_policy.check_content(sniffed, declared=declared, quotas=allowing("video/mp4"))


def test_a_client_that_declares_nothing_is_let_in_and_one_that_declares_something_else_is_not() -> (
    None
):
    quota_policy.check_declared(None, quotas=allowing("application/pdf"))
    quota_policy.check_declared("application/pdf", quotas=allowing("application/pdf"))
    with pytest.raises(TypeNotAllowed, match="image/png; allowed are application/pdf"):
        quota_policy.check_declared("image/png", quotas=allowing("application/pdf"))


@pytest.mark.parametrize("text", ["*/*", "image/*", "application/pdf", "Image/SVG+xml"])
def test_a_range_is_a_type_or_a_family_or_everything(text: str) -> None:
    assert quota_policy.media_range(text) == text.lower()


@pytest.mark.parametrize(
    "text", ["", "pdf", "*", "*/pdf", "image/", "a/b/c", "image/* ", "a/b;c=d"]
)
def test_anything_else_is_no_range(text: str) -> None:
    with pytest.raises(NotAMediaRange):
        quota_policy.media_range(text)
