"""`waybill listen` with answers and settings of which no event comes."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from click.testing import CliRunner

from gateway.administration import listen
from gateway.administration.cli import main
from schemas.policy import webhook_secrets, webhook_signing
from schemas.policy.webhook_secrets import SecretKind


def answering(answer: httpx.Response) -> httpx.AsyncClient:
    """Return a client of a server that is no gateway."""
    return httpx.AsyncClient(
        transport=httpx.MockTransport(lambda _: answer), base_url="http://waybill.example"
    )


@pytest.mark.anyio
@pytest.mark.parametrize("body", [b"<html>", b"", b'{"items": []}'], ids=["html", "empty", "json"])
async def test_an_answer_that_is_not_the_feed_ends_the_command(body: bytes) -> None:
    async with answering(httpx.Response(200, content=body)) as client:
        feed = listen.Feed(client=client, types=(), report=print, pauses=(timedelta(),))
        with pytest.raises(listen.ListenFailed, match=r"waybill\.example is not a page"):
            await feed.end()


@pytest.mark.anyio
async def test_an_answer_of_the_local_server_that_cannot_be_decoded_is_reported() -> None:
    broken = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Broken())
    async with answering(broken) as client:
        forwarded = await listen.forward(
            b'{"id": "1", "type": "upload.stored"}',
            to="http://127.0.0.1/",
            client=client,
            secret=webhook_signing.parse(webhook_secrets.generate(SecretKind.V1)),
        )

    assert forwarded.status is None
    assert forwarded.error


class Broken(httpx.AsyncByteStream):
    """A body that is said to be gzip, and is not."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"plain text"


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("localhost:8000", "wb_a"),
        ("ftp://waybill.example", "wb_a"),
        ("http://", "wb_a"),
        ("http://[", "wb_a"),
        ("http://waybill.example:99999", "wb_a"),
        ("http://waybill.example", "wb_ü"),
        ("http://waybill.example", "wb_a\n"),
    ],
)
def test_a_url_or_key_that_no_request_can_have_is_refused(url: str, key: str) -> None:
    result = CliRunner().invoke(main, ["listen", "9", "--url", url, "--api-key", key])

    assert result.exit_code == 2, result.output
    assert "wb_" not in result.output
