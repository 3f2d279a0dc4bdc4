"""Every event has one example."""

import msgspec
import pytest

from schemas.events.envelope import EVENT_TYPES, decode, encode
from schemas.events.examples import example_envelope, example_of


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_event_has_an_example_of_its_type(event_type: str) -> None:
    assert type(example_of(event_type)) is EVENT_TYPES[event_type]


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_an_example_is_valid(event_type: str) -> None:
    # The constructor of a struct checks no types; decoding does.
    event = example_of(event_type)
    assert msgspec.json.decode(msgspec.json.encode(event), type=type(event), strict=True) == event
    envelope = example_envelope(event_type)
    assert decode(encode(envelope)) == envelope


def test_the_examples_have_different_ids() -> None:
    assert len({example_envelope(event_type).id for event_type in EVENT_TYPES}) == len(EVENT_TYPES)


def test_the_id_of_an_example_holds_its_time() -> None:
    envelope = example_envelope("upload.stored")
    assert envelope.id.version == 7
    assert envelope.id.int >> 80 == int(envelope.time.timestamp() * 1000)


def test_there_is_no_example_of_an_unknown_event() -> None:
    with pytest.raises(KeyError):
        example_of("upload.exploded")
