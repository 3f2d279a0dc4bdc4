"""The database schema's history, run by `alembic upgrade head`."""
