"""A thousand stalled bodies of one tenant, on an idle machine."""

import pytest

from dev.bench import stalled
from dev.bench.stalled import Extent
from tests.e2e.deployment import Deployment

pytestmark = pytest.mark.timeout(300)

BODIES = 1_000
GROWTH_MAX_MIB = 64
SLOWDOWN_MAX = 2


def test_stalled_bodies_cost_little_memory_and_delay_nobody(deployment: Deployment) -> None:
    system = deployment.system
    pid = system.processes["gateway"].pid
    assert pid is not None

    measured = stalled.measure(
        system.url,
        pid=pid,
        api_key=deployment.key,
        other_key=system.create_api_key(tenant="undisturbed"),
        extent=Extent(bodies=BODIES, requests=300),
        goal_mib=GROWTH_MAX_MIB,
    )

    assert measured.answers == {}, "every body is still awaited"
    assert measured.meanwhile - measured.idle < GROWTH_MAX_MIB
    assert measured.after - measured.idle < GROWTH_MAX_MIB
    before, meanwhile = measured.before_others, measured.meanwhile_others
    assert meanwhile.status.p99 < SLOWDOWN_MAX * before.status.p99
    assert meanwhile.chunk.p99 < SLOWDOWN_MAX * before.chunk.p99
