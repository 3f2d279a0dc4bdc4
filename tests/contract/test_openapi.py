"""The API description; a change of the golden file changes the contract."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute

from gateway.app import create_app
from gateway.http.security import REQUIRED_SCOPE, SCOPE_OF_JOB
from gateway.settings import API_PREFIX, Settings
from schemas import topology
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode
from schemas.events.envelope import CONTENT_TYPE, encode
from schemas.events.examples import example_envelope
from tests.factories.secret_keys import KEY

PUBLIC = "GET /api/v1/webhooks/{webhook_id}/public-key"
"""The only route without an API key: receivers have none, and a public key is no secret."""

GOLDEN = Path(__file__).parent / "golden" / "openapi.json"


@pytest.fixture(scope="module")
def app() -> Litestar:
    settings = Settings.model_validate(
        {
            "database_url": "postgresql+psycopg://nobody@nowhere/none",
            "staging_dir": "/nowhere",
            "secret_keys": KEY,
        }
    )
    return create_app(settings)


@pytest.fixture(scope="module")
def description(app: Litestar) -> dict[str, Any]:
    described: dict[str, Any] = app.openapi_schema.to_schema()
    return described


def operations_of(description: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
    }


def essence_of(description: dict[str, Any]) -> dict[str, Any]:
    """Return the parts that clients depend on, small enough for a review."""
    return {
        "webhooks": {
            name: {
                "headers": [parameter["name"] for parameter in item["post"]["parameters"]],
                "body": _content(item["post"]["requestBody"]),
                "data": {
                    field: _type(shape)
                    for field, shape in _body_of(item)["schema"]["properties"]["data"][
                        "properties"
                    ].items()
                },
                "answers": {
                    status: answer["description"]
                    for status, answer in sorted(item["post"]["responses"].items())
                },
            }
            for name, item in sorted(description["webhooks"].items())
        },
        "operations": {
            name: {
                "id": operation["operationId"],
                "parameters": [
                    f"{parameter['in']} {parameter['name']}"
                    + (" (required)" if parameter["required"] else "")
                    for parameter in operation.get("parameters", [])
                ],
                "body": _content(operation.get("requestBody", {})),
                "answers": {
                    status: _content(answer) or answer["description"]
                    if status.startswith(("2", "3"))
                    else answer["description"]
                    for status, answer in sorted(operation["responses"].items())
                },
            }
            for name, operation in sorted(operations_of(description).items())
        },
        "schemas": {
            name: {
                "fields": {
                    field: _type(shape) for field, shape in schema.get("properties", {}).items()
                },
                "required": sorted(schema.get("required", [])),
            }
            if schema["type"] == "object"
            else schema["enum"]
            for name, schema in sorted(description["components"]["schemas"].items())
        },
    }


def test_the_api_description_matches_the_golden_file(description: dict[str, Any]) -> None:
    assert essence_of(description) == json.loads(GOLDEN.read_text())


def test_every_api_route_but_the_public_keys_needs_a_key(description: dict[str, Any]) -> None:
    assert operations_of(description)[PUBLIC]["security"] == [{}]
    for name, operation in operations_of(description).items():
        if "/api/v1/" in name and name != PUBLIC:
            assert operation["security"] == [{"apiKey": []}], name
            assert {"400", "401", "403", "429", "503"} <= operation["responses"].keys(), name


def test_every_route_with_json_describes_its_size_limit(description: dict[str, Any]) -> None:
    with_json = {
        name: operation
        for name, operation in operations_of(description).items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }

    assert len(with_json) == 11
    for name, operation in with_json.items():
        assert "`invalid_request` (JSON)" in operation["responses"]["413"]["description"], name


def test_every_api_route_requires_a_scope(app: Litestar) -> None:
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path.startswith(API_PREFIX):
            for method, (handler, _) in route.route_handler_map.items():
                if method != "OPTIONS" and not route.path.endswith("/public-key"):
                    required = handler.opt.get(REQUIRED_SCOPE)
                    is_of_job = handler.opt.get(SCOPE_OF_JOB)
                    assert isinstance(required, Scope) or is_of_job, f"{method} {route.path}"


def test_every_api_route_describes_the_rate_limit(description: dict[str, Any]) -> None:
    for name, operation in operations_of(description).items():
        if "/api/v1/" in name and name != PUBLIC:
            described = [answer.get("headers", {}) for answer in operation["responses"].values()]
            assert any({"RateLimit-Policy", "RateLimit"} <= fields.keys() for fields in described)


def test_every_error_is_a_problem(description: dict[str, Any]) -> None:
    for name, operation in operations_of(description).items():
        for status, answer in operation["responses"].items():
            if not status.startswith(("2", "3")) and "/health/" not in name:
                assert _content(answer) == "application/problem+json Problem", (name, status)


def test_every_error_code_is_described(description: dict[str, Any]) -> None:
    assert set(description["components"]["schemas"]["ErrorCode"]["enum"]) == set(ErrorCode)


def test_a_callback_needs_the_scope_of_its_upload_alone(description: dict[str, Any]) -> None:
    bodies = [description["components"]["schemas"]["CreateUpload"]]
    for path in ("/api/v1/upload-async", "/api/v1/jobs"):
        content = description["paths"][path]["post"]["requestBody"]["content"]
        bodies += [body["schema"] for body in content.values()]

    described = [_description(body["properties"]["callback_url"]) for body in bodies]

    assert len(described) == 4
    assert all("`uploads:write` suffices" in text for text in described)


def test_a_secret_is_described_as_shown_once(description: dict[str, Any]) -> None:
    schemas = description["components"]["schemas"]

    for shape in (
        schemas["WebhookCreated"]["properties"]["secret"],
        schemas["UploadCreated"]["properties"]["callback_secret"],
        schemas["Submitted"]["properties"]["callback_secret"],
    ):
        assert "only the first answer has it" in _description(shape)


def test_every_delivered_event_is_a_described_webhook(description: dict[str, Any]) -> None:
    assert description["webhooks"].keys() == set(topology.DELIVERED)


@pytest.mark.parametrize("event_type", topology.DELIVERED)
def test_the_example_of_a_webhook_is_valid(description: dict[str, Any], event_type: str) -> None:
    body = _body_of(description["webhooks"][event_type])

    jsonschema.Draft202012Validator.check_schema(body["schema"])
    validator = jsonschema.Draft202012Validator(
        body["schema"], format_checker=jsonschema.FormatChecker()
    )
    validator.validate(body["example"])
    assert body["example"] == json.loads(encode(example_envelope(event_type)))
    for field in body["schema"]["properties"]:
        assert not validator.is_valid({**body["example"], field: None}), field


def _body_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return the media type of the body of a webhook."""
    body: dict[str, Any] = item["post"]["requestBody"]["content"][CONTENT_TYPE]
    return body


