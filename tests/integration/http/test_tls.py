"""Over https, only a receiver with a trusted certificate for its host gets an event."""

import ssl
from datetime import timedelta

import pytest

from notifier.delivery.attempt import AttemptResult
from notifier.delivery.outcome import AttemptOutcome
from tests.fakes.receiver import Receiver
from tests.integration.http.certificates import Authority
from tests.integration.http.conftest import SECRET, FixedResolver, a_sender

pytestmark = pytest.mark.anyio


async def deliver(
    *, server: ssl.SSLContext, client: ssl.SSLContext
) -> tuple[AttemptResult, Receiver]:
    names = FixedResolver({"receiver.example": [["127.0.0.1"]]})
    with Receiver(tls=server) as receiver:
        async with a_sender(resolve=names, ssl_context=client) as sender:
            result = await sender.post(receiver.url_of("/hook", host="receiver.example"))
        return result, receiver


async def test_a_certificate_for_the_host_is_accepted(authority: Authority) -> None:
    result, receiver = await deliver(
        server=authority.server("receiver.example"), client=authority.client()
    )
    assert result.outcome is AttemptOutcome.DELIVERED
    assert result.remote_address == "127.0.0.1"
    assert result.timings.tls is not None
    [received] = receiver.received
    assert received.verified_with(SECRET)


async def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    result, receiver = await deliver(
        server=authority.server("other.example"), client=authority.client()
    )
    assert result.outcome is AttemptOutcome.TLS_FAILED
    assert result.error is not None
    assert "not valid for 'receiver.example'" in result.error
    assert receiver.received == []


async def test_an_expired_certificate_is_refused(authority: Authority) -> None:
    result, receiver = await deliver(
        server=authority.server("receiver.example", expires=-timedelta(hours=1)),
        client=authority.client(),
    )
    assert result.outcome is AttemptOutcome.TLS_FAILED
    assert "expired" in (result.error or "")
    assert receiver.received == []


async def test_a_certificate_of_an_unknown_authority_is_refused(authority: Authority) -> None:
    result, receiver = await deliver(
        server=Authority().server("receiver.example"), client=authority.client()
    )
    assert result.outcome is AttemptOutcome.TLS_FAILED
    assert receiver.received == []


async def test_the_default_authorities_are_public_ones(authority: Authority) -> None:
    names = FixedResolver({"receiver.example": [["127.0.0.1"]]})
    with Receiver(tls=authority.server("receiver.example")) as receiver:
        async with a_sender(resolve=names) as sender:
            result = await sender.post(receiver.url_of("/hook", host="receiver.example"))
        assert result.outcome is AttemptOutcome.TLS_FAILED
        assert receiver.received == []
