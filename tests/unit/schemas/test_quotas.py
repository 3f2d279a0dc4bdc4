from dataclasses import replace

import pytest

from schemas.policy import quotas
from schemas.policy.quotas import (
    FileTooLarge,
    NotAMediaRange,
    QuotaExceeded,
    Quotas,
    StagedBytesExceeded,
    TooManyOpenUploads,
    TypeNotAllowed,
    Usage,
)
from schemas.settings import QuotaSettings

QUOTAS = Quotas(
    file_size=100,
    total_bytes=1000,
    open_uploads=10,
    staged_bytes=500,
    staged_share=0.5,
    types=("*/*",),
)
NOTHING = Usage(total_bytes=0, open_uploads=0, staged_bytes=0)
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


def allowing(*types: str) -> Quotas:
    return replace(QUOTAS, types=types)


def test_a_file_larger_than_the_limit_is_refused() -> None:
    QUOTAS.check_size(100)
    with pytest.raises(FileTooLarge):
        QUOTAS.check_size(101)


def test_an_upload_may_fill_a_quota_but_not_exceed_it() -> None:
    QUOTAS.check_usage(replace(NOTHING, total_bytes=1000, open_uploads=10))
    with pytest.raises(TooManyOpenUploads) as too_many:
        QUOTAS.check_usage(replace(NOTHING, total_bytes=0, open_uploads=11))
    with pytest.raises(QuotaExceeded) as too_much:
        QUOTAS.check_usage(replace(NOTHING, total_bytes=1001, open_uploads=1))

    assert too_many.value.retryable
    assert not too_much.value.retryable


def test_staged_bytes_may_fill_a_quota_but_not_exceed_it() -> None:
    QUOTAS.check_usage(replace(NOTHING, staged_bytes=500))
    QUOTAS.check_usage(replace(NOTHING, staged_bytes=502), uncertain_bytes=2)
    with pytest.raises(StagedBytesExceeded) as too_much:
        QUOTAS.check_usage(replace(NOTHING, staged_bytes=501))

    assert too_much.value.retryable


def test_a_file_larger_than_the_quota_of_staged_bytes_is_refused_for_good() -> None:
    QUOTAS.check_staged_size(500)
    with pytest.raises(FileTooLarge) as too_large:
        QUOTAS.check_staged_size(501)

    assert not too_large.value.retryable


def test_the_share_of_the_disk_is_the_quota_if_no_bytes_are_set() -> None:
    unset = replace(QUOTAS, staged_bytes=None)

    assert unset.on_disk(1001).staged_bytes == 500
    assert QUOTAS.on_disk(1001).staged_bytes == 500
    assert replace(QUOTAS, staged_bytes=7).on_disk(1001).staged_bytes == 7
    assert unset.on_disk(None).staged_bytes is None


def test_without_a_disk_any_number_of_staged_bytes_is_accepted() -> None:
    unlimited = replace(QUOTAS, staged_bytes=None)
    unlimited.check_staged_size(2**62)
    unlimited.check_usage(replace(NOTHING, staged_bytes=2**62))


def test_uncertain_bytes_do_not_count_against_a_quota() -> None:
    QUOTAS.check_usage(replace(NOTHING, total_bytes=1002, open_uploads=1), uncertain_bytes=2)
    with pytest.raises(QuotaExceeded):
        QUOTAS.check_usage(replace(NOTHING, total_bytes=1003, open_uploads=1), uncertain_bytes=2)


def test_without_a_quota_any_number_of_bytes_is_accepted() -> None:
    quotas = replace(QUOTAS, total_bytes=None)
    quotas.check_usage(replace(NOTHING, total_bytes=2**62, open_uploads=1))


def test_a_tenants_own_quotas_replace_the_defaults() -> None:
    defaults = Quotas.from_settings(
        QuotaSettings.model_validate({"allowed_types": " application/pdf, image/* ,"})
    )

    assert defaults.types == ("application/pdf", "image/*")
    assert (
        defaults.replaced_by(
            file_size=None, total_bytes=None, open_uploads=None, staged_bytes=None, types=None
        )
        == defaults
    )
    assert defaults.replaced_by(
        file_size=0, total_bytes=1, open_uploads=2, staged_bytes=3, types=[]
    ) == Quotas(
        file_size=0, total_bytes=1, open_uploads=2, staged_bytes=3, staged_share=0.5, types=()
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
def test_media_types_are_compared_without_parameters_and_case(
    media_type: str, ranges: list[str], *, is_allowed: bool
) -> None:
    assert quotas.is_allowed(media_type, ranges=ranges) is is_allowed


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
def test_an_implausible_declared_type_is_ignored(
    sniffed: str | None, declared: str | None, actual: str
) -> None:
    assert quotas.actual_type(sniffed, declared=declared) == actual
    allowing(actual).check_content(sniffed, declared=declared)
    with pytest.raises(TypeNotAllowed):
        allowing("video/mp4").check_content(sniffed, declared=declared)


def test_a_declared_type_outside_the_quotas_is_refused() -> None:
    allowing("application/pdf").check_declared(None)
    allowing("application/pdf").check_declared("application/pdf")
    with pytest.raises(TypeNotAllowed, match="image/png; allowed are application/pdf"):
        allowing("application/pdf").check_declared("image/png")


@pytest.mark.parametrize("text", ["*/*", "image/*", "application/pdf", "Image/SVG+xml"])
def test_a_media_range_is_a_type_a_family_or_everything(text: str) -> None:
    assert quotas.media_range(text) == text.lower()


@pytest.mark.parametrize(
    "text", ["", "pdf", "*", "*/pdf", "image/", "a/b/c", "image/* ", "a/b;c=d"]
)
def test_malformed_text_is_not_a_media_range(text: str) -> None:
    with pytest.raises(NotAMediaRange):
        quotas.media_range(text)
