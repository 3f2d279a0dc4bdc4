from collections import Counter
from itertools import pairwise

import pytest

from dev.seed.texts import LANGUAGES, PAGES, Author, DocumentText


@pytest.fixture(scope="module")
def author() -> Author:
    return Author(seed=1)


@pytest.fixture(scope="module")
def documents(author: Author) -> list[DocumentText]:
    return [author.document(number) for number in range(60)]


def test_equal_numbers_give_equal_documents(author: Author, documents: list[DocumentText]) -> None:
    assert author.document(7) == documents[7]
    assert documents[7] != documents[8]


def test_every_language_has_documents(documents: list[DocumentText]) -> None:
    assert {document.language for document in documents} == set(LANGUAGES)


def test_the_sentences_of_a_page_are_its_text(documents: list[DocumentText]) -> None:
    for document in documents:
        assert len(document.pages) == PAGES
        for page in document.pages:
            sentences = [page.text[start:end] for start, end in page.sentences]
            assert " ".join(sentences) == page.text
            assert all(sentence.endswith(".") for sentence in sentences)


def test_the_frequencies_of_words_fall_as_in_real_texts(documents: list[DocumentText]) -> None:
    counts = Counter(
        word.lower().strip(".")
        for document in documents
        if document.language == "en"
        for page in document.pages
        for word in page.text.split()
    )
    total = counts.total()
    shares = [count / total for _, count in counts.most_common()]

    assert 0.02 < shares[0] < 0.1
    assert all(first >= second for first, second in pairwise(shares))
    # Half of the words of a real text occur once.
    assert sum(count == 1 for count in counts.values()) > len(counts) / 4


def test_the_words_of_its_topic_are_frequent_in_a_document_alone(
    author: Author, documents: list[DocumentText]
) -> None:
    document = documents[0]
    word = author.vocabularies[document.language].topic_words(document.topic)[0]
    shares = {
        other.topic: sum(page.text.count(f" {word} ") for page in other.pages)
        for other in documents
        if other.language == document.language
    }

    assert shares[document.topic] > 5 * max(
        (count for topic, count in shares.items() if topic != document.topic), default=0
    )
