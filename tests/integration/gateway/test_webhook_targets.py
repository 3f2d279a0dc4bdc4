"""One rule decides about the URLs of webhooks and of callbacks, with the same words."""

import pytest

from schemas.policy.webhook_urls import URL_MAX
from tests.integration.gateway.api import Api
from tests.webhook_urls import ACCEPTED, REFUSED

pytestmark = pytest.mark.anyio

SUBSCRIBED = ["upload.stored"]


async def test_webhooks_and_callbacks_refuse_the_same_urls_with_the_broken_rule(api: Api) -> None:
    for url, rule in REFUSED:
        if len(url) > URL_MAX:
            continue  # the schema's own limit, which both fields have
        answers = [
            await api.ask("POST", "/webhooks", json={"url": url, "event_types": SUBSCRIBED}),
            await api.create(size=5, callback_url=url),
        ]
        for answer in answers:
            assert answer.status_code == 422, url
            assert answer.json()["code"] == "webhook_url_refused"
            assert rule in answer.json()["detail"], url
        assert answers[0].json()["detail"] == answers[1].json()["detail"]


async def test_webhooks_and_callbacks_accept_the_same_urls(api: Api) -> None:
    for url in ACCEPTED:
        if len(url) > URL_MAX:
            continue
        registered = await api.ask(
            "POST", "/webhooks", json={"url": url, "event_types": SUBSCRIBED}
        )
        assert registered.status_code == 201, url
        assert (await api.create(size=5, callback_url=url)).status_code == 201, url
