"""One healthy endpoint at 50 events/s, alone and beside hostile receivers."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from dev.bench import plots
from dev.bench.figures import Spread
from dev.bench.plots import Bars
from dev.bench.sections import Section, Table
from dev.bench.system import System
from dev.bench.webhooks.bench import DELIVERERS, Bench, Publisher, Receivers, an_event
from schemas.ids import TenantId

PLOT: Final = "webhook-isolation.svg"
RATE: Final = 50
RATIO_MAX: Final = 1.5
WORST_MAX: Final = timedelta(seconds=1.5)
LATE: Final = timedelta(minutes=2)
"""The healthy endpoint has everything by then, or the measurement fails."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    lasting: timedelta
    share: float
    """Of the number of hostile receivers and rows."""


FULL: Final = Extent(lasting=timedelta(seconds=25), share=1)
QUICK: Final = Extent(lasting=timedelta(seconds=4), share=0.1)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """What happens beside the healthy endpoint.

    Attributes:
        behaviour: of the hostile receivers.
        count: how many endpoints there are.
        rate: events per second for the hostile endpoints' tenant; each goes to all of them. None
            for one event at the beginning.
        rows: deliveries that are due to the first of them.
        fresh: endpoints added every ten seconds, each with an event.
        restarted: whether the deliver process is killed and starts again at the beginning.
    """

    name: str
    behaviour: str
    count: int
    rate: float | None = None
    rows: int = 0
    fresh: bool = False
    restarted: bool = False


