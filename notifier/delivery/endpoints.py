"""The endpoints that deliveries need, decrypted and kept while they do not change."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import msgspec

from notifier.delivery.work import Endpoint, EndpointState
from schemas.ids import TenantId, WebhookId
from schemas.key_ring import DecryptionFailed, KeyRing
from schemas.policy import webhook_headers, webhook_secrets, webhook_signing
from schemas.policy.webhook_secrets import SecretMalformed
from schemas.policy.webhook_signing import Signer

KEPT: Final = 10_000
"""Endpoints in memory, with two KiB each."""


CONCURRENCY: Final = 10
"""Most attempts of an endpoint at the same time, unless it has another bound."""


class NoUsableSecret(Exception):
    """No secret of the endpoint can sign; the message does not contain a secret."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UsableSecret:
    signer: Signer = field(repr=False)
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyEndpoint:
    """An endpoint whose secrets and headers are decrypted.

    Attributes:
        receiver: scheme, host and port of the URL.
        headers: further headers of every request.
        shown_headers: the same with the values that a log may show.
        problem: why nothing can be sent; None if it can.
    """

    webhook_id: WebhookId
    tenant_id: TenantId
    version: int
    state: EndpointState
    url: str = field(repr=False)
    receiver: str
    secrets: Sequence[UsableSecret] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    shown_headers: Mapping[str, str] = field(default_factory=dict)
    timeout: timedelta
    concurrency: int = CONCURRENCY
    rate: float | None = None
    problem: str | None = None

    def signers(self, now: datetime) -> list[Signer]:
        """Return the secrets that sign a request at `now`.

        Raises:
            NoUsableSecret: no secret is left, or one cannot be read.
        """
        if self.problem is not None:
            raise NoUsableSecret(self.problem)
        signers = [
            secret.signer
            for secret in self.secrets
            if secret.expires_at is None or now < secret.expires_at
        ]
        if not signers:
            raise NoUsableSecret("every secret has expired")
        return signers


def prepare(endpoint: Endpoint, *, keys: KeyRing, timeout: timedelta) -> ReadyEndpoint:
    """Decrypt what requests to an endpoint need.

    Args:
        endpoint: as the database has it.
        keys: decrypt its secrets and headers.
        timeout: for an endpoint without its own.
    """
    secrets: list[UsableSecret] = []
    headers: Sequence[webhook_headers.Header] = ()
    problem = None
    try:
        for stored in endpoint.secrets:
            text = webhook_secrets.decrypt(stored.secret, webhook_id=endpoint.webhook_id, keys=keys)
            secrets.append(
                UsableSecret(signer=webhook_signing.parse(text), expires_at=stored.expires_at)
            )
        headers = webhook_headers.decrypt(
            endpoint.headers, webhook_id=endpoint.webhook_id, keys=keys
        )
    except (DecryptionFailed, SecretMalformed) as error:
        # A request with fewer signatures or headers would be refused by a receiver that needs them.
        problem = str(error)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # A later version has written them. The error could quote them.
        problem = f"decrypted, but malformed: {type(error).__name__}"
    return ReadyEndpoint(
        webhook_id=endpoint.webhook_id,
        tenant_id=endpoint.tenant_id,
        version=endpoint.version,
        state=endpoint.state,
        url=endpoint.url,
        receiver=_receiver(endpoint.url),
        secrets=secrets,
        headers={header.name.lower(): header.value for header in headers},
        shown_headers={
            header.name.lower(): header.value for header in webhook_headers.redact(headers)
        },
        timeout=endpoint.timeout or timeout,
        concurrency=endpoint.concurrency or CONCURRENCY,
        rate=endpoint.rate,
        problem=problem,
    )


def _receiver(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or ""
    except ValueError:
        # The attempt is refused with a reason.
        return ""
    return f"{parts.scheme}://{parts.hostname}:{port}"


class EndpointCache:
    """The endpoints that were used last; an endpoint is forgotten when it changes."""

    def __init__(self, *, keys: KeyRing, timeout: timedelta, size: int = KEPT) -> None:
        self._keys = keys
        self._timeout = timeout
        self._size = size
        self._endpoints: OrderedDict[WebhookId, ReadyEndpoint] = OrderedDict()
        # While endpoints are read: those that have changed meanwhile.
        self._changed = set[WebhookId]()
        self._all_changed = False

    def get(self, webhook_id: WebhookId) -> ReadyEndpoint | None:
        endpoint = self._endpoints.get(webhook_id)
        if endpoint is not None:
            self._endpoints.move_to_end(webhook_id)
        return endpoint

    def start_reading(self) -> None:
        """Note which endpoints change until `add`: what is read may be older."""
        self._changed.clear()
        self._all_changed = False

    def add(self, read: Mapping[WebhookId, Endpoint]) -> set[WebhookId]:
        """Keep endpoints that were read; return those that changed meanwhile and are not kept."""
        changed = set(read) if self._all_changed else self._changed & read.keys()
        for webhook_id, endpoint in read.items():
            if webhook_id not in changed:
                self._endpoints[webhook_id] = prepare(
                    endpoint, keys=self._keys, timeout=self._timeout
                )
                self._endpoints.move_to_end(webhook_id)
        while len(self._endpoints) > self._size:
            self._endpoints.popitem(last=False)
        return changed

    def forget(self, webhook_id: WebhookId) -> None:
        """Forget an endpoint that has changed."""
        self._endpoints.pop(webhook_id, None)
        self._changed.add(webhook_id)

    def forget_all(self) -> None:
        """Forget every endpoint: notifications may have been lost."""
        self._endpoints.clear()
        self._all_changed = True
