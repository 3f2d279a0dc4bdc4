"""What a receiver reads about an event: its description and its JSON Schema, from its struct."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from schemas.events.envelope import EVENT_TYPES

JsonSchema = dict[str, Any]

_UUID: Final = {"type": "string", "format": "uuid"}


def description_of(event_type: str) -> str:
    """Return what an event states, in sentences.

    Raises:
        KeyError: no event has this type.
    """
    return inspect.getdoc(EVENT_TYPES[event_type]) or ""


def schema_of(event_type: str) -> JsonSchema:
    """Return the JSON Schema (2020-12) of an event in its envelope; it contains no reference.

    Fields may be added to events, so the schema accepts more fields.

    Raises:
        KeyError: no event has this type.
    """
    properties = {
        "specversion": {"const": "1.0", "description": "version of CloudEvents"},
        "id": _UUID | {"description": "the same in every delivery of the event"},
        "source": {
            "type": "string",
            "format": "uri-reference",
            "description": "the component that emitted the event",
        },
        "type": {"const": event_type, "description": "type of the event"},
        "subject": _UUID | {"description": "what the event is about"},
        "time": {"type": "string", "format": "date-time", "description": "when it happened"},
        "datacontenttype": {"const": "application/json", "description": "media type of `data`"},
        "tenantid": _UUID | {"description": "the tenant that the event belongs to"},
        "data": _data_schema(EVENT_TYPES[event_type]),
    }
    return {
        "title": event_type,
        "description": description_of(event_type),
        "type": "object",
        "properties": properties,
        "required": list(properties),
    }


def _data_schema(event: type[msgspec.Struct]) -> JsonSchema:
    (schema,), components = msgspec.json.schema_components([event], ref_template="{name}")
    resolved: JsonSchema = _resolved(schema, components)
    # The description is that of the envelope; titles are names of classes.
    del resolved["title"], resolved["description"]
    return resolved


def _resolved(node: Any, components: Mapping[str, JsonSchema]) -> Any:  # noqa: ANN401  # a JSON value
    """Return a schema with every reference replaced by what it refers to."""
    if isinstance(node, list):
        return [_resolved(each, components) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        # The keywords beside a reference take precedence: they describe the field.
        others = {key: value for key, value in node.items() if key != "$ref"}
        return _resolved(components[node["$ref"]], components) | others
    return {key: _resolved(value, components) for key, value in node.items()}
