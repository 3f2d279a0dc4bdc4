"""A memory alarm of the broker, which then takes no messages."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev.stack.stack import Stack
from tests.integration.notifier.conftest import Start
from tests.integration.notifier.rows import Rows, an_event, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("events_bus")]

CONTROL = Path("/usr/lib/rabbitmq/bin/rabbitmqctl")
EVENTS = 30


@pytest.fixture
def set_watermark(infrastructure: Stack) -> Iterator[Callable[[str], None]]:
    """Set the share of the memory above which the broker has an alarm."""
    process = infrastructure.processes.get("rabbitmq")
    if process is None or not CONTROL.exists():
        pytest.skip("the broker of this session is not a local process")
    entries = Path(f"/proc/{process.pid}/environ").read_bytes().decode().split("\0")
    environment = dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def set_to(share: str) -> None:
        node = ("-n", environment["RABBITMQ_NODENAME"])
        subprocess.run(
            [CONTROL, *node, "set_vm_memory_high_watermark", share],
            env=environment,
            check=True,
            capture_output=True,
        )

    yield set_to
    set_to("0.6")


async def test_the_relay_says_once_that_events_wait_for_the_end_of_an_alarm(
    rows: Rows, start: Start, set_watermark: Callable[[str], None]
) -> None:
    relay = await start("relay", PUBLISH_TIMEOUT="2s")
    await relay.until_alive()
    tenant_id = await rows.add_tenant()
    set_watermark("0.00001")
    for _ in range(EVENTS):
        await rows.add_to_outbox(an_event(tenant_id=tenant_id))
    await relay.until(lambda: bool(relay.logged("relay.waiting_for_broker")))
    set_watermark("0.6")
    await eventually(rows.everything_is_published)
    await relay.until(lambda: bool(relay.logged("relay.broker_accepts_again")))

    (began,) = relay.logged("relay.waiting_for_broker")
    (ended,) = relay.logged("relay.broker_accepts_again")
    assert began["reason"].startswith("blocked: ")
    assert 0 < began["events"] <= EVENTS
    # The broker may take the publish with which it notices the alarm.
    assert EVENTS - 1 <= ended["events"] <= EVENTS
    assert {began["level"], ended["level"]} == {"warning"}
