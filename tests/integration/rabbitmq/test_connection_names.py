"""Every connection to the broker has a name in the management UI."""

from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from pydantic import SecretStr

from dev.stack.stack import Stack
from notifier import broker as notifier_broker
from pipeline import celery_app
from pipeline.settings import Settings
from schemas.settings import BrokerSettings
from tests.eventually import eventually
from tests.factories.secret_keys import KEY


def names(infrastructure: Stack, broker: BrokerSettings) -> set[str]:
    """Return the names of the connections to the broker's virtual host."""
    vhost = broker.rabbitmq_url.get_secret_value().rpartition("/")[2]
    url = infrastructure.environment["RABBITMQ_MANAGEMENT_URL"]
    answer = httpx.get(f"{url}/api/vhosts/{vhost}/connections", trust_env=False)
    connections: list[dict[str, Any]] = answer.raise_for_status().json()
    return {str(each["client_properties"].get("connection_name")) for each in connections}


def test_celerys_connections_have_a_name(infrastructure: Stack, broker: BrokerSettings) -> None:
    settings = Settings(
        database_url=SecretStr("postgresql+psycopg://nobody@127.0.0.1/none"),
        rabbitmq_url=broker.rabbitmq_url,
        secret_keys=SecretStr(KEY),
        s3_bucket="none",
        s3_access_key_id=SecretStr("none"),
        s3_secret_access_key=SecretStr("none"),
        staging_dir=Path("none"),
    )
    app = Celery(set_as_current=False)
    app.conf.update(celery_app.configuration(settings))
    celery_app.name_connections(app, role="beat")
    with closing(app.connection_for_read()) as connection:
        connection.connect()
        eventually(lambda: names(infrastructure, broker), until={"waybill-pipeline-beat"}.__eq__)


@pytest.mark.anyio
async def test_the_notifiers_connections_have_a_name(
    infrastructure: Stack, broker: BrokerSettings
) -> None:
    async with await notifier_broker.connect(broker, name="waybill-relay"):
        eventually(lambda: names(infrastructure, broker), until={"waybill-relay"}.__eq__)
