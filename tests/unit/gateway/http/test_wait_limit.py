"""The requests that wait at once, of one key and of all keys."""

from uuid import uuid4

import pytest

from gateway.http.wait_limit import KeyWaits, TooManyWaits, WaitsBusy
from schemas.ids import ApiKeyId

KEY, OTHER = ApiKeyId(uuid4()), ApiKeyId(uuid4())


def never() -> None:
    raise AssertionError("no wait is ended")


def test_a_wait_beyond_the_limit_of_its_key_is_refused() -> None:
    waits = KeyWaits(1, total=10)
    with waits.counted(KEY, end=never):
        with pytest.raises(TooManyWaits):
            waits.check(KEY)
        waits.check(OTHER)
        assert (waits.has_room(KEY), waits.has_room(OTHER)) == (False, True)

    waits.check(KEY)


def test_a_wait_beyond_the_limit_of_the_process_is_refused() -> None:
    waits = KeyWaits(10, total=2)
    with waits.counted(KEY, end=never):
        with waits.counted(OTHER, end=never):
            with pytest.raises(WaitsBusy):
                waits.check(KEY)
            assert not waits.has_room(KEY)

        waits.check(KEY)


def test_only_the_waits_of_an_ended_key_end() -> None:
    ended: list[str] = []
    waits = KeyWaits(10, total=10)
    with (
        waits.counted(KEY, end=lambda: ended.append("first")),
        waits.counted(KEY, end=lambda: ended.append("second")),
        waits.counted(OTHER, end=never),
    ):
        waits.end(KEY)

    assert sorted(ended) == ["first", "second"]
    assert not waits.key_ids
