"""Entry point of Alembic: runs the versions in this directory on `DATABASE_URL`."""

from alembic import context
from sqlalchemy import create_engine, pool

from schemas.runtime.settings_loader import ServiceSettings
from schemas.settings import DatabaseSettings
from schemas.tables import Base


class Settings(DatabaseSettings, ServiceSettings):
    """Settings of the migration."""


def _is_partition(table: str) -> bool:
    """Return whether a sweep added the table, or a migration as a default partition."""
    parent, _, part = table.rpartition("_")
    return parent in Base.metadata.tables and (part == "default" or part.isdecimal())


def run_migrations() -> None:
    settings = Settings.load(service="migrations")
    engine = create_engine(settings.database_url.get_secret_value(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_server_default=True,
            include_name=lambda name, kind, _: kind != "table" or not _is_partition(str(name)),
        )
        with context.begin_transaction():
            # Without the lock, two concurrent deploys would run the same version twice.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7283001)")
            context.run_migrations()


run_migrations()
