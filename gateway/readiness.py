"""What a gateway process needs, and whether it has it: the database, the staging, a right clock, OCR.

All probes of about a second share one look, so that any number of probes costs the same.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final

import psycopg
import structlog
from psycopg.errors import InsufficientPrivilege, UndefinedTable

from gateway.shared_look import SharedLook
from gateway.staging import Staging
from gateway.staging.probe import StagingHealth, probe
from schemas.policy import clocks
from schemas.runtime import outages, postgres, revisions
from schemas.tables.engines import ALIVE_FOR

log = structlog.stdlib.get_logger(__name__)

PROBE_TIMEOUT: Final = timedelta(seconds=2)
"""Shorter than the usual timeout of a health check, so that the check reads the reason."""

LISTENER_GRACE: Final = timedelta(seconds=5)
"""A listener that is still connecting, or reconnects at once, is no problem."""

OK: Final = "ok"
UNKNOWN: Final = "unknown: the database does not answer"
UPGRADE: Final = "run `alembic upgrade head`"


class Status(StrEnum):
    """`DEGRADED`: a part of the API is refused or slow, at every gateway alike; the rest works."""

    READY = "ready"
    DEGRADED = "degraded"
    NOT_READY = "not_ready"


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check.

    Attributes:
        status: of a gateway with this result and no worse one.
        reason: `ok`, or the problem: a stable word, a colon, and what an operator needs.
    """

    status: Status = Status.READY
    reason: str = OK

    @property
    def kind(self) -> tuple[Status, str]:
        """What stays the same while the figures in the reason change."""
        return self.status, self.reason.partition(":")[0]


def degraded(reason: str) -> Check:
    return Check(status=Status.DEGRADED, reason=reason)


def failed(reason: str) -> Check:
    return Check(status=Status.NOT_READY, reason=reason)


NO_OCR_ENGINE: Final = degraded(
    "no OCR engine: scanned pages stay without text, because no worker of the queue ocr_processing"
    " has an engine; install Tesseract's language data there (TESSDATA_DIR), or set OCR_ENGINE=none"
)
NO_ANSWER: Final = failed(f"not answering: no answer within {PROBE_TIMEOUT.total_seconds():g} s")


