"""Alembic's entry point: connects to `DATABASE_URL` and runs the versions beside it."""

import os
from pathlib import Path

from alembic import context
from sqlalchemy import create_engine, pool

from schemas.tables import Base

DATABASE_URL_SECRET = Path("/run/secrets/database_url")


def database_url() -> str:
    """Return where to migrate: the environment's URL, or the secret file's."""
    url = os.environ.get("DATABASE_URL")  # noqa: TID251  # the migration is a process of its own, and this is its settings.py
    if url:
        return url
    if DATABASE_URL_SECRET.is_file():
        return DATABASE_URL_SECRET.read_text().strip()
    raise SystemExit("DATABASE_URL is not set and /run/secrets/database_url does not exist")


def run_migrations() -> None:
    engine = create_engine(database_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection, target_metadata=Base.metadata, compare_server_default=True
        )
        with context.begin_transaction():
            # Two deploys that migrate at once would run the same version twice.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7283001)")
            context.run_migrations()


run_migrations()
