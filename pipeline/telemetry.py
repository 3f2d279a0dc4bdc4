"""Applies the shared logging vocabulary to this process."""

import logging.config

import structlog

from schemas.runtime.logging import logging_config, structlog_config
from schemas.settings import ProcessSettings


def configure(settings: ProcessSettings) -> None:
    logging.config.dictConfig(
        logging_config(
            service="pipeline", level=settings.log_level, log_format=settings.log_format
        ),
    )
    structlog.configure(**structlog_config())