@dataclass(frozen=True, kw_only=True)
class DatabaseHealth:
    """The checks of which the database has the answer."""

    database: Check = Check()
    migration: Check = Check(status=Status.NOT_READY, reason=UNKNOWN)
    clock: Check = Check(status=Status.NOT_READY, reason=UNKNOWN)
    ocr: Check = Check(status=Status.DEGRADED, reason=UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """What a probe answers."""

    checks: Mapping[str, Check]
    staging_used_percent: int | None

    @property
    def status(self) -> Status:
        found = {check.status for check in self.checks.values()}
        return max(found, key=list(Status).index)

    @property
    def reasons(self) -> dict[str, str]:
        return {name: check.reason for name, check in self.checks.items()}


class DatabaseProbe:
    """Asks the database, on a connection of its own: a pool that is busy is not an outage."""

    def __init__(
        self, connect: postgres.Connect, *, clock_difference_max: timedelta, is_ocr_wanted: bool
    ) -> None:
        self._connect = connect
        self._clock_difference_max = clock_difference_max
        self._is_ocr_wanted = is_ocr_wanted
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def look(self) -> DatabaseHealth:
        was_open = self._connection is not None
        try:
            try:
                return await self._ask()
            except psycopg.OperationalError:
                if not was_open:
                    raise
                # The server may have closed the idle connection, for example when it restarted.
                return await self._ask()
        except psycopg.Error as error:
            # The error names the host and the user, and the answer of a probe is public.
            log.debug("health.database_failed", error=outages.describe(error))
            return DatabaseHealth(
                database=failed("unreachable: the connection failed; is DATABASE_URL right?")
            )

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _ask(self) -> DatabaseHealth:
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = await self._connect()
            return DatabaseHealth(
                clock=await self._clock(connection),
                migration=await _migration(connection),
                ocr=await _ocr(connection) if self._is_ocr_wanted else Check(),
            )
        except BaseException:
            # After a cancellation the pending answer would be taken for that of the next statement.
            await self.close()
            raise

    async def _clock(self, connection: psycopg.AsyncConnection[Any]) -> Check:
        asked = datetime.now(UTC)
        # now(), as in every statement that decides by the time.
        answer = await (await connection.execute("SELECT now()")).fetchone()
        answered = datetime.now(UTC)
        if answer is None:
            raise psycopg.OperationalError("no time")
        difference = clocks.ahead(asked=asked, answer=answer[0], answered=answered)
        if abs(difference) <= self._clock_difference_max:
            return Check()
        allowed = self._clock_difference_max.total_seconds()
        return failed(
            f"wrong: {clocks.description(difference)}; CLOCK_DIFFERENCE_MAX allows {allowed:g} s."
            " Synchronise the clocks"
        )


async def _migration(connection: psycopg.AsyncConnection[Any]) -> Check:
    try:
        rows = await (
            await connection.execute("SELECT version_num FROM alembic_version")
        ).fetchall()
    except UndefinedTable:
        rows = []
    except InsufficientPrivilege:
        return failed("unreadable: the user of DATABASE_URL may not read the table alembic_version")
    return judge_migration([str(version) for (version,) in rows], known=revisions.known())


async def _ocr(connection: psycopg.AsyncConnection[Any]) -> Check:
    try:
        alive = await (
            await connection.execute(
                "SELECT 1 FROM engines WHERE seen_at > now() - %s", [ALIVE_FOR]
            )
        ).fetchone()
    except (UndefinedTable, InsufficientPrivilege):
        alive = None
    return Check() if alive else NO_OCR_ENGINE


def judge_migration(applied: Sequence[str], *, known: Sequence[str]) -> Check:
    """Compare the revision of the database with those that this program has migrations for."""
    head = known[-1]
    match list(applied):
        case []:
            return failed(f"missing: no migration has been applied; {UPGRADE}")
        case [revision] if revision == head:
            return Check()
        case [revision] if revision in known:
            return failed(f"older: {revision} is applied, this program needs {head}; {UPGRADE}")
        case found:
            # Migrations are deployed first: gateways of the earlier version go on.
            return degraded(
                f"newer: {', '.join(found)} is applied, this program has {head}; replace it soon"
            )


class ReadinessProbe:
    """Looks at everything that the process needs; logs each change, not each probe."""

    def __init__(
        self,
        connect: postgres.Connect,
        *,
        clock_difference_max: timedelta,
        is_ocr_wanted: bool,
        staging: Staging,
        is_listening: Callable[[], bool],
        monotonic: Callable[[], float],
        timeout: timedelta = PROBE_TIMEOUT,
    ) -> None:
        """Create a probe; it connects when it is first asked.

        Args:
            connect: opens a connection to the database.
            clock_difference_max: how far the clock of the process may be from the database's.
            is_ocr_wanted: whether scanned pages are to be recognised.
            staging: where new uploads are staged.
            is_listening: returns whether notifications about jobs arrive.
            monotonic: the clock.
            timeout: how long each caller waits.
        """
        self._is_listening = is_listening
        self._monotonic = monotonic
        self._listened_at = monotonic()
        self._database_probe = DatabaseProbe(
            connect, clock_difference_max=clock_difference_max, is_ocr_wanted=is_ocr_wanted
        )
        self._database = SharedLook(self._database_probe.look, timeout=timeout, monotonic=monotonic)
        self._staging = SharedLook(partial(probe, staging), timeout=timeout, monotonic=monotonic)
        self._kinds: Mapping[str, tuple[Status, str]] = {}

    async def ask(self) -> Readiness:
        """Return the state of everything, within the timeout."""
        database, staging = await asyncio.gather(self._database.ask(), self._staging.ask())
        database = database or DatabaseHealth(database=NO_ANSWER)
        readiness = Readiness(
            checks={
                "database": database.database,
                "migration": database.migration,
                "clock": database.clock,
                "ocr": database.ocr,
                "staging": NO_ANSWER if staging is None else _staging_check(staging),
                "listener": self._listener_check(),
            },
            staging_used_percent=None if staging is None else staging.used_percent,
        )
        self._log_change(readiness)
        return readiness

    async def close(self) -> None:
        await self._database.close()
        await self._database_probe.close()

    def _listener_check(self) -> Check:
        now = self._monotonic()
        if self._is_listening():
            self._listened_at = now
        if now - self._listened_at < LISTENER_GRACE.total_seconds():
            return Check()
        return degraded(
            "not connected: requests that wait for a job notice its changes seconds late"
        )

    def _log_change(self, readiness: Readiness) -> None:
        kinds = {name: check.kind for name, check in readiness.checks.items()}
        before = self._kinds or dict.fromkeys(kinds, Check().kind)
        self._kinds = kinds
        if kinds == before:
            return
        if readiness.status == Status.READY:
            log.info("health.recovered")
        else:
            log.warning("health.changed", status=readiness.status, **readiness.reasons)


def _staging_check(staging: StagingHealth) -> Check:
    if staging.problem is None:
        return Check()
    # All gateways share the disk: if a full disk made them unready, nobody could read, cancel or
    # finalize any more, which is what frees the disk.
    return (degraded if staging.is_full else failed)(staging.problem)
