from schemas import queues, topology
from schemas.events.envelope import EVENT_TYPES


def test_every_consumed_queue_is_a_quorum_queue_with_a_dead_letter_queue() -> None:
    queues = {queue.name: queue.arguments for queue in topology.QUEUES}
    bound = {(b.exchange, b.queue, b.routing_key) for b in topology.BINDINGS}
    for name in topology.CONSUMED:
        arguments = queues[name]
        assert arguments["x-queue-type"] == "quorum"
        assert arguments["x-dead-letter-exchange"] == topology.DEAD_LETTERS.name
        assert arguments["x-dead-letter-strategy"] == "at-least-once"
        dead = topology.dead_letter_queue(name)
        assert (topology.DEAD_LETTERS.name, dead, arguments["x-dead-letter-routing-key"]) in bound


def test_a_retry_tier_returns_a_message_only_to_its_work_queue() -> None:
    queues = {queue.name: queue.arguments for queue in topology.QUEUES}
    for tier in topology.RETRY_TIERS:
        assert queues[tier.name]["x-dead-letter-exchange"] == ""
        # With a routing key here, every message would return to one queue.
        assert "x-dead-letter-routing-key" not in queues[tier.name]
        assert queues[tier.name]["x-message-ttl"] == tier.delay.total_seconds() * 1000


def test_no_work_queue_receives_facts() -> None:
    receivers = {
        binding.queue for binding in topology.BINDINGS if binding.exchange == topology.EVENTS.name
    }
    assert receivers == {queues.NOTIFY}


def test_an_obsolete_binding_is_not_declared_again() -> None:
    bound = {(binding.queue, binding.routing_key) for binding in topology.BINDINGS}
    assert bound.isdisjoint(topology.OBSOLETE_BINDINGS)


def test_events_that_start_steps_and_pings_are_not_published_as_facts() -> None:
    unpublished = {each for each in EVENT_TYPES if not topology.is_published(each)}
    assert unpublished == {
        "upload.finalized",
        "document.reprocess_requested",
        "document.tables_requested",
        "document.render_requested",
        "document.index_requested",
        "webhook.replay_requested",
        "export.requested",
        "job.action_requested",
        "batch.received",
        "batch.cancel_requested",
        "ping",
    }


def test_queues_subscribe_to_existing_event_types() -> None:
    for event_types in topology.SUBSCRIPTIONS.values():
        assert set(event_types) <= EVENT_TYPES.keys()


def test_the_task_fails_an_event_before_the_broker_dead_letters_it() -> None:
    assert topology.CRASH_LIMIT < topology.DELIVERY_LIMIT


def test_the_queue_of_periodic_tasks_keeps_the_newest_messages() -> None:
    queues = {queue.name: queue.arguments for queue in topology.QUEUES}
    maintenance = queues[topology.MAINTENANCE]
    assert maintenance["x-queue-type"] == "quorum"
    assert maintenance["x-max-length"] == topology.MAINTENANCE_LENGTH
    assert maintenance["x-overflow"] == "drop-head"
    assert topology.dead_letter_queue(topology.MAINTENANCE) not in queues
    assert topology.MAINTENANCE not in {binding.queue for binding in topology.BINDINGS}
