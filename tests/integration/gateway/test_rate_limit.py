import re
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.integration.gateway.api import problem
from tests.integration.gateway.conftest import MakeKey, Serve

pytestmark = pytest.mark.anyio

BURST = 3
# One more request in 1,000 seconds: no test is slow enough to get it.
LIMITS: dict[str, Any] = {"request_rate": 0.001, "request_burst": BURST}
POLICY = f'"tenant";q={BURST};w={BURST * 1000}'


def remaining_of(answer: httpx.Response) -> int:
    assert answer.headers["ratelimit-policy"] == POLICY
    found = re.fullmatch(r'"tenant";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert found is not None, answer.headers["ratelimit"]
    assert 990 < int(found[2]) <= 1000
    return int(found[1])


async def test_a_request_beyond_the_burst_is_refused(serve: Serve) -> None:
    async with serve(**LIMITS) as api:
        answers = [await api.get(f"/jobs/{uuid4()}") for _ in range(BURST)]
        assert [remaining_of(answer) for answer in answers] == [2, 1, 0]
        assert {answer.status_code for answer in answers} == {HTTPStatus.NOT_FOUND}

        refused = await api.get("/jobs")

    assert problem(refused) == (429, "rate_limited")
    assert remaining_of(refused) == 0
    assert refused.headers["ratelimit"].endswith(f";t={refused.headers['retry-after']}")


async def test_the_limit_counts_a_tenant_and_not_a_key(serve: Serve, make_key: MakeKey) -> None:
    async with serve(**LIMITS) as api:
        for _ in range(BURST):
            await api.get("/jobs")

        assert problem(await api.of(await make_key()).get("/jobs")) == (429, "rate_limited")
        other = await api.of(await make_key(tenant="globex")).get("/jobs")

    assert (other.status_code, remaining_of(other)) == (200, BURST - 1)


async def test_probes_and_refused_keys_are_not_counted(serve: Serve) -> None:
    async with serve(**LIMITS) as api:
        for _ in range(2 * BURST):
            ready = await api.http.get("/health/ready")
            assert ready.status_code == HTTPStatus.OK
            assert "ratelimit" not in ready.headers
            unknown = await api.of("wb_unknown").get("/jobs")
            assert problem(unknown) == (401, "unauthenticated")
            assert "ratelimit" not in unknown.headers

        assert remaining_of(await api.get("/jobs")) == BURST - 1
