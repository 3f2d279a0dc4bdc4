from contextlib import suppress
from uuid import uuid4

import pytest

from gateway.http.bodies import Bodies, BodiesBusy, BodyLimits, TooManyBodies
from schemas.ids import TenantId

ACME, GLOBEX = TenantId(uuid4()), TenantId(uuid4())


def bodies_of(*, count: int = 10, per_tenant: int = 10, kept: int = 10, own: int = 10) -> Bodies:
    return Bodies(
        BodyLimits(
            count=count, count_per_tenant=per_tenant, kept_bytes=kept, kept_bytes_per_tenant=own
        )
    )


def test_a_tenant_at_its_limit_is_refused_and_others_are_not() -> None:
    bodies = bodies_of(per_tenant=1)
    with bodies.arriving(ACME):
        with pytest.raises(TooManyBodies), bodies.arriving(ACME):
            pass
        with bodies.arriving(GLOBEX):
            assert len(bodies) == 2

    with bodies.arriving(ACME):
        assert len(bodies) == 1


def test_every_body_is_refused_at_the_limit_of_the_process() -> None:
    bodies = bodies_of(count=1)
    with bodies.arriving(ACME), pytest.raises(BodiesBusy), bodies.arriving(GLOBEX):
        pass

    with bodies.arriving(GLOBEX):
        assert len(bodies) == 1


def test_the_bytes_of_a_tenant_are_bounded_over_all_its_bodies() -> None:
    bodies = bodies_of(own=3)
    with bodies.arriving(ACME) as first, bodies.arriving(ACME) as second:
        first.keep(2)
        with pytest.raises(TooManyBodies):
            second.keep(2)
        second.keep(1)


def test_the_bytes_of_all_tenants_are_bounded() -> None:
    bodies = bodies_of(kept=3)
    with bodies.arriving(ACME) as first, bodies.arriving(GLOBEX) as second:
        first.keep(2)
        with pytest.raises(BodiesBusy):
            second.keep(2)


def test_a_body_that_ends_frees_its_place_and_its_bytes() -> None:
    bodies = bodies_of(count=1, kept=3)
    for tenant_id in (ACME, GLOBEX):
        with suppress(ConnectionError), bodies.arriving(tenant_id) as body:
            body.keep(3)
            raise ConnectionError

    assert len(bodies) == 0
