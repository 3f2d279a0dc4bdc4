"""Events that wait in the exchange's queue, and deliveries that are due, beside bare HTTP loops."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Final

import psutil

from dev.bench import plots
from dev.bench.figures import Ratio, Spread, starting_orders
from dev.bench.plots import Bars
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.bench.webhooks.bare import PEERS
from dev.bench.webhooks.bench import DELIVERERS, Bench, Publisher, Receivers, Seen, an_event
from dev.stack.checkout import CHECKOUT
from schemas.events.envelope import encode
from schemas.ids import TenantId

PLOT: Final = "webhook-rate.svg"
CONNECTIONS: Final = 50
PACES: Final = (50, 200)
"""Events per second at which the time to the receiver is measured."""

LOAD: Final = 0.8
"""Of the highest rate to one endpoint while events are published: a further pace."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    events: int
    rounds: int
    lasting: timedelta
    """Of each paced measurement."""


FULL: Final = Extent(events=15_000, rounds=3, lasting=timedelta(seconds=20))
QUICK: Final = Extent(events=500, rounds=1, lasting=timedelta(seconds=2))


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Deliveries per second, and what each costs.

    Attributes:
        reuse: share of the requests that came over a connection that was open already.
    """

    deliveries: float
    cpu_ms: float
    reuse: float


@dataclass(frozen=True, kw_only=True)
class Paced:
    """Events published at a pace.

    Attributes:
        rate: deliveries per second.
        milliseconds: from the time in the event to the receiver.
        reuse: as in `Rate`.
    """

    pace: int
    rate: float
    milliseconds: Spread
    reuse: float


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    endpoints: int
    deliverers: int = 1
    is_due: bool = False
    """The deliveries are rows that are due; otherwise events wait in the queue."""


CASES: Final = (
    Case(name="from the exchange, 1 endpoint", endpoints=1),
    Case(name="from the exchange, 5 endpoints", endpoints=5),
    Case(name="from the exchange, 5 endpoints, 2 processes", endpoints=5, deliverers=2),
    Case(name="rows already due, 50 endpoints", endpoints=50, is_due=True),
)


def run(system: System, *, extent: Extent) -> Section:
    system.run_only()
    system.stack.start_infrastructure()
    own: dict[str, list[Rate]] = {case.name: [] for case in CASES}
    bare: dict[str, list[float]] = {peer: [] for peer in PEERS}
    competitors = (*(case.name for case in CASES), *PEERS)
    cases = {case.name: case for case in CASES}
    with system.stack.scoped("webhooks") as stack, Bench.on(stack) as bench:
        for order in starting_orders(competitors, rounds=extent.rounds):
            for name in order:
                if name in cases:
                    own[name].append(_deliveries(bench, cases[name], events=extent.events))
                    system.report(f"webhooks: {name}: {own[name][-1]}")
                else:
                    bare[name].append(_bare(name, count=extent.events))
        # Above what one process delivers beside the publisher.
        above = Spread.of([rate.deliveries for rate in own[CASES[0].name]]).p50
        most = _paced(bench, pace=int(above), lasting=extent.lasting).rate
        paces = [
            _paced(bench, pace=pace, lasting=extent.lasting) for pace in (*PACES, int(LOAD * most))
        ]
        (size,) = bench.sql.execute(
            "SELECT sum(pg_total_relation_size(relid)) / nullif((SELECT count(*) FROM deliveries), 0)"
            " FROM pg_partition_tree('deliveries') UNION ALL SELECT NULL LIMIT 1"
        ).fetchone() or (0,)
    plots.bars(
        Bars(
            title="Webhooks delivered by one process (higher is better)",
            unit="deliveries/s",
            groups=[plots.two_lines(name) for name in (*own, *(f"bare {peer}" for peer in PEERS))],
            series={
                "": [
                    *([rate.deliveries for rate in rates] for rates in own.values()),
                    *bare.values(),
                ]
            },
            ours=[plots.two_lines(name) for name in own],
        ),
        to=system.plots / PLOT,
    )
    return _section(own, bare, paces, bytes_each=float(size or 0))


def _deliveries(bench: Bench, case: Case, *, events: int) -> Rate:
    tenant_id = bench.add_tenant()
    expected = events if case.is_due else events * case.endpoints
    with Receivers.running(good=case.endpoints) as receivers:
        webhooks = bench.add_endpoints(tenant_id, receivers.urls())
        bench.start(*DELIVERERS[: case.deliverers])  # declares the queue
        bench.stop()
        if case.is_due:
            _add_due(bench, tenant_id, webhooks=webhooks, count=events)
        else:
            publisher = Publisher(bench.stack.environment["RABBITMQ_URL"])
            publisher.at_once([an_event(tenant_id) for _ in range(events)])
        pids = bench.start(*DELIVERERS[: case.deliverers])
        processes = [psutil.Process(pid) for pid in pids]
        seen = receivers.until(expected)
        cpu = sum(sum(process.cpu_times()[:2]) for process in processes)
        bench.stop()
    return Rate(
        deliveries=seen.rate,
        cpu_ms=cpu / expected * 1000,
        reuse=1 - seen.connections / seen.requests,
    )


def _add_due(bench: Bench, tenant_id: TenantId, *, webhooks: Sequence[str], count: int) -> None:
    """Add events and their deliveries, spread over the endpoints, as rows that are due."""
    with bench.sql.cursor() as cursor:
        rows = []
        for number in range(count):
            event = an_event(tenant_id)
            rows.append((event, webhooks[number % len(webhooks)]))
        with cursor.copy(
            "COPY events (id, tenant_id, type, subject, upload_id, body) FROM STDIN"
        ) as copy:
            for event, _ in rows:
                copy.write_row(
                    (
                        event.id,
                        tenant_id,
                        event.type,
                        event.subject,
                        event.upload_id,
                        encode(event),
                    )
                )
        cursor.executemany(
            "INSERT INTO deliveries (id, tenant_id, webhook_id, event_id, event_type, upload_id, status, next_attempt_at)"
            " VALUES (waybill_delivery_id(%s, %s), %s, %s, %s, %s, %s, 'pending', now())",
            [
                (event.id, webhook, tenant_id, webhook, event.id, event.type, event.upload_id)
                for event, webhook in rows
            ],
        )
        cursor.execute(
            "UPDATE delivery_queues SET due_at = now() WHERE webhook_id = ANY(%s::uuid[])",
            (list(webhooks),),
        )


def _bare(peer: str, *, count: int) -> float:
    with Receivers.running(good=CONNECTIONS) as receivers:
        result = subprocess.run(  # our own module
            [
                *(sys.executable, "-m", "dev.bench.webhooks.bare", peer),
                *(str(count), str(CONNECTIONS), *receivers.urls()),
            ],
            cwd=CHECKOUT,
            check=True,
            capture_output=True,
            text=True,
        )
    return float(json.loads(result.stdout)["rate"])


def _paced(bench: Bench, *, pace: int, lasting: timedelta) -> Paced:
    tenant_id = bench.add_tenant()
    with Receivers.running(good=1) as receivers:
        bench.add_endpoints(tenant_id, receivers.urls())
        bench.start(DELIVERERS[0])
        publisher = Publisher(bench.stack.environment["RABBITMQ_URL"])
        warm = publisher.paced(
            lambda: [an_event(tenant_id)], rate=pace, lasting=timedelta(seconds=1)
        )
        receivers.until(warm)
        receivers.forget()
        count = publisher.paced(lambda: [an_event(tenant_id)], rate=pace, lasting=lasting)
        seen: Seen = receivers.until(count)
        bench.stop()
    return Paced(
        pace=pace,
        rate=seen.rate,
        milliseconds=Spread.of([latency * 1000 for latency in seen.latencies]),
        reuse=1 - seen.connections / seen.requests,
    )


def _section(
    own: dict[str, list[Rate]],
    bare: dict[str, list[float]],
    paces: list[Paced],
    *,
    bytes_each: float,
) -> Section:
    rows = []
    for name, rates in own.items():
        spread = Spread.of([rate.deliveries for rate in rates])
        rows.append(
            [
                name,
                f"{spread.p50:,.0f}/s",
                f"{Spread.of([rate.cpu_ms for rate in rates]).p50:.2f} ms",
                f"{min(rate.reuse for rate in rates):.1%}",
                *(
                    str(Ratio.between([rate.deliveries for rate in rates], bare[peer]))
                    for peer in PEERS
                ),
            ]
        )
    rows += [
        [f"bare {peer} loop", f"{Spread.of(rates).p50:,.0f}/s", "", "", "", ""]
        for peer, rates in bare.items()
    ]
    return Section(
        title="Webhooks: rate",
        question=(
            "Signed deliveries per second of one deliver process, every attempt logged, empty"
            " answers: events that wait in the queue, and deliveries that are due, beside bare"
            f" loops of aiohttp and httpx with {CONNECTIONS} connections to the same receivers,"
            " in turns."
        ),
        tables=[
            Table(
                headings=[
                    "",
                    "deliveries",
                    "CPU of one",
                    "kept connections",
                    "of aiohttp",
                    "of httpx",
                ],
                rows=rows,
            ),
            Table(
                title="From the time in the event to the receiver",
                headings=["events", "p50", "p95", "p99", "worst", "kept connections"],
                rows=[
                    [
                        f"{each.pace}/s",
                        f"{each.milliseconds.p50:.1f} ms",
                        f"{each.milliseconds.p95:.1f} ms",
                        f"{each.milliseconds.p99:.1f} ms",
                        f"{each.milliseconds.worst:.1f} ms",
                        f"{each.reuse:.1%}",
                    ]
                    for each in paces
                ],
            ),
        ],
        plots=[PLOT],
        remarks=[f"A delivery and its indexes take {bytes_each:,.0f} bytes, without its attempt."],
        peers={peer: version(peer) for peer in PEERS},
        measured_on=datetime.now(UTC).date(),
    )
