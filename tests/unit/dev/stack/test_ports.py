import itertools

import pytest

from dev.stack import ports
from dev.stack.errors import NoFreePort


def test_ports_of_the_last_run_are_reused() -> None:
    chosen = ports.choose(
        ["amqp", "postgres"],
        preferred={"amqp": 21_000, "postgres": 22_000},
        is_free=lambda _: True,
        random_below=lambda _: 0,
    )

    assert chosen == {"amqp": 21_000, "postgres": 22_000}


def test_a_port_that_is_in_use_is_replaced() -> None:
    numbers = itertools.count()

    chosen = ports.choose(
        ["amqp", "postgres"],
        preferred={"amqp": 21_000, "postgres": 22_000},
        is_free=lambda port: port not in {21_000, ports.FIRST},
        random_below=lambda _: next(numbers),
    )

    assert chosen == {"amqp": ports.FIRST + 1, "postgres": 22_000}


def test_every_name_gets_its_own_port() -> None:
    numbers = itertools.count(0)

    chosen = ports.choose(
        ["a", "b", "c"],
        preferred={},
        is_free=lambda _: True,
        random_below=lambda _: next(numbers) // 2,
    )

    assert len(set(chosen.values())) == 3


def test_ports_are_below_the_range_of_outgoing_connections() -> None:
    assert 1_024 < ports.FIRST < ports.LAST < 32_768


def test_a_machine_without_a_free_port_is_an_error() -> None:
    with pytest.raises(NoFreePort):
        ports.choose(["a"], preferred={}, is_free=lambda _: False, random_below=lambda _: 0)
