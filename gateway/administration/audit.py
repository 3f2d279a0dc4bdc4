"""The log of operators' acts: who did what to which row."""

import os
import pwd
import socket
from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from schemas.tables.audit import AuditEntry


def current_actor() -> str:
    """Return the operating system's user and host, such as `root@host-1`."""
    user_id = os.getuid()
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:
        # A container may run under an id without a name.
        user = str(user_id)
    return f"{user}@{socket.gethostname()}"


def record(
    session: AsyncSession, *, actor: str, action: str, target: str, detail: Mapping[str, Any]
) -> None:
    """Add an act to the log, in the transaction of the act; see `AuditEntry`."""
    session.add(AuditEntry(actor=actor, action=action, target=target, detail=dict(detail)))
