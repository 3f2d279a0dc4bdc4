"""The gateway refuses images of formats whose extractors make none, without importing them."""

import pkgutil

import pytest

from pipeline.ingest.extractors import registry
from pipeline.ingest.extractors.registry import Format
from schemas.policy import media_types

MAKE_IMAGES = {"PdfExtractor", "ImageExtractor"}


@pytest.mark.parametrize(
    "each", registry.FORMATS, ids=lambda each: each.extractor.partition(":")[2]
)
def test_only_formats_whose_pages_have_images_may_have_images(each: Format) -> None:
    makes_images = pkgutil.resolve_name(each.extractor).__name__ in MAKE_IMAGES
    found = {media_types.may_have_images(media_type) for media_type in each.media_types}
    assert found == {makes_images}


def test_a_file_of_an_unknown_type_may_have_images() -> None:
    assert media_types.may_have_images(media_types.UNKNOWN)
    assert not media_types.may_have_images("Text/Plain; charset=utf-8")
