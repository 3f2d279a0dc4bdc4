"""Structured logs: one line per event on stderr, in the same shape in every process."""

import json
import logging.config
from typing import Any, Final

import structlog

from schemas.settings import ProcessSettings

OWN_PACKAGES = ("gateway", "pipeline", "notifier", "schemas")


_JSON: Final = json.JSONEncoder(default=repr)


class _Line(str):
    """A finished line."""

    __slots__ = ()


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders the lines of libraries; the project's own lines are rendered when they are logged.

    Every request logs a line. `ProcessorFormatter` would copy its record and its fields twice.
    """

    def format(self, record: logging.LogRecord) -> str:
        return record.msg if isinstance(record.msg, _Line) else super().format(record)


def configure(settings: ProcessSettings, *, service: str) -> None:
    """Route structlog and stdlib logging to stderr.

    Args:
        settings: threshold of the project's own lines (libraries log from WARNING) and format.
        service: name put on every line.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]

    def add_service(
        _: object, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event.setdefault("service", service)
        return event

    def as_json(_: object, __: str, event: structlog.typing.EventDict) -> _Line:
        return _Line(_JSON.encode(event))

    # The default exception formatter prints local variables, and with them secrets.
    console = structlog.dev.ConsoleRenderer(
        colors=False, exception_formatter=structlog.dev.plain_traceback
    )

    def as_text(logger: object, name: str, event: structlog.typing.EventDict) -> _Line:
        return _Line(console(logger, name, event))

    renderers: list[Any] = (
        [structlog.processors.format_exc_info, as_json]
        if settings.log_format == "json"
        else [as_text]
    )
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, add_service, *renderers],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    # No line shows them, and each costs a call of the system.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "event": {
                    "()": _Formatter,
                    "foreign_pre_chain": shared,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        add_service,
                        *renderers,
                    ],
                },
            },
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": "event",
                    "stream": "ext://sys.stderr",
                },
            },
            "root": {
                "handlers": ["stderr"],
                "level": max(logging.WARNING, logging.getLevelName(settings.log_level)),
            },
            "loggers": {
                **{name: {"level": settings.log_level} for name in OWN_PACKAGES},
                # aio-pika reports the same failed connection again.
                "aiormq.connection": {"level": "CRITICAL"},
            },
        }
    )
