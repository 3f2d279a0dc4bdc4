"""The HTTP client for deliveries: checked connections, kept alive for the next event."""

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import httpx

from notifier.http.dns import CachingResolver, Resolver, open_lookup
from notifier.http.network import CheckedNetwork, ConnectTcp, Proxy, connect_tcp
from notifier.http.pool import Pool
from notifier.http.transport import BoundedClient, BoundedTransport
from schemas.policy.webhook_urls import Network
from schemas.settings import DeliverySettings


@asynccontextmanager
async def open_client(
    settings: DeliverySettings,
    *,
    allowed_networks: Sequence[Network],
    resolve: Resolver | None = None,
    connect: ConnectTcp = connect_tcp,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield the HTTP client for `attempt.post`.

    The client has no timeouts and no limit on concurrent requests; the caller has both.

    Args:
        settings: the proxy and the bound of idle connections.
        allowed_networks: networks that are allowed although they are not public.
        resolve: resolves host names; by default the name servers of ``resolv.conf`` do.
        connect: opens TCP connections.
        ssl_context: the trusted authorities; by default the public ones.
    """
    if ssl_context is None:
        ssl_context = httpx.create_ssl_context()
    ssl_context.set_alpn_protocols(["http/1.1"])
    async with AsyncExitStack() as stack:
        if resolve is None:
            resolve = CachingResolver(await stack.enter_async_context(open_lookup()))
        pool = Pool(idle_max=settings.webhook_idle_connections)
        network = CheckedNetwork(
            pool=pool,
            resolve=resolve,
            allowed_networks=allowed_networks,
            ssl_context=ssl_context,
            proxy=_proxy(settings),
            connect=connect,
        )
        yield await stack.enter_async_context(
            BoundedClient(transport=BoundedTransport(pool=pool, network=network))
        )


def _proxy(settings: DeliverySettings) -> Proxy | None:
    if settings.webhook_proxy is None:
        return None
    parts = urlsplit(settings.webhook_proxy)
    credentials = settings.webhook_proxy_credentials
    return Proxy(
        host=parts.hostname or "",
        port=parts.port or 0,
        authorization=None if credentials is None else Proxy.basic(credentials.get_secret_value()),
    )