def _description(shape: dict[str, Any]) -> str:
    """Return the description of a field, which may be on one of its types."""
    return " ".join(one.get("description", "") for one in (shape, *shape.get("anyOf", ())))


def _content(described: dict[str, Any]) -> str | None:
    for media_type, content in described.get("content", {}).items():
        return f"{media_type} {_type(content.get('schema', {}))}".strip()
    return None


def _type(shape: dict[str, Any]) -> str:
    if "$ref" in shape:
        return str(shape["$ref"].rsplit("/", 1)[-1])
    # `allOf` is a description beside a `$ref`.
    if alternatives := shape.get("oneOf") or shape.get("anyOf") or shape.get("allOf"):
        return " | ".join(_type(one) for one in alternatives)
    if "enum" in shape:
        return str(shape.get("title") or " | ".join(map(str, shape["enum"])))
    if "prefixItems" in shape:
        return f"[{', '.join(_type(one) for one in shape['prefixItems'])}]"
    if shape.get("type") == "array":
        return f"list of {_type(shape['items'])}"
    return " ".join(str(shape[key]) for key in ("type", "format") if key in shape)


CREATE_NOTHING = {
    # A token is no row.
    "POST /api/v1/jobs/{job_id}/stream-token",
    "POST /api/v1/events/stream-token",
    # These change a thing that the URL names; a repetition changes nothing.
    "POST /api/v1/jobs/{job_id}/cancel",
    "POST /api/v1/jobs/{job_id}/retry",
    "POST /api/v1/batches/{batch_id}/pause",
    "POST /api/v1/batches/{batch_id}/resume",
    "POST /api/v1/batches/{batch_id}/cancel",
    "POST /api/v1/deliveries/{delivery_id}/resend",
    "POST /api/v1/webhooks/{webhook_id}/enable",
}


def test_every_post_that_creates_takes_an_idempotency_key(description: dict[str, Any]) -> None:
    without_key = {
        name
        for name, operation in operations_of(description).items()
        if name.startswith("POST ")
        and "Idempotency-Key" not in {each["name"] for each in operation.get("parameters", [])}
    }
    assert without_key == CREATE_NOTHING
