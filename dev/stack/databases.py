"""Databases for tests on the stack's PostgreSQL server."""

from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql


def create(database_url: str, *, name: str, template: str | None = None) -> str:
    """Create an empty database, or a copy of `template`, and return its URL.

    A database of that name is dropped first. The template must have no connections.
    """
    with _administration(database_url) as connection:
        connection.execute(_dropping(name))
        connection.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(name), sql.Identifier(template or "template0")
            )
        )
    return address_of(database_url, name=name)


def drop(database_url: str, *, name: str) -> None:
    """Drop a database and close its connections."""
    with _administration(database_url) as connection:
        connection.execute(_dropping(name))


def address_of(database_url: str, *, name: str) -> str:
    """Return the URL of another database on the same server."""
    return urlsplit(database_url)._replace(path=f"/{quote(name, safe='')}").geturl()


def _administration(database_url: str) -> psycopg.Connection:
    address = urlsplit(address_of(database_url, name="postgres"))
    # The scheme of a SQLAlchemy URL names the driver; libpq does not accept that.
    return psycopg.connect(address._replace(scheme="postgresql").geturl(), autocommit=True)


def _dropping(name: str) -> sql.Composed:
    return sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
