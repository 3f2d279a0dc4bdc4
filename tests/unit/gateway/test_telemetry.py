import logging

import pytest

from gateway.http.request_log import level_of, valid_traceparent

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_valid_traceparent_is_passed_on() -> None:
    assert valid_traceparent(VALID) == VALID


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        VALID.upper(),
        VALID + "\n",
        VALID + "-extra",
        VALID.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        "x" * 10_000,
    ],
)
def test_a_malformed_one_counts_as_none(header: str | None) -> None:
    assert valid_traceparent(header) is None


@pytest.mark.parametrize(
    ("route", "status", "level"),
    [
        ("/api/v1/uploads/{upload_id}/chunks/{index}", 200, logging.DEBUG),
        ("/api/v1/uploads/{upload_id}/chunks/{index}", 409, logging.INFO),
        ("/api/v1/uploads/{upload_id}/chunks/{index}", None, logging.INFO),
        ("/api/v1/uploads/{upload_id}", 200, logging.INFO),
        ("/health/ready", 200, logging.DEBUG),
        ("/health/ready", 503, logging.INFO),
    ],
)
def test_what_comes_in_thousands_and_succeeds_is_told_to_those_who_debug(
    route: str, status: int | None, level: int
) -> None:
    assert level_of(route, status=status) == level
