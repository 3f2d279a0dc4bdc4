"""Logging of the Swift servers: standard error only. Runs inside Swift's own environment."""

import logging
from logging.handlers import SysLogHandler


def without_syslog(*arguments: object) -> None:
    """Remove the syslog handler; Swift calls this through `log_custom_handlers`.

    Without a syslog, the handler sends datagrams from a socket bound to every address.
    """
    for logger in arguments:
        if isinstance(logger, logging.Logger):
            for handler in list(logger.handlers):
                if isinstance(handler, SysLogHandler):
                    logger.removeHandler(handler)
                    handler.close()
