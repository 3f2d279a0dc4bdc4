"""One vocabulary for logs and headers; each process applies it at its start."""

import logging
from typing import Any, Final, Literal

import structlog

TRACEPARENT_HEADER: Final = "traceparent"

LogFormat = Literal["json", "console"]


def _shared_processors() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def structlog_config() -> dict[str, Any]:
    """Return the arguments for ``structlog.configure``: everything goes through stdlib logging."""
    return {
        "processors": [
            structlog.stdlib.filter_by_level,
            *_shared_processors(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        "logger_factory": structlog.stdlib.LoggerFactory(),
        "wrapper_class": structlog.stdlib.BoundLogger,
        "cache_logger_on_first_use": True,
    }


def logging_config(*, service: str, level: str, log_format: LogFormat) -> dict[str, Any]:
    """Return a ``logging.config.dictConfig`` mapping: one line per event on stderr.

    Args:
        service: name put on every line.
        level: threshold for the project's own loggers; libraries log from WARNING.
        log_format: ``json`` for machines, ``console`` for people.
    """

    def add_service(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # structlog's own processor signature
        event.setdefault("service", service)
        return event

    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        # The prettier formatter prints local variables, and with them secrets.
        else structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        )
    )
    exceptions = [structlog.processors.format_exc_info] if log_format == "json" else []
    own = {name: {"level": level} for name in ("gateway", "pipeline", "notifier")}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "event": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _shared_processors(),
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    add_service,
                    *exceptions,
                    renderer,
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
            "level": max(logging.WARNING, logging.getLevelName(level)),
        },
        "loggers": own,
    }
