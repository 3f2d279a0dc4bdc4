import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import DocumentId, TenantId
from schemas.lifecycle import PassageKind
from schemas.policy import search_words

SOME = UUID(int=7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("café", "cafe"),
        ("Köln, Straße", "Koln, Strasse"),
        ("Łódź", "Lodz"),
        ("İzmir", "Izmir"),
        ("Δείκτης", "Δείκτης"),
        ("हिन्दी", "हिन्दी"),
        ("йод", "йод"),
        ("한국어", "한국어"),
        ("\uff11\uff12\uff13", "123"),
    ],
)
def test_accents_of_latin_letters_are_not_searched(text: str, expected: str) -> None:
    assert search_words.searched(text) == expected


@given(st.text())
def test_a_searched_text_is_its_own_searched_text(text: str) -> None:
    once = search_words.searched(text)
    assert search_words.searched(once) == once


def test_a_language_without_a_configuration_is_searched_as_written() -> None:
    assert search_words.configuration_of("de") == "german"
    assert search_words.configuration_of("ja") == search_words.AS_WRITTEN
    assert search_words.configuration_of(None) == search_words.AS_WRITTEN


def test_marks_of_different_things_differ_and_need_no_escape() -> None:
    marks = [
        search_words.tenant_mark(TenantId(SOME)),
        search_words.document_mark(DocumentId(SOME)),
        *(search_words.kind_mark(kind) for kind in PassageKind),
        *(search_words.language_mark(language) for language in (None, "de", "en")),
    ]
    assert len(set(marks)) == len(marks)
    assert all(re.fullmatch(r"#[a-z]:[a-z0-9]*", mark) for mark in marks)
