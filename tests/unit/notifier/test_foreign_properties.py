"""What a publisher may write into the properties of a message."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp import frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from notifier import foreign_properties

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def tolerant() -> None:
    foreign_properties.tolerate()


def received(properties: Basic.Properties, *, written: bytes = b"", instead: bytes = b"") -> Any:  # noqa: ANN401  # pamqp's properties
    """Return the properties as a consumer gets them, after some of their bytes were replaced."""
    sent = frame.marshal(ContentHeader(body_size=1, properties=properties), 1)
    assert written in sent
    _, _, header = frame.unmarshal(sent.replace(written, instead) if written else sent)
    assert isinstance(header, ContentHeader)
    return header.properties


def test_valid_properties_are_unchanged() -> None:
    found = received(
        Basic.Properties(message_id="é", timestamp=AT, headers={"a": {"b": 1}}, app_id="z")
    )
    assert (found.message_id, found.timestamp, found.app_id) == ("é", AT, "z")
    assert found.headers == {"a": {"b": 1}}


def test_text_that_is_not_utf8_is_replaced() -> None:
    found = received(
        Basic.Properties(message_id="1234", app_id="z"), written=b"1234", instead=b"1\xff34"
    )
    assert (found.message_id, found.app_id) == ("1\ufffd34", "z")


def test_a_time_out_of_range_is_left_out() -> None:
    at = int(AT.timestamp()).to_bytes(8)
    found = received(Basic.Properties(timestamp=AT, app_id="z"), written=at, instead=b"\x7f" * 8)
    assert (found.timestamp, found.app_id) == (None, "z")


def test_undecodable_headers_become_one_header() -> None:
    found = received(
        Basic.Properties(headers={"1234": "x"}, app_id="z"), written=b"1234", instead=b"1\xff34"
    )
    table = b"\x041\xff34S\x00\x00\x00\x01x"
    assert found.headers == {"undecodable": table.hex()}
    assert found.app_id == "z"
