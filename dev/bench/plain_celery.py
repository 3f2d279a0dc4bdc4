"""The peer of `wakeup`: the smallest Celery task."""

import time
from pathlib import Path

from celery import Celery

app = Celery("peer")


@app.task(ignore_result=True)
def note_start(starts: str, number: int) -> None:  # noqa: ARG001  # the number is the line in the file
    started = time.time()
    with Path(starts).open("a") as file:
        file.write(f"{started}\n")
