"""The description and the schema of every event."""

import json
from typing import Any

import jsonschema
import pytest

from schemas.events.catalogue import description_of, schema_of
from schemas.events.envelope import EVENT_TYPES, encode
from schemas.events.examples import example_envelope


def example(event_type: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode(example_envelope(event_type)))
    return body


def validator(event_type: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        schema_of(event_type), format_checker=jsonschema.FormatChecker()
    )


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_schema_accepts_the_example_and_new_fields(event_type: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema_of(event_type))
    body = example(event_type)
    validator(event_type).validate(body)
    validator(event_type).validate(body | {"new": 1, "data": body["data"] | {"new": 1}})


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_schema_refuses_other_events(event_type: str) -> None:
    refused = [each for each in EVENT_TYPES if not validator(event_type).is_valid(example(each))]
    assert refused == [each for each in EVENT_TYPES if each != event_type]


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_schema_refuses_wrong_types(event_type: str) -> None:
    body = example(event_type)
    for name in body["data"]:
        damaged = body | {"data": body["data"] | {name: {"no": "value"}}}
        assert not validator(event_type).is_valid(damaged), name


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_schema_contains_no_reference(event_type: str) -> None:
    assert "$ref" not in json.dumps(schema_of(event_type))


def test_a_field_keeps_its_description_beside_a_referenced_type() -> None:
    outcome = schema_of("document.ingested")["properties"]["data"]["properties"]["outcome"]
    assert outcome["description"] == "what the reading came to"
    assert "complete" in outcome["enum"]


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_a_description_is_sentences(event_type: str) -> None:
    text = description_of(event_type)
    assert text[0].isupper()
    assert text.endswith(".")
