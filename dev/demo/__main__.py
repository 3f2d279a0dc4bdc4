"""`python -m dev.demo`: sends a PDF through the system and checks every step."""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import SystemRandom

import httpx
from rich.console import Console

from dev.client import Client, JobStillRunning
from dev.demo import bus, journey
from dev.demo.journey import CheckFailed
from dev.demo.receiver import WebhookReceiver
from dev.stack import commands, dev_env, state
from dev.stack.checkout import CHECKOUT
from dev.stack.services import SERVICES

EVENTS_OF_A_PDF = ("upload.stored", "document.ingested")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument("--state-dir", type=Path, default=CHECKOUT / "var")
    state_dir: Path = parser.parse_args().state_dir.resolve()
    console = Console()
    try:
        with running_system(state_dir, console=console) as environment:
            play(environment, console=console)
    except (CheckFailed, JobStillRunning, TimeoutError, httpx.HTTPError) as error:
        console.print(f"[bold red]the demo failed:[/] {error}")
        console.print(f"the logs are in {state_dir / 'log'}")
        return 1
    console.print("[bold green]done:[/] stored, read, delivered; every step was checked")
    return 0


@contextmanager
def running_system(state_dir: Path, *, console: Console) -> Iterator[Mapping[str, str]]:
    """Use the running system, or start one and stop it afterwards."""
    was_running = (record := state.load(state_dir)) is not None and (
        record.supervisor.find() is not None
    )
    console.rule("the system")
    try:
        if commands.up(state_dir, services=[each.name for each in SERVICES]) != 0:
            raise CheckFailed("the system did not start")
        yield dev_env.read(state_dir)
    finally:
        if was_running:
            console.print("it was running before and keeps running; `make down` stops it")
        else:
            console.rule("stopping")
            commands.down(state_dir)


def play(environment: Mapping[str, str], *, console: Console) -> None:
    url = environment["WAYBILL_URL"]
    with (
        tempfile.TemporaryDirectory(prefix="waybill-demo-") as directory,
        Client(url, api_key=environment["WAYBILL_API_KEY"]) as client,
        WebhookReceiver() as receiver,
        bus.tapped(environment["RABBITMQ_URL"]) as events,
    ):
        console.rule("a document")
        path = Path(directory) / "consignment.pdf"
        sha256 = journey.make_document(path, seed=SystemRandom().randrange(2**32))
        console.print(
            f"  created {path.name}: {path.stat().st_size:,} bytes, sha256 {sha256[:16]}…"
        )

        console.rule("upload")
        webhook = client.create_webhook(receiver.url, event_types=["document.ingested"])
        receiver.trust(webhook["secret"])
        job = journey.send(client, path, sha256=sha256, console=console)

        console.rule("results")
        outcome = journey.follow(client, job, receiver=receiver)
        events.wait_for(EVENTS_OF_A_PDF, subject=job["upload_id"], timeout=timedelta(seconds=10))
        journey.check_object(environment, key=events.object_key_of(job["upload_id"]), sha256=sha256)
        console.print("  the object read back from S3 has the file's sha256")
        console.print(
            f"  the webhook's signature is valid: [green]{outcome.webhook.signature[:24]}…[/]"
        )
        journey.show_document(client, outcome.job["result"]["document_id"], console=console)
        console.rule("a table, and a search")
        journey.show_table(client, outcome.job["result"]["document_id"], console=console)
        journey.show_search(client, outcome.job["result"]["document_id"], console=console)
        console.rule("the webhook's delivery log, and a resend")
        journey.show_deliveries(
            client, webhook["webhook_id"], first=outcome.webhook, receiver=receiver, console=console
        )
        client.http.delete(f"/webhooks/{webhook['webhook_id']}").raise_for_status()
        console.rule("a scan, and a damaged document")
        journey.show_scan(client, Path(directory) / "scan.pdf", console=console)
        journey.show_partial(client, Path(directory) / "damaged.pdf", console=console)
        console.rule("an export")
        journey.show_export(client, path.name, console=console)
        console.rule("what happened")
        journey.show_events(events.seen, console=console)
        journey.show_timings(outcome, console=console)
        console.print(f"  API description  {url}/schema")
        if management := environment.get("RABBITMQ_MANAGEMENT_URL"):
            # The login is in var/dev.env; a screen may be shared.
            console.print(
                f"  RabbitMQ         {management.partition('//')[0]}//{management.partition('@')[2]}"
            )


if __name__ == "__main__":
    sys.exit(main())
