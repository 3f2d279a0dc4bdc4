"""PostgreSQL, RabbitMQ and Swift as the local stack starts them."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import kombu
import psutil
import psycopg
import pytest
from botocore.exceptions import ClientError

from dev.stack import dev_env, ownership, ports, state, vhosts
from dev.stack.checkout import CHECKOUT
from dev.stack.object_store import ObjectStore
from dev.stack.stack import Stack, discard
from dev.stack.state import Phase
from tests.eventually import eventually

TEST_STATE = CHECKOUT / "var" / "test"


@pytest.fixture(scope="module")
def stack(infrastructure: Stack) -> Iterator[Stack]:
    """The services of all tests, or own ones if those are not local processes."""
    if "rabbitmq" in infrastructure.processes:
        yield infrastructure
        return
    directory = TEST_STATE / "infrastructure"
    discard(directory)
    with Stack(directory) as stack:
        stack.start_infrastructure()
        yield stack
    discard(directory)


def connected(environment: Mapping[str, str]) -> psycopg.Connection:
    url = environment["DATABASE_URL"].replace("+psycopg", "")
    return psycopg.connect(url, autocommit=True)


def processes_of(state_dir: Path) -> list[psutil.Process]:
    stack_id = json.loads((state_dir / "identity.json").read_text())["stack_id"]
    marked = ownership.marked(stack_id)
    return [*marked, *ownership.descendants(marked)]


def open_to(process: psutil.Process) -> set[tuple[str, int, str]]:
    """Return address, port and process name of every socket that other processes can reach.

    A datagram socket on an ephemeral port belongs to a client, such as Erlang's resolver, and
    does not count.
    """
    try:
        name = process.name()
        connections = process.net_connections("inet")
    except psutil.NoSuchProcess:  # RabbitMQ starts short-lived processes to check the disk
        return set()
    return {
        (connection.laddr.ip, connection.laddr.port, name)
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
        or (connection.type == socket.SOCK_DGRAM and connection.laddr.port <= ports.LAST)
    }


def test_the_database_is_postgres_18_with_pgvector(stack: Stack) -> None:
    with connected(stack.environment) as database:
        assert database.info.server_version // 10_000 == 18
        database.execute("create extension vector")
        assert database.execute("select '[1,2]'::vector <-> '[1,3]'").fetchone() == (1.0,)
        database.execute("drop extension vector")


def test_every_process_listens_on_loopback_only(stack: Stack) -> None:
    def listening() -> set[tuple[str, int, str]]:
        return set().union(*(open_to(process) for process in processes_of(stack.state_dir)))

    # Erlang's port mapper always listens on both loopback addresses.
    loopback = {"127.0.0.1", "::1"}
    first = listening()
    assert "127.0.0.1" in {address for address, *_ in first}
    beyond = {place for place in first if place[0] not in loopback}
    # Short-lived sockets, such as the broker's check whether its port is free, disappear soon.
    eventually(lambda: beyond & listening(), until=lambda stayed: not stayed)


def test_committed_rows_survive_the_death_of_postgres(stack: Stack) -> None:
    with connected(stack.environment) as database:
        database.execute("create table kept (value int)")
        database.execute("insert into kept values (1)")

    stack.kill("postgres")
    stack.processes["postgres"].wait_ready()

    with connected(stack.environment) as database:
        assert database.execute("select value from kept").fetchall() == [(1,)]
        database.execute("drop table kept")


def test_confirmed_messages_survive_the_death_of_rabbitmq_and_its_port_mapper(
    stack: Stack,
) -> None:
    queue = kombu.Queue("kept", queue_arguments={"x-queue-type": "quorum"})
    with kombu.Connection(
        stack.environment["RABBITMQ_URL"], transport_options={"confirm_publish": True}
    ) as broker:
        queue.bind(broker.default_channel).declare()
        # RabbitMQ 3.10 writes the name of a new quorum queue to disk after three seconds.
        # Killed earlier, it never elects a leader for the queue again.
        time.sleep(4)
        kombu.Producer(broker).publish({"kept": True}, routing_key="kept", delivery_mode=2)

    stack.kill("epmd")
    stack.kill("rabbitmq")
    stack.processes["epmd"].wait_ready()
    stack.processes["rabbitmq"].wait_ready()

    with kombu.Connection(stack.environment["RABBITMQ_URL"]) as broker:
        message = queue.bind(broker.default_channel).get()
        assert message is not None
        assert message.payload == {"kept": True}
        message.ack()
        queue.bind(broker.default_channel).delete()


def test_stored_objects_survive_the_death_of_every_swift_server(stack: Stack) -> None:
    client = ObjectStore.from_settings(stack.environment).client
    bucket = stack.environment["S3_BUCKET"]
    client.put_object(Bucket=bucket, Key="kept", Body=b"bytes")
    servers = [name for name in stack.processes if name.startswith("swift-")]
    assert {f"swift-{kind}" for kind in ("account", "container", "object", "proxy")} <= {*servers}

    for name in servers:
        stack.kill(name)
    for name in servers:
        stack.processes[name].wait_ready()

    assert client.get_object(Bucket=bucket, Key="kept")["Body"].read() == b"bytes"


def test_a_scoped_stack_owns_its_resources_and_deletes_them(stack: Stack) -> None:
    with stack.scoped("journey", settings={"UPLOAD_TTL": "PT10S"}) as own:
        ours, theirs = own.environment, stack.environment
        assert ours["UPLOAD_TTL"] == "PT10S"
        assert ours["S3_ENDPOINT_URL"] == theirs["S3_ENDPOINT_URL"]
        for name in ("DATABASE_URL", "RABBITMQ_URL", "S3_BUCKET", "STAGING_DIR", "GATEWAY_PORT"):
            assert ours[name] != theirs[name]
        own.start_infrastructure()  # starts nothing: every part is given
        assert own.processes == {}
        with connected(ours) as database:
            assert database.execute("select 1").fetchone() == (1,)
        with kombu.Connection(ours["RABBITMQ_URL"]) as broker:
            broker.connect()

    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connected(ours)
    name = unquote(urlsplit(ours["RABBITMQ_URL"]).path.removeprefix("/"))
    assert name.startswith("journey-")
    assert name not in vhosts.names(theirs)


def test_a_wrong_secret_is_refused(stack: Stack) -> None:
    settings = stack.environment | {"S3_SECRET_ACCESS_KEY": "wrong"}

    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        ObjectStore.from_settings(settings).client.list_buckets()


def dev_stack(state_dir: Path, command: str, *options: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", "dev.stack", "--state-dir", state_dir, command, *options],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    )
    return result.stdout


@pytest.mark.usefixtures("stack")
def test_a_second_stack_has_durable_commits_and_leaves_nothing_behind_when_it_is_killed() -> None:
    directory = TEST_STATE / ("a-directory-with-a-long-name-" + "x" * 100)
    discard(directory)
    assert "everything is ready" in dev_stack(directory, "up", "--infrastructure-only")
    assert "already running" in dev_stack(directory, "up")
    assert "rabbitmq" in dev_stack(directory, "status")
    written = dev_env.read(directory)
    assert written["RABBITMQ_URL"].startswith("amqp://")
    with connected(written) as database:
        assert database.execute("show fsync").fetchone() == ("on",)

    record = state.load(directory)
    assert record is not None
    assert record.phase is Phase.RUNNING
    supervisor = record.supervisor.find()
    assert supervisor is not None
    running = [*processes_of(directory), supervisor]
    assert {"beam.smp", "epmd", "postgres"} <= {process.name() for process in running}
    supervisor.kill()

    assert "ended the processes of a killed supervisor" in dev_stack(directory, "down")
    assert ownership.wait_until_gone(running, timeout=timedelta(0)) == []
    assert "nothing is running" in dev_stack(directory, "down")
    discard(directory)
