import io
import logging
import logging.config
from collections.abc import Iterator

import pytest
import structlog

from schemas.runtime.logging import LogFormat, logging_config, structlog_config


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def configured(stream: io.StringIO, *, log_format: LogFormat) -> None:
    config = logging_config(service="gateway", level="INFO", log_format=log_format)
    config["handlers"]["stderr"]["stream"] = stream
    logging.config.dictConfig(config)
    structlog.configure(**structlog_config())


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(log_format: LogFormat, stream: io.StringIO) -> None:
    configured(stream, log_format=log_format)

    def fail() -> None:
        secret = "hush" * 3
        raise ValueError(len(secret))

    try:
        fail()
    except ValueError:
        structlog.stdlib.get_logger("gateway.test").exception("test.failed")
    assert "ValueError" in stream.getvalue()
    assert "hushhush" not in stream.getvalue()


def test_every_line_names_its_service_and_its_event(stream: io.StringIO) -> None:
    configured(stream, log_format="json")
    structlog.stdlib.get_logger("gateway.test").info("test.happened", upload_id="u-1")
    assert '"service": "gateway"' in stream.getvalue()
    assert '"event": "test.happened"' in stream.getvalue()
    assert '"upload_id": "u-1"' in stream.getvalue()
