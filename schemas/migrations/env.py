"""Entry point of Alembic: runs the versions in this directory on `DATABASE_URL`."""

import os
from pathlib import Path

from alembic import context
from sqlalchemy import create_engine, pool

from schemas.tables import Base

DATABASE_URL_SECRET = Path("/run/secrets/database_url")


def database_url() -> str:
    """Return `DATABASE_URL` of the environment, or of the secret file."""
    url = os.environ.get("DATABASE_URL")  # noqa: TID251  # the migration is a process; this is its settings module
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
            # Without the lock, two concurrent deploys would run the same version twice.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7283001)")
            context.run_migrations()


run_migrations()
