"""The revisions of the database that this program has migrations for."""

from functools import cache
from importlib import resources


@cache
def known() -> tuple[str, ...]:
    """Return every revision, the oldest first.

    The names of the files begin with the revision. Alembic would import every migration.
    """
    versions = resources.files("schemas.migrations") / "versions"
    names = (file.name for file in versions.iterdir() if file.name.endswith(".py"))
    return tuple(sorted(name.partition("_")[0] for name in names))
