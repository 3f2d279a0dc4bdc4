"""The only reader of the environment in the local stack."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dev.stack.checkout import CHECKOUT, TESSDATA

BARE: Final = ("PATH", "HOME", "LANG", "TMPDIR", "USER", "LOGNAME")

GIVEN: Final = (
    "DATABASE_URL",
    "RABBITMQ_URL",
    "RABBITMQ_MANAGEMENT_URL",
    "S3_ENDPOINT_URL",
    "S3_BUCKET",
    "S3_REGION",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
    "S3_CA_BUNDLE",
    "SECRET_KEYS",
    "GATEWAY_PORT",
)
"""Settings with which a caller supplies PostgreSQL, RabbitMQ, an object store, keys or the port."""


def given() -> dict[str, str]:
    """Return the settings that the caller supplies."""
    return given_in(os.environ)  # noqa: TID251  # this module is the reader


def given_in(environment: Mapping[str, str]) -> dict[str, str]:
    settings = {name: environment[name] for name in GIVEN if environment.get(name)}
    if broker_url := environment.get("CELERY_BROKER_URL"):
        settings.setdefault("RABBITMQ_URL", broker_url)
    return settings


def of_services(programs: Path) -> dict[str, str]:
    """Return the environment of the project's processes, with `programs` first on the PATH."""
    inherited = dict(os.environ)  # noqa: TID251  # this module is the reader
    # Celery prefers this variable to its configuration: the workers would use another broker.
    inherited.pop("CELERY_BROKER_URL", None)
    inherited["PATH"] = f"{programs}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    # Without it, a program would run the checkout for which its environment was installed.
    inherited["PYTHONPATH"] = str(CHECKOUT)
    # The workers fork after loading numpy; threads of its linear algebra do not survive a fork.
    inherited.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Tesseract is slower with threads, because each line is too little work to share.
    inherited.setdefault("OMP_THREAD_LIMIT", "1")
    inherited.setdefault("TESSDATA_DIR", str(TESSDATA))
    # Requests to the stack's ports must not go through the machine's proxy.
    for name in ("NO_PROXY", "no_proxy"):
        others = inherited.get(name)
        inherited[name] = ",".join(filter(None, ("127.0.0.1,localhost", others)))
    return inherited


def of_infrastructure() -> dict[str, str]:
    """Return the environment of PostgreSQL, RabbitMQ and Swift: no RABBITMQ_* or PG* variables."""
    source = os.environ  # noqa: TID251  # this module is the reader
    return {name: source[name] for name in BARE if name in source} | {"LC_ALL": "C.UTF-8"}
