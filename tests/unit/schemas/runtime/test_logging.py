import json
import logging as stdlib_logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from schemas.runtime import logging
from schemas.settings import ProcessSettings


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    stdlib_logging.getLogger().handlers.clear()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(
    log_format: Literal["json", "console"], capsys: pytest.CaptureFixture[str]
) -> None:
    logging.configure(ProcessSettings(log_format=log_format), service="gateway")

    def fail() -> None:
        secret = "hush" * 3
        raise ValueError(len(secret))

    try:
        fail()
    except ValueError:
        structlog.stdlib.get_logger("gateway.test").exception("test.failed")
    output = capsys.readouterr().err
    assert "ValueError" in output
    assert "hushhush" not in output


def test_every_line_names_its_service_and_its_event(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure(ProcessSettings(), service="gateway")
    structlog.stdlib.get_logger("gateway.test").info("test.happened", upload_id="u-1")
    line = json.loads(capsys.readouterr().err)
    assert (line["service"], line["event"], line["upload_id"]) == (
        "gateway",
        "test.happened",
        "u-1",
    )


@pytest.mark.parametrize(
    ("logger", "is_shown"), [("schemas.runtime.s3", True), ("botocore", False)]
)
def test_only_the_projects_loggers_log_below_warning(
    logger: str, capsys: pytest.CaptureFixture[str], *, is_shown: bool
) -> None:
    logging.configure(ProcessSettings(), service="gateway")
    stdlib_logging.getLogger(logger).info("test.happened")
    assert ("test.happened" in capsys.readouterr().err) == is_shown
