"""The page of settings matches the code."""

from datetime import timedelta

import pytest
from pydantic import BaseModel, ByteSize, TypeAdapter
from pydantic.fields import FieldInfo

from dev import settings_table
from schemas.settings import Duration

FIELDS = [
    pytest.param(name, field, id=name)
    for section in settings_table.all_sections()
    for name, field in section.model_fields.items()
]


def test_the_page_is_up_to_date() -> None:
    stale = "docs/settings.md is stale: run `python -m dev.settings_table`"

    assert settings_table.PAGE.read_text() == settings_table.page(), stale


def test_the_page_lists_every_setting_of_every_service() -> None:
    page = settings_table.page()

    for service in settings_table.SERVICES.values():
        for name, field in service.model_fields.items():
            assert f"| `{settings_table.variable(name, field)}` |" in page


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_setting_has_a_description_and_a_reader(name: str, field: FieldInfo) -> None:
    assert settings_table.meaning(field)
    assert settings_table.readers(name)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_default_is_written_in_the_syntax_of_the_environment(name: str, field: FieldInfo) -> None:
    if isinstance(field.default, timedelta):
        written = settings_table.written(field.default)
        assert TypeAdapter(Duration).validate_python(written) == field.default, name
    if isinstance(field.default, ByteSize):
        written = settings_table.written(field.default)
        assert TypeAdapter(ByteSize).validate_python(written) == field.default, name


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(seconds=90), "90s"),
        (timedelta(days=7), "7d"),
        (ByteSize(16 * 1024 * 1024), "16MiB"),
        (ByteSize(1000), "1000B"),
        (False, "false"),
        (4, "4"),
    ],
)
def test_a_value_is_written_in_the_largest_unit_that_divides_it(
    value: object, written: str
) -> None:
    assert settings_table.written(value) == written


def test_a_section_is_titled_by_the_words_of_its_class_name() -> None:
    class ObjectStoreSettings(BaseModel):
        pass

    class HttpSettings(BaseModel):
        pass

    assert settings_table.title(ObjectStoreSettings) == "Object store"
    assert settings_table.title(HttpSettings) == "HTTP"
