"""The only reader of the environment in the local stack."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dev.stack.checkout import CHECKOUT

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
    "GATEWAY_PORT",
)
"""Settings a caller may set to bring his own PostgreSQL, RabbitMQ, object store or port."""


def given() -> dict[str, str]:
    """Return the parts and ports the caller brought along, by the name of their setting."""
    return given_in(os.environ)  # noqa: TID251  # this module is the reader


def given_in(environment: Mapping[str, str]) -> dict[str, str]:
    settings = {name: environment[name] for name in GIVEN if environment.get(name)}
    if broker_url := environment.get("CELERY_BROKER_URL"):
        settings.setdefault("RABBITMQ_URL", broker_url)
    return settings


def of_services(programs: Path) -> dict[str, str]:
    """Return what the project's own processes inherit, with ``programs`` first on the PATH."""
    inherited = dict(os.environ)  # noqa: TID251  # this module is the reader
    # Celery prefers this variable to any configuration, so a stray one would split the stack.
    inherited.pop("CELERY_BROKER_URL", None)
    inherited["PATH"] = f"{programs}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    # Without it, a program would run the checkout for which its environment was installed.
    inherited["PYTHONPATH"] = str(CHECKOUT)
    # The workers fork after loading numpy; a thread pool of its linear algebra would not survive.
    inherited.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A proxy of the machine must not see requests to the stack's own ports.
    for name in ("NO_PROXY", "no_proxy"):
        others = inherited.get(name)
        inherited[name] = ",".join(filter(None, ("127.0.0.1,localhost", others)))
    return inherited


def of_infrastructure() -> dict[str, str]:
    """Return what PostgreSQL, RabbitMQ and Swift inherit: no RABBITMQ_* or PG* of the machine."""
    source = os.environ  # noqa: TID251  # this module is the reader
    return {name: source[name] for name in BARE if name in source} | {"LC_ALL": "C.UTF-8"}
