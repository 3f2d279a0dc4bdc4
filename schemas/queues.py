"""Names of the queues that processes consume; `schemas.topology` declares them."""

from typing import Final

UPLOADS: Final = "uploads"
DOCUMENT_PROCESSING: Final = "document_processing"
METADATA_EXTRACTION: Final = "metadata_extraction"
OCR_PROCESSING: Final = "ocr_processing"
BATCH_PROCESSING: Final = "batch_processing"
SEARCH_INDEXING: Final = "search_indexing"
EXPORTS: Final = "exports"
NOTIFY: Final = "notify"
