from datetime import timedelta

import pytest

from gateway.http.prefer import preferences_of


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", None),
        ("wait=10", 10),
        ("respond-async, wait=10", 10),
        ("wait=10;foo=bar, respond-async", 10),
        ('wait="10"', 10),
        ("WAIT = 10", 10),
        ("wait=0", 0),
        ("wait=99999", 99999),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=ten", None),
        ("nowait=10", None),
        ("wait", None),
        ("wait=" + "9" * 1000, None),
    ],
)
def test_wait_is_a_whole_number_of_seconds_or_ignored(header: str, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)

    assert preferences_of([header]).wait == expected


def test_preferences_may_be_on_several_lines() -> None:
    preferences = preferences_of(["foo=bar", "wait=10", "respond-async"])

    assert preferences.wait == timedelta(seconds=10)
    assert preferences.respond_async


def test_a_request_without_the_header_has_no_preferences() -> None:
    preferences = preferences_of([])

    assert preferences.wait is None
    assert not preferences.respond_async
