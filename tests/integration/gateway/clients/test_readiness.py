"""Probes of orchestrators and load balancers, which may overlap and need no key."""

import asyncio
import http.client
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway import db
from schemas import staging_layout
from schemas.settings import DatabaseSettings
from tests import small_disk, wrong_clock
from tests.integration.gateway.api import KIB64, MIB, Api, BeginSession, problem
from tests.integration.gateway.clients.conftest import Gateway
from tests.integration.gateway.conftest import MakeKey, Start
from tests.integration.gateway.process import Process, api_of
from tests.integration.notifier import proxy

pytestmark = pytest.mark.anyio

PROBERS = 20
PROBES = 100
DAYS = timedelta(days=2)


@asynccontextmanager
async def client_of(process: Process, make_key: MakeKey) -> AsyncIterator[Api]:
    async with api_of(process, await make_key()) as api:
        yield api


@pytest.fixture
def transaction(gateway_database: db.Database) -> BeginSession:
    """Opens sessions on the database of `start`."""
    return gateway_database.transaction


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    with small_disk.mounted(tmp_path / "disk", mib=4) as directory:
        yield directory


async def test_overlapping_probes_all_get_the_right_answer(gateway: Gateway) -> None:
    def probe_again_and_again() -> Counter[int]:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        statuses = Counter[int]()
        for _ in range(PROBES):
            connection.request("GET", "/health/ready")
            answer = connection.getresponse()
            answer.read()
            statuses[answer.status] += 1
        connection.close()
        return statuses

    counted = await asyncio.gather(
        *(asyncio.to_thread(probe_again_and_again) for _ in range(PROBERS))
    )

    assert sum(counted, Counter()) == {200: PROBERS * PROBES}
    assert "Traceback" not in gateway.process.log_file.read_text()


async def test_a_probe_that_hangs_up_does_not_end_the_others(gateway: Gateway) -> None:
    async def hang_up() -> None:
        async with gateway.connect() as connection:
            await connection.send("GET /health/ready HTTP/1.1", "Host: gateway")

    async def stay() -> int:
        async with gateway.connect() as connection:
            await connection.send("GET /health/ready HTTP/1.1", "Host: gateway")
            return (await connection.answer()).status

    for _ in range(20):
        _, *statuses = await asyncio.gather(hang_up(), *(stay() for _ in range(5)))
        assert set(statuses) == {200}


async def test_a_full_disk_refuses_uploads_and_lets_reads_go_on(
    start: Start, disk: Path, make_key: MakeKey
) -> None:
    process = await start(STAGING_DIR=str(disk), QUOTA_STAGED_BYTES="1GiB")
    async with client_of(process, make_key) as api:
        assert (await api.probed("ready"))["staging_used_percent"] < 50
        upload_id = await api.created(size=KIB64)
        with pytest.raises(OSError, match="space"):
            (disk / "of_somebody_else").write_bytes(bytes(5 * MIB))

        degraded = await api.probed("degraded")

        assert degraded["checks"]["staging"].startswith("full: 0 MiB are free")
        assert degraded["staging_used_percent"] == 100
        assert problem(await api.put(upload_id, 0, bytes(KIB64))) == (507, "staging_full")
        assert problem(await api.create(size=KIB64)) == (507, "staging_full")
        assert (await api.get("/jobs")).status_code == 200
        assert (await api.get(f"/uploads/{upload_id}")).status_code == 200
        for _ in range(10):
            await api.probed("degraded")
        (disk / "of_somebody_else").unlink()
        await api.probed("ready")
        assert (await api.put(upload_id, 0, bytes(KIB64))).status_code == 200
    changes = process.logged("health.changed")
    assert [(change["level"], change["status"]) for change in changes] == [("warning", "degraded")]
    assert len(process.logged("health.recovered")) == 1


async def test_a_gateway_without_its_staging_volume_is_not_ready(
    start: Start, staging_dir: Path, make_key: MakeKey
) -> None:
    async with client_of(await start(), make_key) as api:
        await api.probed("ready")
        (staging_dir / staging_layout.MARKER).unlink()
        checks = (await api.probed("not_ready"))["checks"]
        assert checks["staging"].startswith("not mounted: ")
        assert {reason for name, reason in checks.items() if name != "staging"} == {"ok"}


@pytest.mark.parametrize(
    ("shift", "side"), [(DAYS, "ahead of"), (-DAYS, "behind")], ids=["ahead", "behind"]
)
async def test_a_gateway_with_a_wrong_clock_says_so_and_loses_no_upload(
    start: Start, make_key: MakeKey, shift: timedelta, side: str
) -> None:
    async with client_of(await start(**wrong_clock.settings(shift)), make_key) as api:
        clock = (await api.probed("not_ready"))["checks"]["clock"]
        assert clock.startswith("wrong: the clock of this process is 2 days")
        assert side in clock
        assert "CLOCK_DIFFERENCE_MAX" in clock
        upload_id, job_id = await api.finalized()
        assert (await api.get(f"/jobs/{job_id}")).json()["status"] == "queued"
        assert (await api.get(f"/uploads/{upload_id}")).json()["status"] == "finalized"


async def test_a_clock_within_the_limit_is_right(start: Start, make_key: MakeKey) -> None:
    wrong = wrong_clock.settings(timedelta(seconds=20))
    async with client_of(await start(**wrong), make_key) as api:
        assert (await api.probed("ready"))["checks"]["clock"] == "ok"


async def test_a_database_without_the_programs_migration_has_a_reason(
    start: Start, make_key: MakeKey, transaction: BeginSession
) -> None:
    async with client_of(await start(), make_key) as api:
        await api.probed("ready")
        for version, status, word in (
            ("0001", "not_ready", "older: 0001 is applied"),
            ("9999", "degraded", "newer: 9999 is applied"),
            (None, "not_ready", "missing: "),
        ):
            async with transaction() as session:
                await session.execute(
                    text("UPDATE alembic_version SET version_num = :version")
                    if version
                    else text("DROP TABLE alembic_version"),
                    {"version": version},
                )
            checks = (await api.probed(status))["checks"]
            assert checks["migration"].startswith(word)
            assert checks["database"] == "ok"


async def test_a_gateway_is_ready_again_after_an_outage_of_the_database(
    start: Start, make_key: MakeKey, database: DatabaseSettings
) -> None:
    async with proxy.to_database(database) as way:
        through = way.in_front_of_database(database).database_url.get_secret_value()
        process = await start(DATABASE_URL=through)
        async with client_of(process, make_key) as api:
            await api.probed("ready")
            await way.refuse()
            checks = (await api.probed("not_ready"))["checks"]
            assert checks["database"].startswith("unreachable: ")
            assert checks["staging"] == "ok"
            await way.accept()
            await api.probed("ready")
            # Connections that the server closed while they were idle are no outage.
            await way.drop()
            await asyncio.sleep(1.1)  # what was found before is not answered any more
            assert (await api.http.get("/health/ready")).status_code == 200
        assert not [line for line in process.logged("health.changed") if line["level"] == "error"]
