import logging

import pytest

from gateway.http.request_log import level_of


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
def test_frequent_successful_requests_are_logged_at_debug(
    route: str, status: int | None, level: int
) -> None:
    assert level_of(route, status=status) == level
