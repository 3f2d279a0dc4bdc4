"""Requests to a store whose clock differs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from schemas.runtime import store_time

URL = "http://store:8080/bucket/key"
DAYS = timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class Answer:
    headers: Mapping[str, str]
    url: str = URL


@pytest.fixture(autouse=True)
def agreeing_clocks() -> Iterator[None]:
    yield
    learn(timedelta(0))


def learn(ahead: timedelta) -> None:
    date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
    store_time.learn(Answer(headers={"Date": date}))


def signed_ahead(url: str = URL) -> timedelta:
    """Return how far the time of a signature is ahead of this process."""
    request = AWSRequest(method="GET", url=url)
    store_time.StoreTimeAuth(Credentials("id", "key"), "s3", "us-east-1").add_auth(request)
    return datetime.fromisoformat(request.headers["X-Amz-Date"]) - datetime.now(UTC)


@pytest.mark.parametrize("ahead", [DAYS, -DAYS], ids=["ahead", "behind"])
def test_requests_are_signed_with_the_time_of_their_store(ahead: timedelta) -> None:
    learn(ahead)
    assert abs(signed_ahead() - ahead) < timedelta(seconds=5)
    assert abs(signed_ahead("http://other:8080/")) < timedelta(seconds=5)
    learn(timedelta(0))
    assert abs(signed_ahead()) < timedelta(seconds=5)


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 27 Nov 2026 12:00:00"])
def test_an_answer_without_a_date_changes_nothing(date: str) -> None:
    learn(DAYS)
    store_time.learn(Answer(headers={"Date": date} if date else {}))
    assert signed_ahead() > timedelta(days=1)
