"""Logging of the Swift servers: standard error only. Runs inside Swift's own environment."""

import logging
from logging.handlers import SysLogHandler


def without_syslog(*arguments: object) -> None:
    """Take the syslog handler off a logger; Swift calls this through ``log_custom_handlers``.

    Swift always adds one, and where there is no syslog it sends datagrams from a socket
    that is bound to every address.
    """
    for logger in arguments:
        if isinstance(logger, logging.Logger):
            for handler in list(logger.handlers):
                if isinstance(handler, SysLogHandler):
                    logger.removeHandler(handler)
                    handler.close()
