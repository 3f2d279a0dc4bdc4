"""A warm child serves the next request of its tenant, and no other."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from pipeline.ingest.sandbox.fork import (
    AnswerLimits,
    ChildDied,
    ChildLimits,
    ChildOutOfMemory,
    ChildTimedOut,
    Send,
)
from pipeline.ingest.sandbox.reader import GROWTH_MAX, Reader
from schemas.ids import TenantId
from schemas.settings import MIB
from tests.integration.sandbox.conftest import NewChildren
from tests.integration.sandbox.forked import LIMITS, watched

CHILD_LIMITS = ChildLimits(memory_bytes=512 * MIB)
TENANT_ID = TenantId(uuid4())
KEPT: list[bytes] = []


def serve(request: bytes, send: Send) -> None:
    """Send the process id and the niceness of the child after it did what the request says."""
    match request.split():
        case [b"keep", size]:
            KEPT.append(b"x" * int(size))
        case [b"need", size]:
            send(b"%d" % len(b"x" * int(size)))
        case [b"spin"]:
            while True:
                pass
        case [b"die"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case [b"fail"]:
            raise ZeroDivisionError
    send(b"%d %d" % (os.getpid(), os.nice(0)))


class Asked:
    """Asks a reader, and returns the process id of the child that answered."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __call__(
        self,
        request: bytes = b"",
        *,
        tenant_id: TenantId = TENANT_ID,
        child_limits: ChildLimits = CHILD_LIMITS,
        limits: AnswerLimits = LIMITS,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> int:
        with self._reader.answer(
            request,
            tenant_id=tenant_id,
            child_limits=child_limits,
            limits=limits,
            while_waiting=while_waiting,
        ) as answer:
            return int(list(answer)[-1].split()[0])


@pytest.fixture
def reader(children: NewChildren) -> Iterator[Reader]:
    reader = Reader(serve, documents_max=3)
    yield reader
    reader.close()
    assert children() == []


@pytest.fixture
def ask(reader: Reader) -> Asked:
    return Asked(reader)


def test_a_child_answers_several_requests_of_a_tenant(ask: Asked, children: NewChildren) -> None:
    assert ask() == ask()
    assert len(children()) == 1


def test_a_child_is_replaced_after_its_last_request(ask: Asked, children: NewChildren) -> None:
    assert len({ask(), ask(), ask()}) == 1
    assert children() == []
    assert ask()
    assert len(children()) == 1


def test_another_tenant_gets_a_fresh_child(ask: Asked, children: NewChildren) -> None:
    first = ask()
    assert ask(tenant_id=TenantId(uuid4())) != first
    assert ask() != first
    assert len(children()) == 1


def test_other_limits_get_a_fresh_child(ask: Asked) -> None:
    first = ask()
    assert ask(child_limits=replace(CHILD_LIMITS, memory_bytes=300 * MIB)) != first


def test_a_nice_child_is_nice(reader: Reader) -> None:
    limits = replace(CHILD_LIMITS, niceness=5)
    with reader.answer(b"", tenant_id=TENANT_ID, child_limits=limits, limits=LIMITS) as answer:
        assert int(next(answer).split()[1]) == min(os.nice(0) + 5, 19)


def test_a_child_that_has_grown_is_replaced(ask: Asked, children: NewChildren) -> None:
    ask(b"keep %d" % (GROWTH_MAX // 4))
    assert len(children()) == 1
    ask(b"keep %d" % GROWTH_MAX)
    assert children() == []


@pytest.mark.parametrize(
    ("request_", "error"),
    [(b"die", ChildDied), (b"fail", ChildDied), (b"need %d" % (600 * MIB), ChildOutOfMemory)],
    ids=["die", "fail", "need too much memory"],
)
def test_a_fresh_child_follows_a_failure(
    request_: bytes, error: type[Exception], ask: Asked, children: NewChildren
) -> None:
    first = ask()
    with pytest.raises(error):
        ask(request_)
    assert children() == []
    assert ask() != first


def test_each_request_has_its_own_cpu_time(ask: Asked, children: NewChildren) -> None:
    limits = replace(LIMITS, cpu=timedelta(seconds=0.3))
    first = ask(limits=limits)
    assert ask(limits=limits) == first
    with pytest.raises(ChildTimedOut):
        ask(b"spin", limits=limits)
    assert children() == []


def test_a_child_that_was_killed_while_idle_is_replaced(ask: Asked) -> None:
    first = ask()
    with watched(first) as has_ended:
        os.kill(first, signal.SIGKILL)
        assert has_ended()
    assert ask() != first


def test_an_error_while_waiting_ends_the_answer(ask: Asked, children: NewChildren) -> None:
    def cancel() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(b"spin", while_waiting=cancel)
    assert children() == []


def test_an_abandoned_answer_is_not_sent_to_the_next_request(reader: Reader, ask: Asked) -> None:
    with reader.answer(
        b"need 10", tenant_id=TENANT_ID, child_limits=CHILD_LIMITS, limits=LIMITS
    ) as answer:
        assert next(answer) == b"10"
        first = int(next(answer).split()[0])
    assert ask() != first


def test_a_reader_answers_one_request_at_a_time(reader: Reader, ask: Asked) -> None:
    with (
        reader.answer(b"", tenant_id=TENANT_ID, child_limits=CHILD_LIMITS, limits=LIMITS),
        pytest.raises(RuntimeError),
    ):
        ask()
