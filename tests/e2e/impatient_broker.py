"""A system on a broker that soon takes back what is not acknowledged."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from dev.client import Client
from dev.stack.infrastructure import Part
from dev.stack.stack import Stack
from schemas import topology
from tests.e2e.ends import eventually
from tests.e2e.files import settle, uploaded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta
    from pathlib import Path

OF_THE_BROKER = {"RABBITMQ_URL", "RABBITMQ_MANAGEMENT_URL"}
OF_ONE_SYSTEM = {"GATEWAY_PORT", "STAGING_DIR", "WORK_DIR"}


@dataclass(frozen=True, kw_only=True)
class Deliveries:
    """What the broker counted of one queue."""

    published: int
    delivered: int
    acknowledged: int
    redelivered: int


@contextmanager
def system(
    shared: Stack, *, template: str, consumer_timeout: timedelta, settings: Mapping[str, str]
) -> Iterator[Stack]:
    """Yield gateway, relay and transfer worker, with a broker of their own.

    Database server and object store are those of `shared`.
    """
    name = f"impatient-{int(consumer_timeout.total_seconds())}"
    environment = {
        name: value
        for name, value in shared.environment.items()
        if name not in OF_THE_BROKER | OF_ONE_SYSTEM
    }
    own = shared.create_database(name, template=template) | shared.create_bucket(name)
    with Stack(
        shared.state_dir / name,
        settings={**environment, **own, **settings},
        consumer_timeout=consumer_timeout,
    ) as stack:
        stack.start_infrastructure(Part.RABBITMQ)
        stack.api_key = stack.create_api_key(tenant="local")
        stack.start_services("gateway", "relay", "transfer")
        yield stack
    shared.drop_database(name)


def transferred(path: Path, *, system: Stack, patience: timedelta) -> dict[str, Any]:
    """Upload and finalize a file; return its job once it is settled."""
    with Client(system.url, api_key=str(system.api_key)) as client:
        job_id = client.finalize(uploaded(client, path)).json()["job_id"]
        return settle(client, job_id, patience=patience)


def deliveries(system: Stack) -> Deliveries:
    """Return the broker's figures about the queue of the transfers, once they are complete."""
    # The broker gathers them every few seconds.
    return eventually(
        lambda: _figures(system),
        until=lambda seen: seen.acknowledged > 0 and seen.acknowledged >= seen.published,
    )


def _figures(system: Stack) -> Deliveries:
    management = urlsplit(system.environment["RABBITMQ_MANAGEMENT_URL"])
    answer = httpx.get(
        f"http://{management.hostname}:{management.port}/api/queues/%2F/{topology.UPLOADS}",
        auth=(str(management.username), str(management.password)),
        trust_env=False,
    )
    counted = answer.raise_for_status().json().get("message_stats", {})
    return Deliveries(
        published=counted.get("publish", 0),
        delivered=counted.get("deliver", 0),
        acknowledged=counted.get("ack", 0),
        redelivered=counted.get("redeliver", 0),
    )
