"""Builds docs/receiving-webhooks.md from `page.md`: `[[name]]` stands for a value or a program."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from dev.stack.checkout import CHECKOUT
from notifier.delivery.pacing import FIRST_PAUSE, PAUSE_MAX
from notifier.delivery.settlement import FAILURES_MIN, REFUSALS
from schemas import topology
from schemas.api.webhooks import OVERLAP_MAX
from schemas.events import catalogue
from schemas.events.envelope import CONTENT_TYPE, MAX_BYTES, encode
from schemas.events.examples import example_envelope
from schemas.policy import webhook_signing
from schemas.policy.retry_schedule import RETRY_AFTER_MAX
from schemas.policy.webhook_secrets import KEY_SIZES, public_key
from schemas.settings import DeliverySettings, WebhookSettings

PAGE: Final = CHECKOUT / "docs" / "receiving-webhooks.md"
TEXT: Final = Path(__file__).with_name("page.md")
SNIPPETS: Final = Path(__file__).with_name("snippets")

NOTICE: Final = (
    "<!-- Written by `python -m dev.receiving` from dev/receiving, schemas/events and "
    "schemas/settings.py; edit those. -->"
)

# Published by Standard Webhooks and by svix.
VECTOR_SECRET: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  # a published test vector
VECTOR_PRIVATE_KEY: Final = (
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)
VECTOR_ID: Final = "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR_TIMESTAMP: Final = 1614265330
VECTOR_BODY: Final = '{"test": 2432232314}'

_PLACEHOLDER: Final = re.compile(r"\[\[([a-z0-9_.]+)\]\]")
_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {"uuid": "UUID", "date-time": "RFC 3339 time", "uri-reference": "URI path"}
)
_TYPES: Final[Mapping[str, str]] = MappingProxyType({"string": "text"})
LANGUAGES: Final = {".py": "python", ".mjs": "js", ".go": "go", ".sh": "sh"}


def page() -> str:
    """Return the whole of docs/receiving-webhooks.md."""
    return _PLACEHOLDER.sub(lambda found: _value(found[1]), TEXT.read_text())


def _value(name: str) -> str:
    if name in VALUES:
        return VALUES[name]()
    snippet = SNIPPETS / name
    return f"```{LANGUAGES[snippet.suffix]}\n{snippet.read_text()}```"


def schedule() -> str:
    """Return the table of the attempts of a delivery."""
    rows = [
        "| attempt | after the previous attempt | after the first attempt |",
        "| --- | --- | --- |",
    ]
    total = timedelta(0)
    rows.append("| 1 | | |")
    for number, delay in enumerate(_delays(), start=2):
        total += delay
        rows.append(f"| {number} | {_span(delay)} | {_span(total)} |")
    return "\n".join(rows)


def attributes() -> str:
    """Return the table of the CloudEvents attributes."""
    of_all = catalogue.schema_of("ping")["properties"]
    shapes = {name: shape for name, shape in of_all.items() if name != "data"}
    # The schema of one event fixes its type.
    shapes["type"] = {"type": "string", "description": shapes["type"]["description"]}
    return _table("attribute", shapes)


def events() -> str:
    """Return the section of each event."""
    return "\n\n".join(_event(event_type) for event_type in topology.DELIVERED)


def _event(event_type: str) -> str:
    data = catalogue.schema_of(event_type)["properties"]["data"]["properties"]
    example = json.dumps(
        json.loads(encode(example_envelope(event_type))), indent=2, ensure_ascii=False
    )
    return "\n".join(
        [
            f"### `{event_type}`",
            "",
            catalogue.description_of(event_type),
            "",
            _table("field of `data`", data),
            "",
            "```json",
            example,
            "```",
        ]
    )


def _table(title: str, shapes: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        f"| `{name}` | {_type(shape)} | {shape.get('description', '')} |"
        for name, shape in shapes.items()
    ]
    return "\n".join([f"| {title} | type | meaning |", "| --- | --- | --- |", *rows])


def _type(shape: Mapping[str, Any]) -> str:
    """Return the type of a JSON value in words."""
    if "anyOf" in shape:
        return " or ".join(map(_type, shape["anyOf"]))
    if "const" in shape:
        return f"`{shape['const']}`"
    if "enum" in shape:
        return f"[{shape['title'].lower()}]({shape['title'].lower()}s.md)"
    if shape["type"] == "array":
        return f"list of {shape['items'].get('title', 'values').lower()}s"
    return _FORMATS.get(shape.get("format", ""), _TYPES.get(shape["type"], shape["type"]))


def _delays() -> tuple[timedelta, ...]:
    delays: tuple[timedelta, ...] = _default("webhook_retry_delays")
    return delays


def _default(setting: str, *, of: type[BaseModel] = DeliverySettings) -> Any:  # noqa: ANN401  # of any type
    return of.model_fields[setting].default


def _span(length: timedelta) -> str:
    """Return a length of time as people write it: `5 min`, `2 h 35 min`."""
    minutes, seconds = divmod(int(length.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


def _vector_signature(secret: str) -> str:
    headers = webhook_signing.sign(
        webhook_signing.parse(secret),
        message_id=VECTOR_ID,
        timestamp=datetime.fromtimestamp(VECTOR_TIMESTAMP, UTC),
        body=VECTOR_BODY.encode(),
    )
    return headers["webhook-signature"]


VALUES: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {
        "notice": lambda: NOTICE,
        "content_type": lambda: CONTENT_TYPE,
        "max_bytes": lambda: f"{MAX_BYTES // 1024} KiB",
        "key_sizes": lambda: f"{KEY_SIZES[0]} to {KEY_SIZES[-1]}",
        "vector_secret": lambda: VECTOR_SECRET,
        "vector_id": lambda: VECTOR_ID,
        "vector_timestamp": lambda: str(VECTOR_TIMESTAMP),
        "vector_body": lambda: VECTOR_BODY,
        "vector_signature": lambda: _vector_signature(VECTOR_SECRET),
        "vector_public_key": lambda: public_key(VECTOR_PRIVATE_KEY),
        "vector_v1a_signature": lambda: _vector_signature(VECTOR_PRIVATE_KEY),
        "schedule": schedule,
        "schedule_span": lambda: _span(sum(_delays(), timedelta(0))),
        "refusals": lambda: ", ".join(str(int(each)) for each in sorted(REFUSALS)),
        "permanent_attempts": lambda: str(_default("webhook_permanent_attempts")),
        "permanent_span": lambda: _span(
            sum(_delays()[: _default("webhook_permanent_attempts") - 1], timedelta(0))
        ),
        "first_pause": lambda: _span(timedelta(seconds=FIRST_PAUSE)),
        "pause_max": lambda: _span(timedelta(seconds=PAUSE_MAX)),
        "disable_after": lambda: f"{_default('webhook_disable_after').days} days",
        "failures_min": lambda: str(FAILURES_MIN),
        "secret_overlap": lambda: _span(_default("webhook_secret_overlap", of=WebhookSettings)),
        "overlap_max": lambda: f"{OVERLAP_MAX // 86_400} days",
        "webhook_timeout": lambda: _span(_default("webhook_timeout")),
        "retry_after_max": lambda: _span(RETRY_AFTER_MAX),
        "response_max": lambda: f"{_default('webhook_response_max') // 1024} KiB",
        "attributes": attributes,
        "events": events,
    }
)


def write(file: Path = PAGE) -> None:
    file.write_text(page())
