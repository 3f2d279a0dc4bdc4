from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import sessionmaker

from pipeline.context import CONNECTION, Context, build_context
from pipeline.ingest.extractors import registry
from pipeline.settings import Settings
from schemas import staging_layout
from schemas.runtime import postgres
from schemas.runtime.database_clock import DatabaseClock
from schemas.settings import DatabaseSettings, ObjectStoreSettings
from tests.factories.secret_keys import KEY
from tests.fakes.storage import FakeStorage


@pytest.fixture
def context(database: DatabaseSettings, tmp_path: Path) -> Iterator[Context]:
    """A real database and staging directory, and a store in memory."""
    (tmp_path / staging_layout.MARKER).touch()
    settings = Settings(
        database_url=database.database_url,
        rabbitmq_url=SecretStr("amqp://nobody@127.0.0.1/none"),
        staging_dir=tmp_path,
        secret_keys=SecretStr(KEY),
        s3_bucket="none",
        s3_access_key_id=SecretStr("none"),
        s3_secret_access_key=SecretStr("none"),
    )
    engine = postgres.build_engine(settings, connection=CONNECTION)
    yield Context(
        settings=settings,
        engine=engine,
        transaction=sessionmaker(engine, expire_on_commit=False).begin,
        storage=FakeStorage(),
        clock=DatabaseClock(difference_max=settings.clock_difference_max),
        will_be_read=registry.will_be_read,
    )
    engine.dispose()


@pytest.fixture
def with_store(context: Context, object_store_settings: ObjectStoreSettings) -> Context:
    """The same context with a real store."""
    built = build_context(
        context.settings.model_copy(update=object_store_settings.model_dump()),
        will_be_read=registry.will_be_read,
    )
    built.engine.dispose()
    return replace(context, storage=built.storage)
