"""Structured logs: one line per event on stderr, in the same shape in every process."""

import logging.config
from typing import Any

import structlog

from schemas.settings import ProcessSettings

OWN_PACKAGES = ("gateway", "pipeline", "notifier", "schemas")


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
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )

    def add_service(_: Any, __: str, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # structlog's own processor signature
        event.setdefault("service", service)
        return event

    renderers: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        # The default exception formatter prints local variables, and with them secrets.
        else [
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "event": {
                    "()": structlog.stdlib.ProcessorFormatter,
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
