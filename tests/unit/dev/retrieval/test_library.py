from pathlib import Path

import pypdfium2

from dev.retrieval.library import LibraryDocument, library, write_pdfs

LIBRARY = library()


def test_every_question_names_pages_of_a_document() -> None:
    pages = {document.file: len(document.pages) for document in LIBRARY.documents}

    for question in LIBRARY.questions:
        assert question.pages, question
        assert max(question.pages) <= pages[question.file], question


def test_no_question_is_asked_twice() -> None:
    assert len({question.text for question in LIBRARY.questions}) == len(LIBRARY.questions)


def test_the_last_word_of_a_keyword_question_is_on_no_other_page() -> None:
    texts = {
        (document.file, number): text + _table_of(document, page=number)
        for document in LIBRARY.documents
        for number, text in enumerate(document.pages, start=1)
    }

    for question in LIBRARY.questions:
        if question.kind == "keyword":
            word = question.text.strip('"').split()[-1]
            found = [place for place, text in texts.items() if word in text]
            assert found == [(question.file, question.pages[0])], question


def _table_of(document: LibraryDocument, *, page: int) -> str:
    if document.table is None or document.table.page != page:
        return ""
    return str(document.table.rows)


def test_every_page_is_a_page_of_the_pdf(tmp_path: Path) -> None:
    for document, path in zip(
        LIBRARY.documents, write_pdfs(LIBRARY.documents, to=tmp_path), strict=True
    ):
        with pypdfium2.PdfDocument(path) as pdf:
            texts = [page.get_textpage().get_text_range() for page in pdf]
        assert len(texts) == len(document.pages)
        for text, written in zip(texts, document.pages, strict=True):
            assert written.split()[0] in text
