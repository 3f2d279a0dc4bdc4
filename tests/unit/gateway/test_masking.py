import json

import pytest

from gateway.administration import masking


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"Authorization": "Basic abc", "n": 1}, {"Authorization": "***", "n": 1}),
        ({"data": [{"api_key": {"a": 1}}, "a"]}, {"data": [{"api_key": "***"}, "a"]}),
        ("key wb_abc and whsec_abc+/=", "key *** and ***"),
        ("whsk_abc+/= of whpk_abc=", "*** of whpk_abc="),
        ("amqp://user:pass@host/vhost", "amqp://***@host/vhost"),
        ("Bearer abc", "Bearer ***"),
        ("https://example.com/hook?token=abc#f", "https://example.com/hook?***"),
        ("upload.finalized", "upload.finalized"),
        (None, None),
    ],
)
def test_secrets_are_masked(value: object, shown: object) -> None:
    assert masking.masked(value) == shown


@pytest.mark.parametrize("body", [b"", b"\xff", b"[" * 60_000, b"[" + b" " * 70_000 + b"]"])
def test_a_body_that_is_not_json_or_too_large_has_no_json_value(body: bytes) -> None:
    assert masking.as_json(body) is None


def test_a_json_value_can_be_printed_as_json() -> None:
    value = masking.as_json(b'{"a": NaN, "b": "\\ud800", "c": "\\u001b"}')
    assert value is not None
    assert json.loads(json.dumps(value, allow_nan=False)) == value


def test_an_excerpt_is_short_and_printable() -> None:
    shown = masking.excerpt(b"a\x1b[2J\nwb_secret " + b"\xff" * 10_000)
    assert shown.startswith(r"a\x1b[2J\n*** ")
    assert shown.endswith("…")
    assert shown.isprintable()
    assert len(shown) <= 4 * masking.EXCERPT_MAX + 1  # an escaped byte has four characters
