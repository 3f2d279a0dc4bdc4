from collections import Counter
from itertools import count
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from notifier.delivery.lanes import Lanes, Member, Reaction, Slot
from schemas.ids import TenantId, WebhookId

ids = count(1)


def tenant(number: int) -> TenantId:
    return TenantId(UUID(int=number))


def join(
    lanes: Lanes,
    *,
    of: int = 1,
    receiver: str | None = None,
    concurrency: int = 10,
    is_failing: bool = False,
) -> Member:
    number = next(ids)
    return lanes.join(
        WebhookId(UUID(int=number)),
        tenant_id=tenant(of),
        receiver=receiver or f"https://{number}.example:",
        concurrency=concurrency,
        is_failing=is_failing,
    )


def start_all(lanes: Lanes, *members: Member) -> list[Slot]:
    """Start as many attempts as get a slot, as if every member had many deliveries."""
    started = []
    for member in members:
        if member.has_room:
            lanes.wait(member)
    while (slot := lanes.next()) is not None:
        started.append(slot)
        if slot.member.has_room:
            lanes.wait(slot.member)
    return started


def answer(lanes: Lanes, member: Member, *, times: int = 5) -> None:
    """Let the receiver answer quickly until its window is full."""
    for _ in range(times):
        for slot in start_all(lanes, member):
            lanes.end(slot, Reaction.ACCEPTED)
        lanes.withdraw(member)


def test_a_receiver_never_seen_gets_one_attempt_and_twice_as_many_after_each_success() -> None:
    lanes = Lanes(fast=100, slow=400)
    member = join(lanes, concurrency=8)
    windows = []
    for _ in range(5):
        started = start_all(lanes, member)
        windows.append(len(started))
        lanes.end(started[0], Reaction.ACCEPTED)
        for slot in started[1:]:
            lanes.end(slot, Reaction.REFUSED)
    assert windows == [1, 2, 4, 8, 8]


def test_new_endpoints_of_one_receiver_share_its_window() -> None:
    lanes = Lanes(fast=100, slow=400)
    members = [join(lanes, receiver="https://a.example:") for _ in range(60)]
    started = start_all(lanes, *members)
    assert len(started) == 1
    lanes.end(started[0], Reaction.ACCEPTED)
    for member in members:
        lanes.withdraw(member)
    others = members[1:]
    assert len(start_all(lanes, *others)) == 2


def test_a_slow_attempt_makes_room_for_the_next_new_endpoint_of_the_receiver() -> None:
    lanes = Lanes(fast=100, slow=400)
    members = [join(lanes, receiver="https://a.example:") for _ in range(3)]
    (first,) = start_all(lanes, *members)
    lanes.grow_old(first)
    (second,) = start_all(lanes)
    assert second.member is not first.member


def test_a_silent_receiver_gets_one_attempt_again() -> None:
    lanes = Lanes(fast=100, slow=400)
    member = join(lanes)
    answer(lanes, member)
    started = start_all(lanes, member)
    assert len(started) == 10
    for slot in started:
        lanes.end(slot, Reaction.SILENT)
    assert len(start_all(lanes, member)) == 1


def test_a_hanging_endpoint_does_not_hold_a_known_one_of_the_same_receiver() -> None:
    lanes = Lanes(fast=100, slow=400)
    known = join(lanes, receiver="https://a.example:")
    answer(lanes, known)
    hanging = [join(lanes, receiver="https://a.example:") for _ in range(50)]
    start_all(lanes, *hanging)
    assert len([slot for slot in start_all(lanes, known) if slot.member is known]) == 10


def test_after_a_restart_failing_endpoints_do_not_hold_the_others_of_their_receiver() -> None:
    lanes = Lanes(fast=100, slow=400)
    failing = [join(lanes, receiver="https://a.example:", is_failing=True) for _ in range(50)]
    assert len(start_all(lanes, *failing)) == 50
    other = join(lanes, receiver="https://a.example:")
    assert [slot.member for slot in start_all(lanes, other)] == [other]


def test_attempts_that_turn_slow_leave_the_fast_lane() -> None:
    lanes = Lanes(fast=20, slow=400)
    slow = join(lanes, concurrency=20)
    answer(lanes, slow, times=8)
    started = start_all(lanes, slow)
    assert len(started) == 10
    healthy = [join(lanes, of=2), join(lanes, of=3)]
    for member in healthy:
        answer(lanes, member)
    lanes.withdraw(slow)
    taken = start_all(lanes, *healthy)
    assert {slot.lane.size for slot in started + taken} == {20}
    for slot in started:
        lanes.grow_old(slot)
    more = start_all(lanes, *healthy)
    assert len(more) > 0
    assert {slot.lane.size for slot in more} == {20}


