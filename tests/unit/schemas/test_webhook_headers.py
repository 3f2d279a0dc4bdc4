from uuid import UUID

import pytest

from schemas.ids import WebhookId
from schemas.key_ring import KeyMissing, KeyRing, TokenDamaged
from schemas.policy import webhook_headers
from schemas.policy.webhook_headers import COUNT_MAX, VALUE_MAX, Header, HeaderRefused
from tests.factories.secret_keys import KEYS, OTHER_KEY

ROW, OTHER_ROW = WebhookId(UUID(int=1)), WebhookId(UUID(int=2))
HEADERS = (
    Header(name="X-Team", value="billing", sensitive=False),
    Header(name="Authorization", value="Basic aHVudGVyMg=="),
)


def test_headers_are_encrypted_for_their_row() -> None:
    stored = webhook_headers.encrypt(HEADERS, webhook_id=ROW, keys=KEYS)

    assert stored is not None
    assert "billing" not in stored
    assert webhook_headers.decrypt(stored, webhook_id=ROW, keys=KEYS) == HEADERS
    with pytest.raises(TokenDamaged):
        webhook_headers.decrypt(stored, webhook_id=OTHER_ROW, keys=KEYS)
    with pytest.raises(KeyMissing):
        webhook_headers.decrypt(stored, webhook_id=ROW, keys=KeyRing.parse(OTHER_KEY))


def test_no_headers_are_stored_as_null() -> None:
    assert webhook_headers.encrypt((), webhook_id=ROW, keys=KEYS) is None
    assert webhook_headers.decrypt(None, webhook_id=ROW, keys=KEYS) == ()


def test_only_the_values_of_sensitive_headers_are_redacted() -> None:
    redacted = {header.name: header.value for header in webhook_headers.redact(HEADERS)}

    assert redacted == {"X-Team": "billing", "Authorization": "***"}


def test_a_header_is_sensitive_unless_it_says_otherwise() -> None:
    assert Header(name="a", value="b").sensitive


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "host", "Content-Type", "Content-Length", "CONNECTION", "Transfer-Encoding"),
        *("TE", "Trailer", "Upgrade", "Expect", "User-Agent", "Accept-Encoding", "Via", "Date"),
        *("webhook-id", "Webhook-Signature", "webhook-anything", "traceparent", "tracestate"),
        *("Forwarded", "X-Forwarded-For", "X-Real-IP", "Proxy-Authorization", "Keep-Alive"),
        *("Metadata", "Metadata-Flavor", "X-aws-ec2-metadata-token", "X-Google-Metadata-Request"),
    ],
)
def test_a_reserved_name_is_refused(name: str) -> None:
    with pytest.raises(HeaderRefused, match="reserved") as refusal:
        webhook_headers.check([HEADERS[0], Header(name=name, value="a")])
    assert refusal.value.index == 1


@pytest.mark.parametrize(
    "name", ["", "a b", "a:", "a\r\nb", "ü", "(a)", "a" * 129], ids=lambda name: ascii(name)[:20]
)
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(HeaderRefused, match="token"):
        webhook_headers.check([Header(name=name, value="a")])


@pytest.mark.parametrize(
    "value",
    ["", " ", " a", "a ", "a\r\nX-B: b", "a\nb", "a\x00b", "ü", "a" * (VALUE_MAX + 1)],
    ids=lambda value: ascii(value)[:20],
)
def test_a_value_that_could_change_the_request_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(HeaderRefused) as refusal:
        webhook_headers.check([Header(name="X-A", value=value)])
    assert str(refusal.value) == (
        "the value is not 1 to 4096 printable ASCII characters without white space around them"
    )


def test_a_repeated_name_is_refused_in_any_case() -> None:
    with pytest.raises(HeaderRefused, match="repeated"):
        webhook_headers.check([Header(name="X-A", value="a"), Header(name="x-a", value="b")])


def test_number_and_bytes_of_headers_are_bounded() -> None:
    most = [Header(name=f"X-{index}", value="a") for index in range(COUNT_MAX)]
    webhook_headers.check(most)
    with pytest.raises(HeaderRefused, match="more than 16"):
        webhook_headers.check([*most, Header(name="X-A", value="a")])

    long = [Header(name=name, value="a" * VALUE_MAX) for name in ("X-A", "X-B")]
    webhook_headers.check(long[:1])
    with pytest.raises(HeaderRefused, match="bytes"):
        webhook_headers.check(long)


@pytest.mark.parametrize("value", ["a", "a b", "a\tb", "~", "Bearer eyJh.bGci=="])
def test_ordinary_values_are_accepted(value: str) -> None:
    webhook_headers.check([Header(name="Authorization", value=value)])
