"""The answer of a receiver decides the outcome of an attempt."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import psutil
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from notifier.delivery import attempt
from notifier.delivery.attempt import AttemptResult
from notifier.delivery.outcome import AttemptOutcome
from notifier.http.errors import RequestRefused
from tests.fakes import replies
from tests.fakes.receiver import Receiver
from tests.integration.http.conftest import BODY, EXCERPT, SECRET, FixedResolver, a_sender

pytestmark = pytest.mark.anyio

GIB = 1024**3
MIB = 1024**2


async def test_the_signed_body_arrives_unchanged(receiver: Receiver) -> None:
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    [received] = receiver.wait_for(1)
    assert received.body == BODY
    assert received.verified_with(SECRET)["type"] == "document.ingested"
    assert result.outcome is AttemptOutcome.DELIVERED
    assert result.status_code == 204
    assert result.error is None
    assert result.remote_address == "127.0.0.1"
    assert timedelta(0) < result.duration < timedelta(seconds=5)
    assert int(received.headers["webhook-timestamp"]) == int(result.started_at.timestamp())


async def test_a_request_has_the_delivery_headers(receiver: Receiver) -> None:
    async with a_sender() as sender:
        await sender.post(receiver.url_of("/hook?token=a%20b"))
    [received] = receiver.received
    assert (received.method, received.path) == ("POST", "/hook?token=a%20b")
    assert received.headers["user-agent"].startswith("Waybill")
    assert received.headers["content-type"] == "application/cloudevents+json"
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_a_result_has_the_headers_as_sent(receiver: Receiver) -> None:
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    [received] = receiver.received
    assert result.request_headers == received.headers


async def test_a_result_has_the_time_of_each_phase(receiver: Receiver) -> None:
    delay = timedelta(seconds=0.2)
    receiver.answer_with(replies.late(delay, replies.status(204)))
    async with a_sender(resolve=FixedResolver({"receiver.example": [["127.0.0.1"]]})) as sender:
        url = receiver.url_of("/hook", host="receiver.example")
        first, second = [await sender.post(url) for _ in range(2)]
    for result in (first, second):
        assert result.timings.first_byte is not None
        assert 0.9 * delay < result.timings.first_byte <= result.duration
        assert result.timings.tls is None
    assert first.timings.dns is not None
    assert first.timings.connect is not None
    assert first.timings.dns + first.timings.connect < first.duration
    # An open connection needs neither.
    assert (second.timings.dns, second.timings.connect) == (None, None)


@pytest.mark.parametrize(
    "headers",
    [{"x": "a\r\nx-injected: 1"}, {"x": "a\nb"}, {"x": "a\x00"}, {"x\r\ny": "a"}, {"Host": "x"}],
)
async def test_a_header_that_could_change_the_request_is_not_sent(
    receiver: Receiver, headers: dict[str, str]
) -> None:
    async with a_sender() as sender:
        with pytest.raises(RequestRefused):
            await attempt.post(
                sender.client,
                url=receiver.url,
                headers=headers,
                body=BODY,
                started_at=datetime.now(UTC),
                timeout=timedelta(seconds=10),
                response_max=EXCERPT,
            )
    assert receiver.received == []


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (200, AttemptOutcome.DELIVERED),
        (410, AttemptOutcome.GONE),
        (400, AttemptOutcome.REJECTED),
        (500, AttemptOutcome.REJECTED),
        (599, AttemptOutcome.REJECTED),
    ],
)
async def test_the_status_code_decides_the_outcome(
    receiver: Receiver, code: int, outcome: AttemptOutcome
) -> None:
    receiver.answer_with(replies.status(code, body=b"because"))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert (result.outcome, result.status_code) == (outcome, code)
    assert result.response_excerpt == "because"


@pytest.mark.parametrize("code", [429, 503])
async def test_retry_after_in_seconds_is_read(receiver: Receiver, code: int) -> None:
    receiver.answer_with(replies.status(code, headers={"Retry-After": "120"}))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert result.outcome is AttemptOutcome.THROTTLED
    assert result.retry_after == timedelta(minutes=2)


async def test_retry_after_as_a_date_is_read(receiver: Receiver) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=2), usegmt=True)
    receiver.answer_with(replies.status(503, headers={"Retry-After": date}))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert result.retry_after is not None
    assert timedelta(seconds=110) < result.retry_after <= timedelta(seconds=120)


@pytest.mark.parametrize("code", [301, 400, 413, 500])
async def test_retry_after_of_every_failure_is_read(receiver: Receiver, code: int) -> None:
    receiver.answer_with(replies.status(code, headers={"Retry-After": "120"}))
    async with a_sender() as sender:
        assert (await sender.post(receiver.url)).retry_after == timedelta(minutes=2)


async def test_retry_after_of_a_success_is_ignored(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(200, headers={"Retry-After": "120"}))
    async with a_sender() as sender:
        assert (await sender.post(receiver.url)).retry_after is None


async def test_the_longest_of_several_retry_after_lines_is_read(receiver: Receiver) -> None:
    lines = b"retry-after: 60\r\nretry-after: 120\r\nretry-after: 99999999999999\r\nretry-after: x"
    receiver.answer_with(
        replies.raw(b"HTTP/1.1 503 x\r\n" + lines + b"\r\ncontent-length: 0\r\n\r\n")
    )
    async with a_sender() as sender:
        assert (await sender.post(receiver.url)).retry_after == timedelta(hours=24)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(receiver: Receiver, code: int) -> None:
    with Receiver() as elsewhere:
        receiver.answer_with(replies.redirect(elsewhere.url, code=code))
        async with a_sender() as sender:
            result = await sender.post(receiver.url)
        assert elsewhere.received == []
    assert (result.outcome, result.status_code) == (AttemptOutcome.REDIRECTED, code)


@pytest.mark.parametrize(
    "location", ["http://[", "http://a:99999999/", "\xff\xfe", "//", "http://"]
)
async def test_a_redirect_with_an_invalid_location_is_a_redirect(
    receiver: Receiver, location: str
) -> None:
    receiver.answer_with(replies.redirect(location))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert (result.outcome, result.status_code) == (AttemptOutcome.REDIRECTED, 308)


async def test_cookies_are_not_kept(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(204, headers={"Set-Cookie": "a=b; Path=/"}))
    async with a_sender() as sender:
        await sender.post(receiver.url)
        await sender.post(receiver.url)
    assert all("cookie" not in received.headers for received in receiver.received)


async def test_a_proxy_in_the_environment_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as proxy:
        for variable in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
            monkeypatch.setenv(variable, proxy.url)
        async with a_sender() as sender:
            await sender.post(receiver.url)
        assert proxy.received == []
    assert len(receiver.received) == 1


async def test_a_huge_answer_is_truncated_and_its_connection_closed(receiver: Receiver) -> None:
    receiver.answer_with(replies.huge(10 * GIB))
    async with a_sender() as sender:
        before = psutil.Process().memory_info().rss
        results = [await sender.post(receiver.url) for _ in range(5)]
        grown = psutil.Process().memory_info().rss - before
    for result in results:
        assert result.outcome is AttemptOutcome.DELIVERED
        assert result.error is None
        assert len(result.response_excerpt) == EXCERPT
        assert result.duration < timedelta(seconds=5)
    assert grown < 10 * MIB
    await asyncio.to_thread(receiver.wait_until_open, 0)


async def test_an_answer_of_the_maximum_size_is_read_whole(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(200, body=b"z" * EXCERPT))
    async with a_sender() as sender:
        first, second = [await sender.post(receiver.url) for _ in range(2)]
    assert first.response_excerpt == "z" * EXCERPT
    assert second.reused_connection


async def test_a_gzip_bomb_is_not_decompressed(receiver: Receiver) -> None:
    receiver.answer_with(replies.gzip_bomb(256 * MIB))
    async with a_sender() as sender:
        before = psutil.Process().memory_info().rss
        result = await sender.post(receiver.url)
        grown = psutil.Process().memory_info().rss - before
    assert result.outcome is AttemptOutcome.DELIVERED
    assert len(result.response_excerpt) <= EXCERPT
    assert grown < 10 * MIB


async def test_an_excerpt_can_be_stored_and_printed(receiver: Receiver) -> None:
    receiver.answer_with(
        replies.status(500, body=b"caf\xc3\xa9\n\x00\xff\xfe\x1b[2J\xed\xa0\x80 end")
    )
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    excerpt = result.response_excerpt
    assert excerpt.startswith("café\n")
    assert excerpt.endswith(" end")
    assert "\x00" not in excerpt
    assert "\x1b" not in excerpt
    assert excerpt.encode()


async def test_a_truncated_character_is_removed(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(200, body=b"z" + "é".encode() * EXCERPT))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert result.response_excerpt == "z" + "é" * (EXCERPT // 2 - 1)


async def test_an_answer_may_have_a_thousand_headers(receiver: Receiver) -> None:
    receiver.answer_with(replies.status(200, headers={f"x-{n}": "y" * 20 for n in range(1000)}))
    async with a_sender() as sender:
        assert (await sender.post(receiver.url)).outcome is AttemptOutcome.DELIVERED


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(200, AttemptOutcome.DELIVERED), (410, AttemptOutcome.GONE), (500, AttemptOutcome.REJECTED)],
)
async def test_the_status_decides_if_the_headers_are_too_long(
    receiver: Receiver, code: int, outcome: AttemptOutcome
) -> None:
    receiver.answer_with(replies.status(code, headers={"x-long": "y" * 500_000}))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
        await asyncio.to_thread(receiver.wait_until_open, 0)
    assert (result.outcome, result.status_code) == (outcome, code)
    assert result.error == "the head of the answer is longer than 64 KiB"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"\x00" * 100,
        b"SSH-2.0-OpenSSH_9.7\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: \x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"z" * 1000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_a_protocol_error(
    receiver: Receiver, answer: bytes
) -> None:
    receiver.answer_with(replies.raw(answer))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert result.outcome is AttemptOutcome.PROTOCOL_ERROR
    assert result.status_code is None
    assert result.error
    assert len(result.error) <= attempt.ERROR_MAX
    assert result.remote_address == "127.0.0.1"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npartial",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\npartial\r\nzzz\r\n",
    ],
)
async def test_a_2xx_with_an_incomplete_body_is_a_delivery(
    receiver: Receiver, answer: bytes
) -> None:
    receiver.answer_with(replies.raw(answer))
    async with a_sender() as sender:
        result = await sender.post(receiver.url)
    assert (result.outcome, result.status_code) == (AttemptOutcome.DELIVERED, 200)
    assert result.response_excerpt == "partial"
    assert result.error is not None
    assert "reading the response" in result.error


async def test_switching_protocols_is_a_failed_attempt(receiver: Receiver) -> None:
    switch = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
    receiver.answer_with(replies.raw(switch))
    async with a_sender() as sender:
        assert (await sender.post(receiver.url)).outcome in {
            AttemptOutcome.REJECTED,
            AttemptOutcome.PROTOCOL_ERROR,
        }


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nOK",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOKHTTP/1.1 410 x\r\ncontent-length: 2\r\n\r\nOK",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\nHTTP/1.1 410 x\r\n\r\n",
    ],
)
async def test_extra_bytes_after_an_answer_are_not_the_next_answer(
    receiver: Receiver, answer: bytes
) -> None:
    receiver.answer_with(replies.stuffed(answer), replies.status(500))
    async with a_sender() as sender:
        first, second = [await sender.post(receiver.url) for _ in range(2)]
    assert first.outcome is AttemptOutcome.DELIVERED
    assert second.status_code == 500
    assert not second.reused_connection


async def test_a_connection_is_reused_after_a_chunked_answer(receiver: Receiver) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"
    receiver.answer_with(replies.stuffed(chunked))
    async with a_sender() as sender:
        first, second = [await sender.post(receiver.url) for _ in range(2)]
    assert (first.response_excerpt, second.response_excerpt) == ("OK", "OK")
    assert second.reused_connection


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(head=b"HTTP/1.1 200 OK\r\n\r\n", rest=b"\x00\xff")
@given(
    head=st.sampled_from(
        [
            b"",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 500 \r\nx: ",
            b"HTTP/1.1 429 x\r\nretry-after: ",
            b"HTTP/1.1 302 x\r\nlocation: ",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
        ]
    ),
    rest=st.binary(max_size=200),
)
def test_any_bytes_sent_as_an_answer_give_a_result(
    receiver: Receiver, head: bytes, rest: bytes
) -> None:
    async def deliver() -> AttemptResult:
        # A context without authorities, because to read them takes most of the time.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with a_sender(resolve=FixedResolver(), ssl_context=context) as sender:
            return await sender.post(receiver.url)

    receiver.answer_with(replies.raw(head + rest))
    result = asyncio.run(deliver())
    assert "\x00" not in result.response_excerpt + (result.error or "")
    assert result.response_excerpt.encode() is not None
