"""Lowers the level at which Celery logs a lost connection: the worker connects again by itself."""

import logging
from typing import Final

import amqp

LOGGERS: Final = ("celery.worker.request", "celery.worker.loops")
"""They log an acknowledgement and a cleanup on a closed connection as critical and as an error."""


class AsWarning(logging.Filter):
    """Makes records about a closed connection warnings without a traceback; keeps all others."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if record.levelno > logging.WARNING and isinstance(
            error, amqp.Connection.connection_errors
        ):
            record.levelno, record.levelname = logging.WARNING, "WARNING"
            record.exc_info = None  # the message has the reason
        return True


def log_as_warnings() -> None:
    """Apply the filter; the broker delivers what was not acknowledged again."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(AsWarning())
