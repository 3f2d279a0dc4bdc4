"""An operator sees in the broker and in the database which process each connection belongs to."""

from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
from sqlalchemy.engine import make_url

from dev.stack.stack import Stack
from tests.eventually import eventually


def listed(system: Stack, path: str) -> list[dict[str, Any]]:
    """Return a list of the management UI, for the virtual host of the system."""
    vhost = quote(urlsplit(system.environment["RABBITMQ_URL"]).path.strip("/"), safe="")
    url = system.environment["RABBITMQ_MANAGEMENT_URL"]
    answer = httpx.get(f"{url}/api/{path.format(vhost)}", trust_env=False)
    found: list[dict[str, Any]] = answer.raise_for_status().json()
    return found


def test_connections_to_the_broker_have_the_name_of_their_process(system: Stack) -> None:
    expected = {
        "waybill-relay",
        "waybill-deliver",
        "waybill-deliver-dead-letters",
        "waybill-pipeline-beat",
        "waybill-pipeline-batch_processing",
        "waybill-pipeline-document_processing",
        "waybill-pipeline-exports",
        "waybill-pipeline-metadata_extraction",
        "waybill-pipeline-ocr_processing",
        "waybill-pipeline-maintenance+uploads",
        "waybill-pipeline-search_indexing+search_maintenance",
    }
    eventually(
        lambda: {
            each["client_properties"].get("connection_name")
            for each in listed(system, "vhosts/{}/connections")
        },
        until=expected.__eq__,
    )


def test_consumers_have_the_name_of_their_process(system: Stack) -> None:
    def owners() -> set[str]:
        return {each["consumer_tag"].partition("@")[0] for each in listed(system, "consumers/{}")}

    expected = {
        "NotifyConsumer",
        "DeadLetterConsumer",
        "waybill-pipeline-batch_processing",
        "waybill-pipeline-document_processing",
        "waybill-pipeline-exports",
        "waybill-pipeline-metadata_extraction",
        "waybill-pipeline-ocr_processing",
        "waybill-pipeline-maintenance+uploads",
        "waybill-pipeline-search_indexing+search_maintenance",
    }
    eventually(owners, until=expected.__eq__)


def test_connections_to_the_database_have_the_name_of_their_process(system: Stack) -> None:
    expected = {
        "waybill-gateway-listener",
        "waybill-gateway-readiness",
        "waybill-pipeline-maintenance+uploads",
        "waybill-pipeline-ocr_processing",
        "waybill-pipeline-search_indexing+search_maintenance",  # `tasks.fill_index`
        "waybill-relay",
        "waybill-deliver",
    }
    url = make_url(system.environment["DATABASE_URL"]).set(drivername="postgresql")
    with psycopg.connect(
        url.render_as_string(hide_password=False), application_name="test", autocommit=True
    ) as connection:

        def names() -> set[str]:
            # The first probe of a gateway opens its connection.
            httpx.get(f"{system.url}/health/ready", trust_env=False).raise_for_status()
            return {
                name
                for (name,) in connection.execute(
                    "SELECT application_name FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            }

        found = eventually(names, until=expected.issubset)
    assert {name.partition("-")[0] for name in found} == {"waybill"}
