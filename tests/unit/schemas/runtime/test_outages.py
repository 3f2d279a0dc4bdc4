import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from schemas.runtime import outages, postgres

pytestmark = pytest.mark.anyio


async def test_work_is_repeated_until_the_outage_ends() -> None:
    failures = [psycopg.OperationalError("away"), psycopg.OperationalError("still away")]

    async def work() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert await postgres.through_outages(work, doing="testing") == "done"


async def test_an_error_that_is_not_an_outage_is_raised_at_once() -> None:
    attempts = 0

    async def work() -> None:
        nonlocal attempts
        attempts += 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await postgres.through_outages(work, doing="testing")
    assert attempts == 1


def test_an_error_is_described_without_its_statement_and_parameters() -> None:
    error = OperationalError(
        "INSERT INTO inbox VALUES (%s)",
        {"secret": "in a parameter"},
        psycopg.OperationalError("refused\nIs the server running?"),
    )
    assert outages.describe(error) == "OperationalError: refused"
