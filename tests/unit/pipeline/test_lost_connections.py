import logging
from collections.abc import Iterator

import pytest
from amqp.exceptions import RecoverableConnectionError
from kombu.message import Message

from pipeline.messaging import lost_connections
from pipeline.messaging.lost_connections import LOGGERS


@pytest.fixture(params=LOGGERS)
def logger(request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """A logger of Celery, with its filters as before afterwards."""
    logger = logging.getLogger(request.param)
    filters = [*logger.filters]
    lost_connections.log_as_warnings()
    yield logger
    logger.filters[:] = filters


class ClosedChannel:
    no_ack_consumers = None

    def __init__(self, error: Exception) -> None:
        self._error = error

    def basic_ack(self, *_: object, **__: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), RecoverableConnectionError("already closed")]
)
def test_an_acknowledgement_on_a_closed_connection_is_a_warning(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    message = Message(channel=ClosedChannel(error), delivery_tag="27")

    try:
        message.ack_log_error(logger, (type(error),))
    except BrokenPipeError:
        assert isinstance(error, BrokenPipeError)  # kombu raises it again

    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert "Couldn't ack '27'" in record.getMessage()


def test_other_errors_keep_their_level_and_traceback(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise KeyError("state")  # noqa: TRY301  # an error in the loop
    except KeyError:
        logger.exception("Error cleaning up after event loop")

    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
