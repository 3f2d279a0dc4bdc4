from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from dev.stack.rabbitmq import RabbitMq

PORTS = {
    "amqp": 21_001,
    "management": 21_002,
    "prometheus": 21_003,
    "distribution": 21_004,
    "epmd": 21_005,
}


@pytest.fixture
def node() -> RabbitMq:
    return RabbitMq(
        home=Path("/state/rabbitmq"),
        node_name="waybill-5eed@localhost",
        password="hidden",  # noqa: S106  # nobody's password
        erlang_cookie="COOKIE",
        ports=PORTS,
        consumer_timeout=timedelta(minutes=1),
        marker={},
    )


def test_every_listener_of_the_broker_is_bound_to_loopback(node: RabbitMq) -> None:
    lines = node.configuration().splitlines()

    assert "listeners.tcp.1 = 127.0.0.1:21001" in lines
    assert "management.tcp.ip = 127.0.0.1" in lines
    assert "prometheus.tcp.ip = 127.0.0.1" in lines
    flags = node.node_environment()["ERL_FLAGS"]
    assert "inet_dist_use_interface {127,0,0,1}" in flags
    assert node.node_environment()["ERL_EPMD_ADDRESS"] == "127.0.0.1"


def test_the_consumer_timeout_is_written_in_milliseconds(node: RabbitMq) -> None:
    assert "consumer_timeout = 60000" in node.configuration().splitlines()


def test_a_short_consumer_timeout_is_checked_several_times_before_it_ends(node: RabbitMq) -> None:
    assert node.advanced_configuration() == "[{rabbit, [{channel_tick_interval, 10000}]}].\n"


def test_a_long_consumer_timeout_is_checked_at_the_default_interval(
    node: RabbitMq,
) -> None:
    patient = replace(node, consumer_timeout=timedelta(hours=2))

    assert patient.advanced_configuration() == "[{rabbit, [{channel_tick_interval, 60000}]}].\n"


def test_the_node_shares_nothing_with_a_broker_of_the_machine(node: RabbitMq) -> None:
    paths = [value for value in node.node_environment().values() if value.startswith("/")]

    assert {path for path in paths if not path.startswith("/state/rabbitmq/")} == {"/dev/null"}


def test_services_use_the_default_virtual_host_as_the_stacks_own_user(node: RabbitMq) -> None:
    assert node.environment == {
        "RABBITMQ_URL": "amqp://waybill:hidden@127.0.0.1:21001/%2F",
        "RABBITMQ_MANAGEMENT_URL": "http://waybill:hidden@127.0.0.1:21002",
    }
