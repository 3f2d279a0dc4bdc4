"""The parts of the API description (OpenAPI) that Litestar does not derive from the handlers."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.openapi.spec.enums import OpenAPIFormat

from gateway.http import openapi_webhooks

BINARY: Final = Schema(type=OpenAPIType.STRING, format=OpenAPIFormat.BINARY)

CONFIG: Final = OpenAPIConfig(
    title="Waybill",
    version="1",
    description="Takes large files in chunks, stores them, reads the PDFs among them, "
    "and notifies other systems with signed webhooks. Errors are problems (RFC 9457) "
    "with a stable `code`; 429 and 503 carry `Retry-After`. Answers to authenticated requests "
    "carry `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).",
    use_handler_docstrings=True,
    operation_id_creator=lambda handler, _method, _path: handler.handler_name,
    components=Components(
        security_schemes={
            "apiKey": SecurityScheme(type="http", scheme="bearer", description="an API key, `wb_…`")
        },
    ),
    webhooks=openapi_webhooks.webhooks(),
    # No HTML page is served, because it would load scripts from a third party.
    render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"]), YamlRenderPlugin()],
)


def reads_body(
    description: str, content: dict[str, Schema], *, headers: Sequence[Parameter] = ()
) -> type[Operation]:
    """Return the operation class of a handler that reads its body itself, as a stream.

    Args:
        description: description of the body.
        content: schema of the body by media type.
        headers: headers that the handler reads from the request.
    """

    @dataclass
    class ReadsBody(Operation):
        def __post_init__(self) -> None:
            self.parameters = [*(self.parameters or []), *headers] or None
            self.request_body = RequestBody(
                required=True,
                description=description,
                content={
                    media_type: OpenAPIMediaType(schema=schema)
                    for media_type, schema in content.items()
                },
            )

    return ReadsBody


def answers_also(media_type: str) -> type[Operation]:
    """Return the operation class of a handler that also answers 200 with text of this media type."""

    @dataclass
    class AnswersAlso(Operation):
        def __post_init__(self) -> None:
            answer = (self.responses or {})[str(HTTPStatus.OK.value)]
            if isinstance(answer, OpenAPIResponse) and answer.content is not None:
                text = OpenAPIMediaType(schema=Schema(type=OpenAPIType.STRING))
                answer.content[media_type] = text

    return AnswersAlso


def schema_of(
    struct: type[msgspec.Struct], *, file: str | None = None, others: str | None = None
) -> Schema:
    """Return the schema of a struct, with the schemas of its structs in place.

    Args:
        struct: type to which a handler decodes the body.
        file: the name of a form's file, which is not a field of the struct.
        others: the field of the struct that holds the form's fields of other names.
    """
    _, components = msgspec.json.schema_components([struct])
    schema: dict[str, Any] = components[struct.__name__]
    schema["description"] = inspect.getdoc(struct)
    # An optional field may be left out; a form cannot send null.
    for name, shape in schema["properties"].items():
        chosen = shape.get("anyOf", [shape])[0]
        of_struct = components.get(chosen.get("$ref", "").rpartition("/")[2])
        schema["properties"][name] = chosen if of_struct is None else shape | of_struct
    if others is not None:
        schema["additionalProperties"] = schema["properties"].pop(others)["additionalProperties"]
    if file is not None:
        schema["properties"][file] = BINARY.to_schema()
        schema["required"] = [*schema.get("required", []), file]
    # Litestar renders a dictionary as it is; its own class has no constructor from JSON Schema.
    return cast("Schema", schema)
