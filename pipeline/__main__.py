"""`python -m pipeline worker -Q QUEUES` and `python -m pipeline beat`: Celery with our application.

Further options are Celery's own; `waybill-worker` and `waybill-beat` take the same.
"""

import sys
from typing import Final, NoReturn

from celery.bin.celery import celery

APPLICATION: Final = ("--app", "pipeline.worker")
# Nothing uses the messages between workers, which would only load the broker.
ALONE: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def worker() -> NoReturn:
    _run("worker", "--pool", "prefork", *ALONE, *sys.argv[1:])


def beat() -> NoReturn:
    _run("beat", *sys.argv[1:])


def _run(*arguments: str) -> NoReturn:
    sys.exit(celery([*APPLICATION, *arguments], auto_envvar_prefix="CELERY"))


if __name__ == "__main__":
    {"worker": worker, "beat": beat}[sys.argv.pop(1)]()
