"""The description of the bus: valid AsyncAPI, complete, and up to date."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dev import asyncapi
from schemas import topology
from schemas.events.endpoints import Ping
from schemas.events.envelope import EVENT_TYPES

SPECIFICATION = Path(__file__).parent / "asyncapi-3.0.0.json"

Node = dict[str, Any]


@pytest.fixture(scope="module")
def specification() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(SPECIFICATION.read_text()))


@pytest.fixture(scope="module")
def document() -> Node:
    described: Node = yaml.safe_load(asyncapi.FILE.read_text())
    return described


def test_the_file_is_up_to_date() -> None:
    stale = "docs/asyncapi.yaml is stale: run `python -m dev.asyncapi`"

    assert asyncapi.FILE.read_text() == asyncapi.page(), stale


def test_the_document_follows_the_official_schema(
    specification: jsonschema.Draft7Validator, document: Node
) -> None:
    specification.validate(document)


@pytest.mark.parametrize(
    "damage",
    [
        {"asyncapi": "2.6.0"},
        {"info": {"title": "without a version"}},
        {
            "operations": {
                "publish": {"action": "publish", "channel": {"$ref": "#/channels/notify"}}
            }
        },
        {"channels": {"notify": {"bindings": {"amqp": {"is": "exchange"}}}}},
        {"channels": {"notify": {"messages": {"ping": {"payload": {"type": "no type"}}}}}},
    ],
    ids=["version", "info", "action", "binding", "payload"],
)
def test_the_official_schema_refuses_a_damaged_document(
    specification: jsonschema.Draft7Validator, document: Node, damage: Node
) -> None:
    assert not specification.is_valid(document | damage)


def test_every_reference_has_a_target(document: Node) -> None:
    references = list(references_in(document))

    assert len(references) > len(EVENT_TYPES)
    for reference in references:
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_the_messages_of_an_operation_are_messages_of_its_channel(document: Node) -> None:
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/")


def test_every_queue_exchange_and_binding_is_described(document: Node) -> None:
    bindings = [channel["bindings"]["amqp"] for channel in document["channels"].values()]
    described_queues = [each for each in bindings if each["is"] == "queue"]

    assert {each["queue"]["name"]: each["x-arguments"] for each in described_queues} == {
        queue.name: dict(queue.arguments) for queue in topology.QUEUES
    }
    routed = {
        (each["exchange"], queue["queue"]["name"], each["routingKey"])
        for queue in described_queues
        for each in queue["x-bindings"]
    }
    assert routed == {(each.exchange, each.queue, each.routing_key) for each in topology.BINDINGS}
    described = {each["exchange"]["name"] for each in bindings if each["is"] == "routingKey"}
    assert described | {exchange for exchange, _, _ in routed} == {
        exchange.name for exchange in topology.EXCHANGES
    }


def test_every_event_except_a_ping_is_a_message(document: Node) -> None:
    messages = document["components"]["messages"].keys() - {asyncapi.PERIODIC}
    assert messages == EVENT_TYPES.keys() - {Ping.TYPE}


def test_every_fact_is_sent_with_its_type_as_routing_key(document: Node) -> None:
    facts = {each for each in EVENT_TYPES if topology.is_published(each)}
    sent = {
        channel["address"]: list(channel["messages"])
        for channel in document["channels"].values()
        if channel["bindings"]["amqp"]["is"] == "routingKey"
    }
    assert sent == {fact: [fact] for fact in facts}


def test_every_example_of_a_message_is_valid(document: Node) -> None:
    for message in document["components"]["messages"].values():
        for example in message.get("examples", ()):
            jsonschema.Draft7Validator(message["headers"]).validate(example["headers"])
            validator = jsonschema.Draft7Validator(
                message["payload"], format_checker=jsonschema.FormatChecker()
            )
            validator.validate(example["payload"])


def test_a_page_range_is_a_pair_in_draft_07_too(document: Node) -> None:
    payload = document["components"]["messages"]["document.ingested"]["payload"]
    reasons = payload["properties"]["data"]["properties"]["reasons"]
    validator = jsonschema.Draft7Validator(reasons["items"]["properties"]["pages"])

    assert validator.is_valid([[1, 2]])
    assert not any(map(validator.is_valid, ([[1]], [[1, 2, 3]], [["1", 2]])))


def references_in(node: Any) -> Iterator[str]:  # noqa: ANN401  # a JSON value
    if isinstance(node, list):
        for each in node:
            yield from references_in(each)
    elif isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for each in node.values():
            yield from references_in(each)
