"""Errors of a search that cannot begin."""

from datetime import timedelta
from types import SimpleNamespace
from typing import cast
from uuid import uuid4

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.context import Context
from gateway.db import TenantTurns
from gateway.search.errors import SearchBusy
from gateway.search.find import find
from gateway.search.request import SearchRequest
from schemas.api.search import SearchMode
from schemas.ids import TenantId

pytestmark = pytest.mark.anyio


class FullPool:
    """A transaction for which no connection is free."""

    async def __aenter__(self) -> None:
        raise PoolTimeout("QueuePool limit reached")

    async def __aexit__(self, *_: object) -> None: ...


def context(*, turns: int) -> Context:
    found = SimpleNamespace(
        search_turns=TenantTurns(count=turns, wait_max=timedelta(0)),
        database=SimpleNamespace(pipelined=lambda *_: FullPool()),
        settings=SimpleNamespace(
            search_results_max=200, search_timeout=timedelta(seconds=1), search_candidates=10
        ),
    )
    return cast("Context", found)


async def search(*, turns: int) -> None:
    request = SearchRequest(
        tenant_id=TenantId(uuid4()), text="ship", mode=SearchMode.WORDS, limit=1
    )
    await find(context(turns=turns), request)


async def test_a_tenant_with_too_many_searches_is_told_so() -> None:
    with pytest.raises(SearchBusy, match="of this tenant"):
        await search(turns=0)


async def test_a_database_without_a_free_connection_is_not_blamed_on_the_tenant() -> None:
    with pytest.raises(PoolTimeout):
        await search(turns=1)
