"""A proxy that can cut connections, as a restart or a network failure does."""

import asyncio

from sqlalchemy.engine import make_url
from yarl import URL

from schemas.settings import BrokerSettings, DatabaseSettings
from tests.tcp_proxy import TcpProxy


class Proxy(TcpProxy):
    """A proxy that returns settings which lead through it."""

    def in_front_of_broker(self, settings: BrokerSettings) -> BrokerSettings:
        """Return the settings of the same broker behind this proxy."""
        url = URL(settings.rabbitmq_url.get_secret_value())
        through = str(url.with_host("127.0.0.1").with_port(self.port))
        return BrokerSettings.model_validate({"rabbitmq_url": through})

    def in_front_of_database(self, settings: DatabaseSettings) -> DatabaseSettings:
        """Return the settings of the same database behind this proxy."""
        url = make_url(settings.database_url.get_secret_value())
        through = url.set(host="127.0.0.1", port=self.port, query={"sslmode": "disable"})
        return DatabaseSettings.model_validate(
            {"database_url": through.render_as_string(hide_password=False)}
        )


def to_broker(settings: BrokerSettings) -> Proxy:
    url = URL(settings.rabbitmq_url.get_secret_value())
    return Proxy(lambda: asyncio.open_connection(url.host, url.port or 5672))


def to_database(settings: DatabaseSettings) -> Proxy:
    url = make_url(settings.database_url.get_secret_value())
    host = str(url.query.get("host", url.host))
    port = url.port or 5432
    if host.startswith("/"):
        return Proxy(lambda: asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}"))
    return Proxy(lambda: asyncio.open_connection(host, port))
