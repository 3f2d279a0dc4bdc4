"""Virtual hosts for tests on the stack's broker."""

import ssl
from collections.abc import Mapping
from functools import cache
from urllib.parse import quote, unquote, urlsplit

import httpx

from dev.stack.errors import SettingMissing


def create(settings: Mapping[str, str], *, name: str) -> str:
    """Create an empty virtual host, replacing one of that name; return its AMQP URL."""
    user = unquote(urlsplit(settings["RABBITMQ_URL"]).username or "guest")
    with _management(settings) as management:
        _delete(management, name)
        management.put(f"/api/vhosts/{quote(name, safe='')}").raise_for_status()
        management.put(
            f"/api/permissions/{quote(name, safe='')}/{quote(user, safe='')}",
            json={"configure": ".*", "write": ".*", "read": ".*"},
        ).raise_for_status()
    address = urlsplit(settings["RABBITMQ_URL"])
    return address._replace(path=f"/{quote(name, safe='')}").geturl()


def names(settings: Mapping[str, str]) -> list[str]:
    """Return the names of all virtual hosts of the broker, without the default one."""
    with _management(settings) as management:
        found = management.get("/api/vhosts").raise_for_status().json()
    return [vhost["name"] for vhost in found if vhost["name"] != "/"]


def delete(settings: Mapping[str, str], *, name: str) -> None:
    """Delete a virtual host and its contents; close its connections."""
    with _management(settings) as management:
        _delete(management, name)


def _delete(management: httpx.Client, name: str) -> None:
    answer = management.delete(f"/api/vhosts/{quote(name, safe='')}")
    if answer.status_code != httpx.codes.NOT_FOUND:
        answer.raise_for_status()


def _management(settings: Mapping[str, str]) -> httpx.Client:
    if "RABBITMQ_MANAGEMENT_URL" not in settings:
        raise SettingMissing(
            "RABBITMQ_MANAGEMENT_URL", because="virtual hosts are created with the management API"
        )
    return httpx.Client(
        base_url=settings["RABBITMQ_MANAGEMENT_URL"],
        timeout=30,
        trust_env=False,
        verify=_authorities(),
    )


@cache
def _authorities() -> ssl.SSLContext:
    """Return the public authorities; to read them for each client would take longer than its requests."""
    return httpx.create_ssl_context()
