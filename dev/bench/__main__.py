"""`python -m dev.bench`: every benchmark, on a system of its own under `var/bench`."""

import sys

from rich.console import Console
from rich.table import Table

from dev.bench import ingest, transfer, wakeup, worker_memory
from dev.bench.figures import Spread
from dev.bench.ingest import GIB, Load
from dev.bench.memory import MIB
from dev.client import Client
from dev.stack.checkout import CHECKOUT
from dev.stack.stack import Stack
from schemas.settings import ObjectStoreSettings

SMALL = Load(size=MIB, chunk_size=8 * MIB, connections=1)
LARGE = Load(size=2 * GIB, chunk_size=8 * MIB, connections=4)


def main() -> int:
    console = Console()
    with Stack(CHECKOUT / "var" / "bench", report=console.print) as stack:
        stack.start()
        if stack.api_key is None:
            raise RuntimeError("the stack started without an API key")
        with Client(stack.url, api_key=stack.api_key) as client:
            console.print(of_waking_up(stack, client))
            console.print(of_receiving(stack, stack.api_key))
            console.print(of_sending(stack, client))
        for service in ("ingest", "deliver", "relay", "gateway", "transfer"):
            stack.processes[service].stop()
        transfer.main(store_settings(stack))
    return 0


def of_waking_up(stack: Stack, client: Client) -> Table:
    own = wakeup.ours(client, database_url=stack.environment["DATABASE_URL"])
    plain = wakeup.plain_celery(stack.create_vhost("bench-peer")["RABBITMQ_URL"])
    stack.delete_vhost("bench-peer")
    table = Table("to the start of the task", "p50", "p95", "worst", title="Waking up")
    for name, spread in (
        ("finalize committed → claimed by the worker", own.from_commit),
        ("finalize begun → claimed by the worker", own.from_begin),
        ("plain Celery, apply_async → task", plain),
    ):
        table.add_row(name, *(f"{each:.1f} ms" for each in (spread.p50, spread.p95, spread.worst)))
    table.add_row("ratio of the medians", f"{own.from_commit.p50 / plain.p50:.2f}", "", "")
    return table


def of_receiving(stack: Stack, api_key: str) -> Table:
    gateway = pid_of(stack, "gateway")
    outcomes = list(ingest.measure(stack.url, api_key=api_key, pid=gateway))
    table = ingest.table_of(outcomes)
    small, large = (
        finalize_times(stack.url, api_key=api_key, pid=gateway, load=load, rounds=rounds)
        for load, rounds in ((SMALL, 20), (LARGE, 3))
    )
    table.caption = (
        f"finalize: p50 {small.p50:.1f} ms for 1 MiB, {large.p50:.1f} ms for 2 GiB"
        f" ({small.count} and {large.count} times)"
    )
    return table


def finalize_times(url: str, *, api_key: str, pid: int, load: Load, rounds: int) -> Spread:
    outcomes = list(ingest.measure(url, api_key=api_key, pid=pid, loads=[load] * rounds))
    return Spread.of([outcome.finalize_ms for outcome in outcomes])


def of_sending(stack: Stack, client: Client) -> Table:
    table = Table("file", "memory over idle", title="The transfer worker while it sends")
    worker = pid_of(stack, "transfer")
    # The first file warms each of the worker's processes up.
    for size in (64 * MIB, 64 * MIB, 2 * GIB, 2 * GIB):
        grown = worker_memory.growth_while_sending(client, size=size, pid=worker)
        table.add_row(f"{size // MIB} MiB", f"{grown:+.1f} MiB")
    return table


def pid_of(stack: Stack, name: str) -> int:
    pid = stack.processes[name].pid
    if pid is None:
        raise RuntimeError(f"{name} is not running")
    return pid


def store_settings(stack: Stack) -> ObjectStoreSettings:
    return ObjectStoreSettings.model_validate(
        {name.lower(): value for name, value in stack.environment.items() if name.startswith("S3_")}
    )


if __name__ == "__main__":
    sys.exit(main())