@pytest.mark.parametrize("tenants", [1, 2, 3, 9])
def test_tenants_get_equal_shares_and_leave_as_many_slots_free(tenants: int) -> None:
    lanes = Lanes(fast=1, slow=400)
    members = [join(lanes, of=number) for number in range(tenants) for _ in range(500)]
    taken = Counter(slot.member.tenant_id for slot in start_all(lanes, *members))
    share = 400 // (tenants + 1)
    assert set(taken.values()) <= {share, share + 1}
    newcomer = join(lanes, of=99)
    assert [slot.member for slot in start_all(lanes, newcomer)] == [newcomer]


def test_tenants_that_come_one_after_the_other_get_a_slot_each() -> None:
    lanes = Lanes(fast=1, slow=40)
    for number in range(1, 40):
        members = [join(lanes, of=number) for _ in range(100)]
        assert len(start_all(lanes, *members)) >= 1
    assert lanes.under_way <= 80


def test_endpoints_of_a_tenant_start_in_turns() -> None:
    lanes = Lanes(fast=10, slow=2)
    members = [join(lanes) for _ in range(5)]
    for member in members:
        lanes.wait(member)
    order = []
    for _ in range(15):
        slot = lanes.next()
        assert slot is not None
        order.append(members.index(slot.member))
        lanes.end(slot, Reaction.REFUSED)
        lanes.wait(slot.member)
    assert order == [0, 1, 2, 3, 4] * 3


def test_a_window_is_remembered_while_the_endpoint_has_nothing_to_do() -> None:
    lanes = Lanes(fast=100, slow=400)
    member = join(lanes)
    answer(lanes, member)
    lanes.leave(member)
    again = lanes.join(
        member.webhook_id,
        tenant_id=member.tenant_id,
        receiver="https://a.example:",
        concurrency=10,
        is_failing=False,
    )
    assert len(start_all(lanes, again)) == 10


def test_a_changed_concurrency_holds_from_the_next_attempt_on() -> None:
    lanes = Lanes(fast=100, slow=400)
    member = join(lanes)
    answer(lanes, member)
    started = start_all(lanes, member)
    assert len(started) == 10
    lanes.change(member, receiver="https://b.example:", concurrency=3)
    assert start_all(lanes, member) == []
    for slot in started:
        lanes.end(slot, Reaction.ACCEPTED)
    assert len(start_all(lanes, member)) == 3


class Machine(RuleBasedStateMachine):
    """Any sequence of steps keeps the bounds, and every slot is free at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes = Lanes(fast=5, slow=8)
        self.members: list[Member] = []
        self.slots: list[Slot] = []

    @rule(of=st.integers(1, 3), receiver=st.sampled_from("abc"), concurrency=st.integers(1, 6))
    def join(self, of: int, receiver: str, concurrency: int) -> None:
        self.members.append(join(self.lanes, of=of, receiver=receiver, concurrency=concurrency))

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.members))
        if member.has_room:
            self.lanes.wait(member)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.lanes.withdraw(data.draw(st.sampled_from(self.members)))

    @precondition(lambda self: self.members)
    @rule(data=st.data(), receiver=st.sampled_from("abc"), concurrency=st.integers(1, 6))
    def change(self, data: st.DataObject, receiver: str, concurrency: int) -> None:
        member = data.draw(st.sampled_from(self.members))
        self.lanes.change(member, receiver=receiver, concurrency=concurrency)

    @rule()
    def start(self) -> None:
        if (slot := self.lanes.next()) is not None:
            assert slot.member.under_way <= max(slot.member.concurrency, 1)
            self.slots.append(slot)

    @precondition(lambda self: any(slot.is_young for slot in self.slots))
    @rule(data=st.data())
    def grow_old(self, data: st.DataObject) -> None:
        self.lanes.grow_old(
            data.draw(st.sampled_from([slot for slot in self.slots if slot.is_young]))
        )

    @precondition(lambda self: self.slots)
    @rule(data=st.data(), reaction=st.sampled_from(Reaction))
    def end(self, data: st.DataObject, reaction: Reaction) -> None:
        slot = data.draw(st.sampled_from(self.slots))
        self.slots.remove(slot)
        self.lanes.end(slot, reaction)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.lanes.under_way == len(self.slots) <= 2 * (5 + 8)
        for member in self.members:
            assert member.under_way == sum(slot.member is member for slot in self.slots)
            for flow in (member.receiver, member.own):
                if flow is not None:
                    assert flow.under_way == sum(slot.flow is flow for slot in self.slots)
                    assert flow.window >= 1

    def teardown(self) -> None:
        for slot in self.slots:
            self.lanes.end(slot, Reaction.ACCEPTED)
        assert self.lanes.under_way == 0
        # Whoever waits is served.
        for member in self.members:
            self.lanes.wait(member)
        for _ in self.members:
            taken = self.lanes.next()
            assert taken is not None
            self.lanes.end(taken, Reaction.ACCEPTED)
        assert self.lanes.next() is None


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
