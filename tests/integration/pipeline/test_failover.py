"""Two brokers of one cluster, of which one fails: one broker behind two proxies."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from yarl import URL

from dev.stack.background_loop import BackgroundLoop
from dev.stack.stack import Stack
from schemas.lifecycle import JobStatus, UploadStatus
from schemas.settings import BrokerSettings
from schemas.tables.uploads import Upload
from tests.eventually import eventually
from tests.factories.abandoned import add_abandoned_upload
from tests.integration.pipeline.bus import connected
from tests.integration.pipeline.workbench import Workbench, prepare_staging
from tests.tcp_proxy import TcpProxy


@dataclass(frozen=True)
class Cluster:
    nodes: tuple[TcpProxy, TcpProxy]
    loop: BackgroundLoop
    urls: str

    def leave_only(self, node: int) -> None:
        """Start this node, and end the other."""
        self.loop.run(self.nodes[node].accept())
        self.loop.run(self.nodes[1 - node].refuse())


@pytest.fixture
def cluster(broker: BrokerSettings) -> Iterator[Cluster]:
    """Two nodes, of which only the first runs."""
    url = URL(broker.rabbitmq_url.get_secret_value())
    nodes = tuple(TcpProxy(lambda: asyncio.open_connection(url.host, url.port)) for _ in range(2))
    loop = BackgroundLoop("proxies")
    for node in nodes:
        loop.run(node.accept())
    loop.run(nodes[1].refuse())
    urls = ",".join(str(url.with_port(node.port)) for node in nodes)
    yield Cluster(nodes=(nodes[0], nodes[1]), loop=loop, urls=urls)
    for node in nodes:
        loop.run(node.refuse())
    loop.close()


def completed(bench: Workbench) -> None:
    """Return once the worker has transferred an upload that is finalized now."""
    events = [bench.finalized() for _ in range(3)]
    for event in events:
        bench.bus.publish(event)
    for event in events:
        assert bench.settled(event).status == JobStatus.COMPLETED


def swept(bench: Workbench) -> None:
    """Return once the worker has run a periodic task that beat sends from now on."""
    with Session(bench.engine) as session, session.begin():
        upload = add_abandoned_upload(session)

    def status() -> str:
        with Session(bench.engine) as session:
            return session.get_one(Upload, upload.id).status

    eventually(status, until=lambda status: status == UploadStatus.EXPIRED)


def test_worker_and_beat_continue_while_the_brokers_fail_in_turn(
    infrastructure: Stack, migrated_template: str, broker: BrokerSettings, cluster: Cluster
) -> None:
    settings = {"RABBITMQ_URL": cluster.urls, "SWEEP_EVERY": "1s", "S3_PART_SIZE": "5MiB"}
    with (
        infrastructure.scoped("failover", settings=settings, template=migrated_template) as own,
        connected(broker.rabbitmq_url.get_secret_value()) as bus,
    ):
        prepare_staging(own)
        own.start_services("transfer", "beat")
        engine = create_engine(own.environment["DATABASE_URL"])
        bench = Workbench(own, engine=engine, bus=bus)
        process_ids = [process.pid for process in own.processes.values()]
        for node in (1, 0):
            cluster.leave_only(node)
            completed(bench)
            swept(bench)
        assert [process.pid for process in own.processes.values()] == process_ids
        engine.dispose()
