"""What the reading of a document or of one page came to: stable codes, finer than a status."""

from enum import StrEnum


class Outcome(StrEnum):
    """Result of reading a document or one of its pages; clients may branch on it."""

    COMPLETE = "complete"
    PARTIAL = "partial"  # of a document: some pages or parts are missing
    NO_TEXT = "no_text"  # read as a whole, and there is no text in it
    NEEDS_OCR = "needs_ocr"  # a picture of text, or text that cannot be mapped to characters
    ENCRYPTED = "encrypted"
    CORRUPT = "corrupt"
    EMPTY = "empty"  # no bytes, or no pages
    LIMIT_FILE_SIZE = "limit_file_size"
    LIMIT_PAGES = "limit_pages"
    LIMIT_TEXT = "limit_text"  # text of the whole document
    LIMIT_PAGE_TEXT = "limit_page_text"
    LIMIT_PAGE_CONTENT = "limit_page_content"  # operators, forms or pixels of one page
    TIMEOUT_DOCUMENT = "timeout_document"
    TIMEOUT_PAGE = "timeout_page"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    QUARANTINED = "quarantined"  # killed its reader again and again
    DUPLICATE = "duplicate"  # the tenant refuses bytes that it has already
