"""The user that runs PostgreSQL when root starts the stack."""

import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dev.stack.errors import PostgresCannotRunAsRoot

UNPRIVILEGED: Final = "nobody"


def is_root() -> bool:
    return os.geteuid() == 0


def user_change_for(initdb: Path, *, data_dir: Path) -> tuple[str, ...]:
    """Return the `setpriv` arguments for PostgreSQL; none for a normal user.

    The user nobody cannot enter a checkout below a private directory such as `/root`. There
    the server keeps one right of root: to pass through directories.

    Raises:
        PostgresCannotRunAsRoot: the user cannot reach both the program and its data.
    """
    if not is_root():
        return ()
    for arguments in _candidates():
        trial = subprocess.run(
            ["setpriv", *arguments, "--", "sh", "-c", _TRIAL, initdb, data_dir],
            check=False,
            capture_output=True,
        )
        if trial.returncode == 0:
            return arguments
    raise PostgresCannotRunAsRoot(data_dir)


def give_to_unprivileged(path: Path) -> None:
    """Change the owner to the unprivileged user if root runs the stack."""
    if is_root():
        account = pwd.getpwnam(UNPRIVILEGED)
        os.chown(path, account.pw_uid, account.pw_gid)


# initdb looks for the other programs next to itself, as the server does when it starts.
_TRIAL: Final = '"$0" --show --pgdata "$1/data" && touch "$1/trial" && rm "$1/trial"'


def _candidates() -> Iterator[tuple[str, ...]]:
    account = pwd.getpwnam(UNPRIVILEGED)
    change = ("--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups")
    yield (*change, "--inh-caps=-all")
    for capability in ("dac_read_search", "dac_override"):  # containers often lack the first
        kept = f"-all,+{capability}"
        # PostgreSQL finds its programs with access(2), which checks the real user's rights and
        # ignores the rights kept here without this securebit.
        yield (
            *("--securebits", "+no_setuid_fixup"),
            *change,
            *(f"--inh-caps={kept}", f"--ambient-caps={kept}"),
        )
