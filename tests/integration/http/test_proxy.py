"""Deliveries through a proxy: it gets the checked address, and the receiver the name."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from pydantic import ValidationError

from notifier.delivery.outcome import AttemptOutcome
from schemas.settings import DeliverySettings
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.integration.http.certificates import Authority
from tests.integration.http.conftest import FixedResolver, a_sender, serving

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.216.34"
LOOPBACK = "127.0.0.1"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass
class ConnectProxy:
    """Answers every CONNECT; a tunnel leads to a port on 127.0.0.1, whatever its target."""

    answer: bytes
    target_port: int
    port: int = 0
    heads: list[str] = field(default_factory=list)

    @property
    def settings(self) -> DeliverySettings:
        return DeliverySettings(webhook_proxy=f"http://{LOOPBACK}:{self.port}")

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answer)
        if self.answer != ESTABLISHED:
            await reader.read()
            return
        onward_reader, onward = await asyncio.open_connection(LOOPBACK, self.target_port)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(pump(reader, onward))
                pumps.create_task(pump(onward_reader, writer))
        finally:
            onward.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def a_proxy(*, target_port: int, answer: bytes = ESTABLISHED) -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy(answer=answer, target_port=target_port)
    async with serving(proxy.converse) as port:
        proxy.port = port
        yield proxy


async def test_a_proxy_gets_the_checked_address_and_the_receiver_the_name(
    receiver: Receiver,
) -> None:
    names = FixedResolver({"receiver.example": [[PUBLIC]]})
    async with (
        a_proxy(target_port=receiver.port) as proxy,
        a_sender(allow_loopback=False, resolve=names, settings=proxy.settings) as sender,
    ):
        results = [await sender.post("http://receiver.example:8080/hook") for _ in range(2)]
    assert {result.outcome for result in results} == {AttemptOutcome.DELIVERED}
    assert {result.remote_address for result in results} == {PUBLIC}
    assert [result.reused_connection for result in results] == [False, True]
    assert [head.splitlines()[:2] for head in proxy.heads] == [
        [f"CONNECT {PUBLIC}:8080 HTTP/1.1", f"Host: {PUBLIC}:8080"]
    ]
    assert "receiver.example" not in proxy.heads[0]
    assert receiver.received[0].headers["host"] == "receiver.example:8080"


async def test_tls_goes_through_the_proxy_to_the_receiver(authority: Authority) -> None:
    names = FixedResolver({"receiver.example": [["2001:4860::1"]]})
    with Receiver(tls=authority.server("receiver.example")) as receiver:
        async with (
            a_proxy(target_port=receiver.port) as proxy,
            a_sender(
                allow_loopback=False,
                resolve=names,
                settings=proxy.settings,
                ssl_context=authority.client(),
            ) as sender,
        ):
            result = await sender.post("https://receiver.example/hook")
            other = await sender.post("https://[2001:4860::1]/hook")
    assert result.outcome is AttemptOutcome.DELIVERED
    assert proxy.heads[0].startswith("CONNECT [2001:4860::1]:443 HTTP/1.1\r\n")
    assert other.outcome is AttemptOutcome.TLS_FAILED


@pytest.mark.parametrize("addresses", [[LOOPBACK], [PUBLIC, "10.0.0.1"]])
async def test_a_forbidden_address_does_not_reach_the_proxy(addresses: list[str]) -> None:
    names = FixedResolver({"receiver.example": [addresses]})
    async with (
        a_proxy(target_port=1) as proxy,
        a_sender(allow_loopback=False, resolve=names, settings=proxy.settings) as sender,
    ):
        result = await sender.post("http://receiver.example/")
    assert result.outcome is AttemptOutcome.TARGET_REFUSED
    assert proxy.heads == []


async def test_the_proxy_gets_its_credentials_and_the_receiver_does_not(
    receiver: Receiver,
) -> None:
    async with a_proxy(target_port=receiver.port) as proxy:
        settings = DeliverySettings(
            webhook_proxy=f"http://{LOOPBACK}:{proxy.port}",
            webhook_proxy_credentials="user:p:ässword",
        )
        assert "ässword" not in repr(settings)
        async with a_sender(settings=settings) as sender:
            result = await sender.post(receiver.url)
    assert result.outcome is AttemptOutcome.DELIVERED
    credentials = base64.b64encode("user:p:ässword".encode()).decode()
    assert f"Proxy-Authorization: Basic {credentials}\r\n" in proxy.heads[0]
    assert "proxy-authorization" not in receiver.received[0].headers
    assert "proxy-authorization" not in result.request_headers


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "it answered 403"),
        (b"HTTP/1.1 407 x\r\n\r\n", "it answered 407"),
        (b"HTTP/1.1 502 x\r\ncontent-length: 5\r\n\r\nwhat?", "it answered 502"),
        (b"SSH-2.0-OpenSSH_9.7\r\n", "the answer is not HTTP"),
    ],
)
async def test_a_refusal_of_the_proxy_fails_the_attempt(answer: bytes, reason: str) -> None:
    async with (
        a_proxy(target_port=1, answer=answer) as proxy,
        a_sender(settings=proxy.settings) as sender,
    ):
        result = await sender.post("http://127.0.0.1:8080/")
    assert result.outcome is AttemptOutcome.UNREACHABLE
    assert result.error == f"no connection: the proxy failed: {reason}"


async def test_the_receivers_own_answer_is_not_the_proxys(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(502))
    async with (
        a_proxy(target_port=receiver.port) as proxy,
        a_sender(settings=proxy.settings) as sender,
    ):
        result = await sender.post(receiver.url)
    assert (result.outcome, result.status_code) == (AttemptOutcome.THROTTLED, 502)


async def test_a_proxy_that_is_down_fails_the_attempt(unused_port: int) -> None:
    settings = DeliverySettings(webhook_proxy=f"http://{LOOPBACK}:{unused_port}")
    async with a_sender(settings=settings) as sender:
        result = await sender.post("http://127.0.0.1:8080/")
    assert result.outcome is AttemptOutcome.UNREACHABLE


@pytest.mark.parametrize(
    "value",
    [
        "proxy:3128",
        "http://proxy",
        "https://proxy:3128",
        "http://user:hunter2@proxy:3128",
        "http://proxy:3128/path",
        "http://user:hunter2@[::1:3128",
    ],
)
def test_a_proxy_that_is_no_host_and_port_is_refused(value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DeliverySettings(webhook_proxy=value)
    assert "hunter2" not in caught.value.errors(include_input=False)[0]["msg"]