NEIGHBOURS: Final = (
    Neighbour(name="50 hanging endpoints, one event", behaviour="hanging", count=50),
    Neighbour(name="the same after a restart", behaviour="hanging", count=50, restarted=True),
    Neighbour(
        name="60 hanging endpoints never seen, every 10 s",
        behaviour="hanging",
        count=60,
        fresh=True,
    ),
    Neighbour(
        name="50 endpoints that answer after 1.9 s, 2 events/s each",
        behaviour="slow",
        count=50,
        rate=2,
    ),
    Neighbour(
        name="one that sends endless 100 Continue", behaviour="endless 100", count=1, rate=0.5
    ),
    Neighbour(name="five of them", behaviour="endless 100", count=5, rate=0.5),
    Neighbour(name="five with chunk extensions", behaviour="chunk extensions", count=5, rate=0.5),
    Neighbour(name="five with bodies of 1 GB", behaviour="1 GB body", count=5, rate=0.5),
    Neighbour(name="five with gzip bombs", behaviour="gzip bomb", count=5, rate=0.5),
    Neighbour(name="50 that drip the head", behaviour="dripped head", count=50, rate=0.5),
    Neighbour(name="50 that drip the body after 200", behaviour="dripped body", count=50, rate=0.5),
    Neighbour(name="300,000 rows due to a hanging one", behaviour="hanging", count=1, rows=300_000),
    Neighbour(
        name="a tenant with 10,000 endpoints, one event/s", behaviour="good", count=10_000, rate=1
    ),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    name: str
    alone: Spread
    beside: Spread

    @property
    def ratio(self) -> float:
        return self.beside.p95 / self.alone.p95

    @property
    def is_over(self) -> bool:
        return self.ratio > RATIO_MAX or self.beside.worst > WORST_MAX / timedelta(milliseconds=1)


FRESH_INTERVAL: Final = timedelta(seconds=10)
RECEIVERS_MAX: Final = 60
"""Ports of hostile receivers; more endpoints share them, with paths of their own."""


def run(system: System, *, extent: Extent) -> Section:
    system.run_only()
    system.stack.start_infrastructure()
    outcomes = []
    for neighbour in NEIGHBOURS:
        with system.stack.scoped("isolation") as stack, Bench.on(stack) as bench:
            outcome = _measure(bench, neighbour, extent=extent)
        outcomes.append(outcome)
        system.report(
            f"isolation: {neighbour.name}: p95 {outcome.alone.p95:.1f} -> {outcome.beside.p95:.1f} ms,"
            f" worst {outcome.beside.worst:.0f} ms"
        )
    plots.bars(
        Bars(
            title="95th percentile of a healthy endpoint (lower is better)",
            unit="ms",
            groups=[str(number) for number, _ in enumerate(outcomes, start=1)],
            series={
                "alone": [[outcome.alone.p95] for outcome in outcomes],
                "beside": [[outcome.beside.p95] for outcome in outcomes],
            },
            ours=("beside",),
        ),
        to=system.plots / PLOT,
    )
    return _section(outcomes, extent=extent)


def _measure(bench: Bench, neighbour: Neighbour, *, extent: Extent) -> Outcome:
    count = max(int(neighbour.count * extent.share), 1)
    ports = min(count, RECEIVERS_MAX)
    healthy, hostile = bench.add_tenant(), bench.add_tenant()
    publisher = Publisher(bench.stack.environment["RABBITMQ_URL"])
    with ExitStack() as end:
        receivers = end.enter_context(Receivers.running(good=1))
        others = end.enter_context(
            Receivers.running(**{neighbour.behaviour.replace(" ", "_"): ports})
        )
        bench.add_endpoints(healthy, receivers.urls())
        bench.start(DELIVERERS[0])
        end.callback(bench.stop)
        _healthy(publisher, receivers, healthy, lasting=timedelta(seconds=2))
        alone = _healthy(publisher, receivers, healthy, lasting=extent.lasting)
        urls = [
            f"{others.urls(neighbour.behaviour)[number % ports]}/{number}"
            for number in range(count)
        ]
        first = bench.add_endpoints(hostile, urls)
        if neighbour.rows:
            bench.add_due_to(hostile, webhook=first[0], count=int(neighbour.rows * extent.share))
        if neighbour.restarted:
            publisher.at_once([an_event(hostile)])
            bench.stop()
            bench.start(DELIVERERS[0])
        with _hostile(bench, neighbour, hostile, urls=urls):
            beside = _healthy(publisher, receivers, healthy, lasting=extent.lasting)
    return Outcome(name=neighbour.name, alone=alone, beside=beside)


def _healthy(
    publisher: Publisher, receivers: Receivers, tenant_id: TenantId, *, lasting: timedelta
) -> Spread:
    """Return the milliseconds from the time in the event to the healthy receiver."""
    receivers.forget()
    count = publisher.paced(lambda: [an_event(tenant_id)], rate=RATE, lasting=lasting)
    seen = receivers.until(count, timeout=LATE)
    return Spread.of([latency * 1000 for latency in seen.latencies])


@contextmanager
def _hostile(
    bench: Bench, neighbour: Neighbour, tenant_id: TenantId, *, urls: list[str]
) -> Iterator[None]:
    """Let the neighbour have its events during the block."""
    ended = threading.Event()
    publisher = Publisher(bench.stack.environment["RABBITMQ_URL"])

    def events() -> None:
        publisher.at_once([an_event(tenant_id)])
        number = 0
        interval = FRESH_INTERVAL.total_seconds() if neighbour.fresh else 1 / (neighbour.rate or 1)
        while not ended.wait(interval):
            number += 1
            if neighbour.fresh:
                # A tenant of its own: the endpoints of the last round get no event.
                fresh = bench.add_tenant()
                bench.add_endpoints(fresh, [f"{url}/{number}" for url in urls])
                publisher.at_once([an_event(fresh)])
            elif neighbour.rate is not None:
                publisher.at_once([an_event(tenant_id)])

    thread = threading.Thread(target=events)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _section(outcomes: list[Outcome], *, extent: Extent) -> Section:
    over = [outcome.name for outcome in outcomes if outcome.is_over]
    return Section(
        title="Webhooks: isolation",
        question=(
            f"One healthy endpoint that gets {RATE} events per second: the time from the event to the"
            f" receiver, for {extent.lasting.total_seconds():g} s alone and then beside hostile"
            f" receivers of another tenant. The goal is a p95 within {RATIO_MAX} times its own, and"
            f" none later than {WORST_MAX.total_seconds():g} s."
        ),
        tables=[
            Table(
                headings=["", "beside it", "p95 alone", "p95 beside", "ratio", "worst beside"],
                rows=[
                    [
                        str(number),
                        outcome.name,
                        f"{outcome.alone.p95:.1f} ms",
                        f"{outcome.beside.p95:.1f} ms",
                        f"{outcome.ratio:.2f}",
                        f"{outcome.beside.worst:.0f} ms",
                    ]
                    for number, outcome in enumerate(outcomes, start=1)
                ],
            )
        ],
        plots=[PLOT],
        remarks=[f"Over the goal: {', '.join(over)}." if over else "None is over the goal."],
        measured_on=datetime.now(UTC).date(),
    )
