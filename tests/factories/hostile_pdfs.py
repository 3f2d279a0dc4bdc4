"""The PDFs built to exhaust their reader, each a few megabytes at most and quick to build."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from tests.factories import pdf_faults, pdfs
from tests.factories.pdfs import MB

HOSTILE: Final[Mapping[str, Callable[[], bytes]]] = MappingProxyType(
    {
        "a stream that inflates a thousandfold": partial(pdfs.flate_bomb, 400 * MB),
        "a stream that inflates a millionfold": partial(pdfs.double_flate_bomb, 400 * MB),
        "a page of 10 MB of operators": partial(pdfs.page_of_tokens, 5_000_000),
        "a page of 1.8 million tokens": partial(pdfs.page_of_tokens, 1_800_000),
        "many pages with one stream": partial(pdfs.pages_sharing_a_stream, 1_000, tokens=300_000),
        "forms shown ten thousand times": partial(pdfs.form_fan_out, width=10, depth=4, words=900),
        "tens of thousands of pages": partial(pdfs.tiny_pages, 30_000),
        "one string of 60 MB": partial(pdfs.page_of_text, b"a" * 60 * MB),
        "nested arrays": partial(pdfs.nested_arrays, 200_000),
        "a long outline": partial(pdf_faults.with_an_outline, 20_000),
        "a map to Unicode that inflates a thousandfold": partial(pdfs.unicode_map_bomb, 400 * MB),
        "a loop of the page tree": pdfs.with_a_page_tree_loop,
        "pages of text matrices": partial(pdfs.pages_of_text_matrices, 20, matrices=60_000),
        "garbage": partial(pdfs.garbage, 5 * MB),
        "half of a file": pdfs.truncated,
    }
)
