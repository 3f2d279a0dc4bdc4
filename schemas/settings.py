"""Every setting of the system, in sections.

Sections are plain models. Each service composes the sections it needs in its own
``settings.py``; only ``schemas.runtime.settings_loader`` reads the environment. A field's name
in capitals is its environment variable; its description is its line in docs/settings.md.
"""

import re
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from schemas.key_ring import KeyMalformed, KeyRing
from schemas.lifecycle import StagingKind

MIB = 1024 * 1024
GIB = 1024 * MIB

_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")


def _duration(value: object) -> object:
    """Read ``250ms``, ``10s``, ``5m``, ``24h``, ``7d`` or plain seconds; ISO 8601 passes through."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    return value


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


# A separator inside a password is followed by no scheme.
_BROKER_SEPARATOR: Final = re.compile(r"[,;]\s*(?=[a-z0-9+]+://)", re.IGNORECASE)


def _broker_urls(value: str) -> tuple[str, ...]:
    """Split and check the URLs of brokers.

    Raises:
        ValueError: there is no URL, or one is invalid; the message contains no URL, because a URL
            contains a password.
    """
    urls = tuple(url.strip() for url in _BROKER_SEPARATOR.split(value.strip(" ,;")))
    for place, url in enumerate(urls, start=1):
        try:
            parts = urlsplit(url)
            is_address = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_address = False
        if not is_address or parts.scheme not in {"amqp", "amqps"}:
            raise ValueError(
                f"URL {place} of {len(urls)} is not of the form amqp://user:password@host:port/vhost"
            )
    if len({urlsplit(url).path for url in urls}) > 1:
        raise ValueError("every URL must name the same virtual host of one cluster")
    return urls


_ORIGIN: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://[a-z0-9._-]+(:[0-9]{1,5})?|[a-z]+://\[[0-9a-f:]+\](:[0-9]{1,5})?"
)
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    """Check origins, each as a browser writes it.

    Raises:
        ValueError: a browser never sends one of the origins, so no page would be allowed.
    """
    for origin in value:
        default_port = _DEFAULT_PORTS.get(origin.partition(":")[0], " ")
        if origin != "*" and (not _ORIGIN.fullmatch(origin) or origin.endswith(default_port)):
            raise ValueError(
                f"{origin!r} is no origin such as https://app.example.com: in lower case, without"
                " a path, with a port only if it is not the default"
            )
    if "*" in value and len(value) > 1:
        raise ValueError("* allows every origin: name no other")
    return value


Positive = Annotated[int, Field(ge=1)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]
Durations = Annotated[tuple[Duration, ...], BeforeValidator(_comma_separated)]
Names = Annotated[tuple[str, ...], BeforeValidator(_comma_separated), Field(min_length=1)]
# The message of `ip_network` names the fault; pydantic would report one for each type of the union.
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(ip_network)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(_comma_separated)]

Origins = Annotated[tuple[str, ...], BeforeValidator(_comma_separated), AfterValidator(_origins)]


class DatabaseSettings(BaseModel):
    database_url: SecretStr = Field(
        description="PostgreSQL 16 or newer, as `postgresql+psycopg://user:password@host:port/database`",
    )
    database_pool_size: Positive = Field(
        default=10,
        description="most connections of a process; a gateway uses as many again for chunks. Further requests wait for a free connection",
    )
    clock_difference_max: Duration = Field(
        default=timedelta(seconds=30),
        description="how far the clock of a process may be from the database's. A gateway beyond it is not ready; other processes log `clock.wrong` at error level. Times that decide something are the database's, but the store refuses requests signed by a wrong clock, and logs mislead. The default is more than NTP needs, and less than the minutes that stores and webhook receivers tolerate",
    )


class BrokerSettings(BaseModel):
    rabbitmq_url: SecretStr = Field(
        validation_alias=AliasChoices("rabbitmq_url", "celery_broker_url"),
        description="RabbitMQ 3.10 or newer, as `amqp://user:password@host:port/vhost`; several nodes of one cluster are separated by commas, and a process that loses one continues on another. Also read from `CELERY_BROKER_URL`",
    )
    publish_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="how long a publish waits for the broker's confirm; without a limit it would wait for ever under a memory alarm",
    )

    @field_validator("rabbitmq_url")
    @classmethod
    def _check_urls(cls, value: SecretStr) -> SecretStr:
        _broker_urls(value.get_secret_value())
        return value

    @property
    def rabbitmq_urls(self) -> tuple[str, ...]:
        """The URL of each broker; all are nodes of one cluster."""
        return _broker_urls(self.rabbitmq_url.get_secret_value())


class SecretSettings(BaseModel):
    """The keys of the secrets in the database."""

    secret_keys: SecretStr = Field(
        description="keys of the secrets in the database, comma separated; each is 32 random bytes in base64 (`openssl rand -base64 32`). They are the secrets of webhooks and the passwords of documents. The first key encrypts, every key decrypts. Of the notifier only deliver reads it. Without its key a secret is lost: back the keys up, apart from the database",
    )

    @field_validator("secret_keys")
    @classmethod
    def _check_keys(cls, value: SecretStr) -> SecretStr:
        try:
            KeyRing.parse(value.get_secret_value())
        except KeyMalformed as error:
            raise ValueError(f"{error}; `openssl rand -base64 32` makes a key") from None
        return value

    @cached_property
    def key_ring(self) -> KeyRing:
        return KeyRing.parse(self.secret_keys.get_secret_value())


class ObjectStoreSettings(BaseModel):
    s3_endpoint_url: str | None = Field(
        default=None, description="S3-compatible endpoint; unset means AWS"
    )
    s3_region: str = Field(default="us-east-1", description="region used to sign requests")
    s3_bucket: str = Field(description="the bucket; it must exist")
    s3_access_key_id: SecretStr = Field(description="access key")
    s3_secret_access_key: SecretStr = Field(description="secret key")
    s3_part_size: ByteSize = Field(
        default=ByteSize(32 * MIB),
        ge=5 * MIB,
        le=5 * GIB,
        description="preferred part size of a multipart upload. Smaller parts cost the store more work; with larger parts a crash repeats more bytes. Grows for a file that would need more than `S3_MAX_PARTS`",
    )
    s3_max_parts: Positive = Field(
        default=10_000,
        le=10_000,
        description="most parts the store accepts in one multipart upload (AWS: 10,000; some stores: 1,000)",
    )
    s3_parallel_parts: Positive = Field(
        default=4,
        description="parts a worker sends at the same time, each with a buffer",
    )
    s3_connect_timeout: Duration = Field(
        default=timedelta(seconds=5), description="time to connect to the store"
    )
    s3_read_timeout: Duration = Field(
        default=timedelta(seconds=60), description="longest silence of the store within a request"
    )
    s3_attempts: Positive = Field(
        default=5, description="attempts at one request before the whole transfer is retried later"
    )
    s3_checksum_mode: Literal["auto", "when_supported", "when_required"] = Field(
        default="auto",
        description="`when_supported` adds CRC32 trailers, which older S3-compatible stores refuse or store as data. `auto` tests once whether the store verifies the Content-MD5 of every body, and adds a CRC32 only if it does not",
    )
    s3_ca_bundle: Path | None = Field(
        default=None,
        description="file with the trusted certificates for `https` endpoints; unset means the system's certificates",
    )


class LinkSettings(BaseModel):
    """Links to stored files, which clients fetch from the object store."""

    document_link_ttl: Duration = Field(
        default=timedelta(minutes=5),
        ge=timedelta(seconds=1),
        le=timedelta(days=7),
        description="how long the link to a document's file works; a download that has begun continues. Whoever has the link can read the file, and proxies log URLs: keep it short. The store's signatures last 7 days at most",
    )
    s3_public_url: str | None = Field(
        default=None,
        description="endpoint under which clients reach the object store, such as `https://files.example.com`, if it is not `S3_ENDPOINT_URL`: the host is part of a link's signature",
    )

    @field_validator("s3_public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = urlsplit(value)
            if parts.scheme not in {"http", "https"} or not parts.hostname:
                raise ValueError("it is no URL such as https://files.example.com")
        return value


class PageImageSettings(BaseModel):
    page_images_max: Positive = Field(
        default=1_000,
        description="most images of pages and figures of one document, over all its revisions that are not deleted yet; the next one is refused with 422 `document_limit`. No quota counts images, and a file of a few kB may have thousands of pages, so that a client could fill the bucket. An image of a page takes 0.5 MB at most (400 by 400 pixels), mostly 30 kB, one of a figure 2 MB (800 by 800 pixels): the default limits the images of a document to 2 GB",
    )


class SearchSettings(BaseModel):
    search_candidates: Positive = Field(
        default=500,
        description="passages with words of a query that a search compares. Rare words select them; of common words alone there may be more, which the answer states as `is_capped`. A thousand cost about 15 ms",
    )
    search_results_max: Positive = Field(
        default=200,
        le=1_000,
        description="most hits of a ranking, over all its pages: nobody reads further, and each page makes the ranking anew",
    )
    search_exact_max: Positive = Field(
        default=100_000,
        description="passages of a tenant up to which a search may compare every vector, which finds all of the nearest and takes about 1 ms for a thousand. It does so where the index of vectors takes longer, because that has the vectors of all tenants: for 30 times `SEARCH_EF` passages in any case, and for 40,000 of a million. Beyond, the index finds most of the nearest",
    )
    search_ef: Positive = Field(
        default=1_000,
        le=1_000,
        description="vectors that the index of vectors keeps as the nearest while it searches, `hnsw.ef_search` of pgvector. Of the ten nearest of a million, it finds 96 % with 1,000, 92 % with 400 and 81 % with 100; 1,000 takes twice as long as 100",
    )
    search_scan_max: Positive = Field(
        default=40_000,
        description="vectors of all tenants that the index visits at most to find those of one tenant that meet the filters. Of the ten nearest among 1 % of a million vectors, it finds 95 % with 40,000, and 92 % with 20,000 in two thirds of the time",
    )
    search_timeout: Duration = Field(
        default=timedelta(seconds=2),
        description="longest time of a statement of a search. Words that take longer answer 503 `search_timeout`; vectors that take longer are left out, and `semantic` states it",
    )


class StagingSettings(BaseModel):
    staging: Literal[StagingKind.DIRECTORY, StagingKind.OBJECTS] = Field(
        default=StagingKind.DIRECTORY,
        description="where received chunks are kept until the transfer: `directory` is `STAGING_DIR`, on a volume that all gateways and transfer workers share; `s3` is the bucket, under `staging/`, and needs no shared volume. After a change, open uploads finish where they were created",
    )
    staging_dir: Path | None = Field(
        default=None,
        description="directory for received chunks, shared by gateways and transfer workers; required if `STAGING=directory`",
    )

    @model_validator(mode="after")
    def _require_directory(self) -> Self:
        if self.staging == StagingKind.DIRECTORY and self.staging_dir is None:
            raise ValueError("STAGING_DIR is required if STAGING=directory")
        return self


class ScratchSettings(BaseModel):
    work_dir: Path | None = Field(
        default=None,
        description="directory for temporary files; unset means the system's temporary directory. With `STAGING=s3` a chunk is kept here until the bucket has it: put it on a disk, because the files of a tmpfs count as memory",
    )


class UploadSettings(BaseModel):
    upload_ttl: Duration = Field(
        default=timedelta(hours=24), description="how long an upload accepts chunks"
    )
    form_lease: Duration = Field(
        default=timedelta(minutes=5),
        description="how long the upload of a form stays open after its gateway stops; no other gateway can finish it. Renewed while the form arrives, for up to `UPLOAD_TTL`. Keep it longer than a database outage that a form should survive",
    )
    chunk_size_default: ByteSize = Field(
        default=ByteSize(8 * MIB),
        ge=64 * 1024,
        description="chunk size if the client requests none; files of more than a thousand such chunks get larger chunks, up to `CHUNK_SIZE_MAX`",
    )
    chunk_size_min: ByteSize = Field(
        default=ByteSize(64 * 1024),
        ge=1,
        description="smallest chunk size a client may request; each chunk costs a request, an fsync and a row",
    )
    chunk_size_max: ByteSize = Field(
        default=ByteSize(64 * MIB),
        description="largest chunk size a client may request; a broken connection loses at most one chunk",
    )
    chunk_count_max: Positive = Field(
        default=20_000,
        description="most chunks of one upload; larger files get larger chunks",
    )
    chunk_lock_wait: Duration = Field(
        default=timedelta(seconds=10),
        description="how long a repeated chunk waits for an earlier request that still writes the same chunk; then 423 `chunk_in_progress`. A slow earlier request ends within about 3 s (`CHUNK_KEEP_RATE`)",
    )
    chunk_keep_rate: ByteSize = Field(
        default=ByteSize(64 * 1024),
        description="bytes per second, over 2 s, with which a request keeps its chunk although a newer request sends the same chunk; a slower one is ended, because its client has usually lost the connection. Two living senders of one chunk that are both slower end each other. `0` ends only a request that receives nothing for 2 s",
    )
    staging_reserve: ByteSize = Field(
        default=ByteSize(256 * MIB),
        description="free space kept on the staging disk. A create or a chunk that would use the reserve is answered with 507; a chunk that is already stored is still acknowledged",
    )
    uploads_async_enabled: bool = Field(
        default=True,
        description="`false` makes finalize wait for the end of the job and answer 200, for clients that do not poll yet",
    )
    wait_max: Duration = Field(
        default=timedelta(seconds=50),
        description="longest time that `?wait=` or `Prefer: wait` holds a request open. Keep it shorter than the read timeout of the proxies before the gateway, by default 60 s in nginx and in load balancers: a longer wait ends as 504",
    )
    sync_wait_max: Duration = Field(
        default=timedelta(minutes=15),
        description="longest time that finalize waits if `UPLOADS_ASYNC_ENABLED=false`; then it answers 202",
    )


class QuotaSettings(BaseModel):
    """The default quotas of a tenant; an operator's command sets them for one tenant."""

    upload_max_size: ByteSize = Field(
        default=ByteSize(100 * GIB),
        description="largest accepted file; can be set per tenant",
    )
    quota_bytes: ByteSize | None = Field(
        default=None,
        description="most bytes of a tenant's open and stored uploads together; unset means no limit; can be set per tenant",
    )
    quota_open_uploads: Positive = Field(
        default=1_000,
        description="most open uploads of a tenant, each with its own staged bytes; can be set per tenant",
    )
    quota_staged_bytes: ByteSize | None = Field(
        default=None,
        description="most bytes of a tenant's open and finalized uploads together, which are staged until their transfer ends; unset means `QUOTA_STAGED_SHARE` of the staging disk, and no limit with `STAGING=s3`; can be set per tenant",
    )
    quota_staged_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="the share of the staging disk that the uploads of one tenant may take if `QUOTA_STAGED_BYTES` is unset. With the default one tenant cannot fill the disk for all others. A file larger than the share is refused with 413",
    )
    allowed_types: str = Field(
        default="*/*",
        description="allowed media types, comma separated, such as `application/pdf,image/*`; can be set per tenant. The type sniffed from the first bytes counts. If sniffing is inconclusive the declared type counts, unless it is a type that sniffing recognises",
    )


class HttpSettings(BaseModel):
    gateway_host: str = Field(default="127.0.0.1", description="address to listen on")
    gateway_port: int = Field(default=8000, ge=0, le=65535, description="port to listen on")
    trusted_proxies: Networks = Field(
        default=(),
        description="networks of the proxies in front of the gateway, comma separated, such as `10.0.0.0/8,fd00::/8`. The log shows the client's address from the `X-Forwarded-For` of these peers; from any other peer the field is ignored, because a client can write it. `Forwarded` is never read: a proxy that sets one of the two passes on what a client wrote into the other",
    )
    cors_origins: Origins = Field(
        default=(),
        description="origins whose pages may call the API from a browser, comma separated, such as `https://app.example.com,http://localhost:3000`; unset allows none. `*` allows every page; each still needs a key",
    )
    stream_token_ttl: Duration = Field(
        default=timedelta(minutes=5),
        description="how long a stream token opens its event stream. It is in a URL, which proxies log: keep it short. An open stream continues after it",
    )
    request_body_max: ByteSize = Field(
        default=ByteSize(MIB), description="largest JSON body; chunks have their own limits"
    )
    body_silence_max: Duration = Field(
        default=timedelta(seconds=60),
        description="longest time without a byte within a request body; then 408 `body_too_slow`, and the connection is closed. The default is that of nginx (`client_body_timeout`) and outlasts a change of the mobile network",
    )
    body_rate_min: ByteSize = Field(
        default=ByteSize(500),
        description="fewest bytes per second of a request body, over `BODY_SILENCE_MAX`; below it, the request ends in the same way. `0` allows every rate. The default is that of Apache (`mod_reqtimeout`): the slowest mobile networks are ten times as fast, and a client that sends a byte now and then cannot hold a request open",
    )
    api_key_cache: Duration = Field(
        default=timedelta(seconds=5),
        description="how long a gateway caches an API key; a revoked key works for at most this time after its revocation; its waits and streams end likewise, looked at once per second at most",
    )
    page_size_max: Positive = Field(default=200, description="most items on one page of a list")
    request_head_timeout: Duration = Field(
        default=timedelta(seconds=20),
        description="longest time for the head of a request, from its first byte, and for that byte on a new connection. A head fits into a few packets; Apache allows 20 s, nginx 60 s",
    )
    idle_connections_max: Positive = Field(
        default=5_000,
        description="most connections of a process without an open request: they wait for a request, or the rest of a body is discarded. One more closes the one that waits longest. Each costs a file descriptor and about 9 KiB, with an unfinished head up to 30 KiB. Keep it above the number of clients, or of the connections that proxies keep open: a client may send a request on a connection that is just being closed",
    )
    linger_silence: Duration = Field(
        default=timedelta(seconds=5),
        description="an answer may come before the whole body was read. The rest of the body is then read and discarded: otherwise the connection would be reset, and the client would lose the answer. It ends after such a silence (nginx: `lingering_timeout`)",
    )
    linger_time: Duration = Field(
        default=timedelta(seconds=30),
        description="longest time for which the rest of a body is discarded (nginx: `lingering_time`)",
    )
    linger_bytes: ByteSize = Field(
        default=ByteSize(GIB),
        description="most bytes of a body that are discarded: what a client with 300 Mbit/s sends in `LINGER_TIME`",
    )
    waits_per_key: Positive = Field(
        default=100,
        description="most requests of one API key that wait at once in one gateway process: long polls and event streams. A further one is answered with 429, and a finalize or a form at once with 202. A wait costs memory alone, at most 30 KiB; the limit keeps one client from holding all connections",
    )
    waits_max: Positive = Field(
        default=2_000,
        description="most requests of all API keys that wait at once in one gateway process. A further one is answered with 503 `system_busy` and `Retry-After`, and a finalize or a form at once with 202. With 30 KiB each the default takes 60 MiB; with the idle connections it fits the 512 MiB that compose.yaml gives a gateway. Raise it with the memory, and with the limit of open files",
    )


class BodySettings(BaseModel):
    """What the request bodies of one gateway process may hold at once.

    The defaults fit the memory limit of the gateway in compose.yaml, 512 MiB: 130 MiB for an idle
    process, 64 MiB of buffers, 32 MiB of bytes that wait for them, 64 MiB of JSON, 2,000 bodies with
    40 KiB each and up to 16 KiB unread. 110 MiB remain for waits and idle connections.
    """

    body_memory_max: ByteSize = Field(
        default=ByteSize(64 * MIB),
        ge=4 * MIB,
        description="memory for the buffers of chunks and forms in one gateway process, and as much again for JSON bodies that arrive. A body that pauses for a second holds no buffer. A process takes at most about 250 MiB (idle, waits and connections), 2.5 times `BODY_MEMORY_MAX`, and 56 KiB for each of `BODIES_MAX`: the defaults fit a container of 512 MiB",
    )
    body_memory_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="the share of `BODY_MEMORY_MAX` that the bodies of one tenant may take",
    )
    body_memory_wait: Duration = Field(
        default=timedelta(seconds=5),
        description="how long a body waits for a buffer; then it is answered with 503 `system_busy` and `Retry-After`. A healthy disk frees all buffers several times a second",
    )
    bodies_max: Positive = Field(
        default=2_000,
        description="most request bodies that arrive at once in one gateway process; more are answered with 503 `system_busy`. Each costs about 40 KiB and two file descriptors, also if its client stalls",
    )
    tenant_bodies_max: Positive = Field(
        default=1_000,
        description="most request bodies of one tenant that arrive at once in one gateway process; more are answered with 429 `too_many_bodies`. With the default one tenant cannot take the place of all others",
    )


class RequestRateSettings(BaseModel):
    """The request rate of a tenant, over all its keys; each gateway process counts for itself."""

    request_rate: float = Field(
        default=500,
        gt=0,
        allow_inf_nan=False,
        description="requests per second that one gateway process answers for one tenant, over all its keys; more are answered with 429. With N processes a tenant gets up to N times as many. The default is more than clients reach that send chunks of 1 MiB or poll with `?wait=`; it stops loops, not uploads. Lower it where many tenants share a small process",
    )
    request_burst: Positive = Field(
        default=2_000,
        description="requests that a tenant may send at once after a pause, such as the chunks of an upload; `REQUEST_RATE` then counts",
    )


class StepSettings(BaseModel):
    """Leases of steps, fair shares of the queues, and steps that no worker has."""

    step_lease: Duration = Field(
        default=timedelta(seconds=15),
        validation_alias=AliasChoices("step_lease", "transfer_lease"),
        description="how long the lease of a step lasts without renewal; then another worker takes over the step. Also read from `TRANSFER_LEASE`, its name in earlier versions",
    )

    tenant_steps_max: Positive = Field(
        default=4,
        description="most interactive steps of a tenant that are in one queue or at work; further steps wait in the database. Choose it from the number of worker processes of a queue to twice that number: with fewer, one tenant cannot occupy every process; with more, its steps make the queue longer for every other tenant. The default fits a worker with two processes",
    )
    tenant_bulk_steps_max: Positive = Field(
        default=2,
        description="the same for bulk steps, which are released only while no interactive step of the tenant has to wait",
    )
    step_overdue: Duration = Field(
        default=timedelta(minutes=5),
        description="how long a step may be in a queue before the watchdog gives its event to the broker again; doubles with each time, up to an hour. A queue that is longer than that gets harmless duplicates",
    )
    step_watch_every: Duration = Field(
        default=timedelta(seconds=30), description="how often beat starts the watchdog"
    )
    step_alarm_after: Positive = Field(
        default=5,
        description="how often a step is given to the broker before each further time is logged at error level",
    )


class BacklogSettings(BaseModel):
    """How much work may wait before new work is refused."""

    tenant_waiting_max: Positive = Field(
        default=20_000,
        description="most steps of a tenant that wait in the database; then its finalizes, forms and references are answered with 429. Each waiting step is a row, and its client waits for all steps before it",
    )
    system_waiting_max: Positive = Field(
        default=200_000,
        description="waiting steps of all tenants from which finalizes, forms and references are answered with 503: more than the workers do in the time that clients wait",
    )


class TransferSettings(BaseModel):
    transfer_slice: Duration = Field(
        default=timedelta(minutes=10),
        description="how long a transfer keeps one message unacknowledged. A longer transfer is put back into the queue after the next stored part and resumes from there. Keep it well under the broker's consumer timeout",
    )


class SweepSettings(BaseModel):
    sweep_every: Duration = Field(
        default=timedelta(minutes=5), description="how often beat starts each sweep"
    )
    sweep_grace: Duration = Field(
        default=timedelta(hours=1),
        description="age from which staged bytes or an object without an upload count as an orphan. Keep it longer than any clock difference and any request",
    )
    job_retention: Duration = Field(
        default=timedelta(days=7),
        description="how long a job is kept after its end, with its steps and with an upload that has no document; an upload that was never finalized is kept as long after its expiry. Documents and their files stay. Long enough to look at the failures of a weekend. Keep it at least as long as `IDEMPOTENCY_RETENTION`: a repeated request is answered with its job",
    )
    outbox_retention: Duration = Field(
        default=timedelta(days=7),
        description="how long the outbox remembers what was published; events themselves stay for `EVENT_RETENTION`",
    )
    event_retention: Duration = Field(
        default=timedelta(days=30),
        description="how long events are kept. They are deleted by the week, and only when no open job and no pending delivery needs an event of that week. Keep it longer than `WEBHOOK_RETRY_DELAYS` together",
    )
    inbox_retention: Duration = Field(
        default=timedelta(days=30),
        description="how long an applied event is remembered, so that it is not applied twice. Keep it longer than an event can wait in a queue or a dead-letter queue before it is delivered again",
    )
    idempotency_retention: Duration = Field(
        default=timedelta(days=7), description="how long an `Idempotency-Key` is remembered"
    )
    delivery_retention: Duration = Field(
        default=timedelta(days=30),
        description="how long an ended webhook delivery is kept, with all its attempts",
    )
    dead_letter_retention: Duration = Field(
        default=timedelta(days=90),
        description="how long a replayed or dropped dead letter is kept: long enough to compare an incident with earlier ones. A waiting dead letter is kept until an operator decides",
    )


class PdfEngine(StrEnum):
    """Which engine reads the text of PDFs."""

    AUTO = "auto"
    PDFIUM = "pdfium"
    PYPDF = "pypdf"


class IngestSettings(BaseModel):
    spacy_model: str = Field(
        default="blank:en",
        description="`blank:<language>`: rules find sentences and entities, and those of this language hold for text without a clear language. An installed spaCy pipeline or the path of one: its names of people, places and companies are added to the pages of its language. `none`: documents have neither language nor sentences, entities and key phrases",
    )
    pdf_engine: PdfEngine = Field(
        default=PdfEngine.AUTO,
        description="`pdfium` or `pypdf` alone, for example while one of them has a fault; by default PDFium reads, and pypdf where its text has signs of being misread",
    )
    pdf_timeout: Duration = Field(
        default=timedelta(seconds=120),
        description="CPU time that the reading of one document may cost, over all attempts; pages after that are missing. It is not wall time, so a busy machine reads the same pages, only later",
    )
    pdf_memory_max: ByteSize = Field(
        default=ByteSize(GIB),
        description="memory that the sandbox child may use beyond the worker's",
    )
    pdf_pages_max: Positive = Field(default=5_000, description="most pages read of one PDF")
    pdf_text_max: ByteSize = Field(
        default=ByteSize(50 * MIB), description="most text taken from one PDF"
    )
    pdf_file_max: ByteSize = Field(
        default=ByteSize(GIB),
        description="largest PDF that is read; a larger PDF is stored, and its job fails with `document_limit`",
    )
    read_cpu_share: Duration = Field(
        default=timedelta(seconds=10),
        description="CPU time that a document gets on `document_processing`: 1 s and 1 s for each 100 kB of the file, at most this. The other pages are read on `batch_processing`, so that large and hostile documents do not delay the others",
    )
    quarantine_after: Positive = Field(
        default=3,
        description="reader processes that a document may kill before it is not read any more",
    )
    reader_documents_max: Positive = Field(
        default=50,
        description="documents of one tenant that a reader child reads before a fresh one replaces it; bounds what a leak in a parser can grow to",
    )


class PassageSettings(BaseModel):
    passage_tokens: int = Field(
        default=200,
        ge=50,
        le=500,
        description="length of a passage in tokens of four characters: a paragraph. Search shows and ranks passages; a model for vectors reads no more than 256 or 512 tokens of each",
    )
    passage_overlap: int = Field(
        default=30,
        ge=0,
        le=100,
        description="tokens that a passage may repeat from the end of the one before, in whole sentences, so that a thought across their border is found",
    )

    @model_validator(mode="after")
    def _overlap_is_less_than_half(self) -> Self:
        if 2 * self.passage_overlap >= self.passage_tokens:
            raise ValueError("PASSAGE_OVERLAP must be less than half of PASSAGE_TOKENS")
        return self


_CLAMD: Final = "clamd://host:port or clamd+unix:///path/of/clamd.ctl"
_CLAMD_PORT: Final = 3310


class MalwareScanChoiceSettings(BaseModel):
    malware_scan: str | None = Field(
        default=None,
        description="clamd of ClamAV, as `clamd://host:port` or `clamd+unix:///path`: every stored file is sent to it (INSTREAM) before it can be read or downloaded. Unset means that nothing is scanned. The connection is not encrypted: use a private network. The gateways and the workers of `uploads` need the same value",
    )

    @field_validator("malware_scan")
    @classmethod
    def _check_scanner(cls, value: str | None) -> str | None:
        if not value:
            return None
        _clamd_at(value)
        return value

    @property
    def scanner(self) -> tuple[str, int] | Path | None:
        """Host and port of clamd, or its Unix socket; None if nothing is scanned."""
        return None if self.malware_scan is None else _clamd_at(self.malware_scan)


class MalwareScanSettings(BaseModel):
    malware_scan_required: bool = Field(
        default=True,
        description="`true`: a file that clamd does not scan as a whole fails with `document_unscannable`, and while clamd is away, files wait. `false` lets such files pass, marked `unscanned`",
    )
    malware_scan_wait_max: Duration = Field(
        default=timedelta(minutes=15),
        description="with `MALWARE_SCAN_REQUIRED=false`: how long a file waits for clamd before it passes. A restart of clamd takes about a minute",
    )
    malware_scan_timeout: Duration = Field(
        default=timedelta(minutes=5),
        description="longest time in which clamd takes no byte of a file, and longest wait for its verdict; then the scan is tried again later. Keep it longer than `MaxScanTime` of clamd (by default 2 min), and under `TASK_TIME_LIMIT`",
    )
    malware_scan_size_max: ByteSize = Field(
        default=ByteSize(100 * MIB),
        ge=1,
        description="largest file that is sent to clamd. The default is that of `StreamMaxLength` and `MaxFileSize` of clamd 1.x, but the configuration of Debian has 25 MB: neither may be smaller. clamd calls what is beyond its own limits clean, unless it has `AlertExceedsMax yes`",
    )


def _clamd_at(url: str) -> tuple[str, int] | Path:
    """Return host and port, or the path of the Unix socket, in the URL of a scanner.

    Raises:
        ValueError: it is no such URL.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment or parts.username is not None or parts.password is not None:
        raise ValueError(f"it is not of the form {_CLAMD}")
    if parts.scheme == "clamd+unix" and not parts.netloc and len(parts.path) > 1:
        return Path(parts.path)
    if parts.scheme == "clamd" and parts.hostname and parts.path in {"", "/"}:
        # `port` raises ValueError for one out of range.
        return parts.hostname, parts.port or _CLAMD_PORT
    raise ValueError(f"it is not of the form {_CLAMD}")


class TablesSettings(BaseModel):
    """The search for tables and figures, after a document is read."""

    tables_enabled: bool = Field(
        default=True,
        description="whether tables and figures of documents are found; an upload may switch it off for itself with `pipeline`",
    )
    tables_pages_max: Positive = Field(
        default=2_000,
        description="pages of one document that are searched for tables and figures; the others are listed in `tables_reasons`. A page takes 2 ms without lines, and about 15 ms with a table",
    )
    tables_timeout: Duration = Field(
        default=timedelta(minutes=5),
        description="CPU time to search one document, over all attempts; pages without a turn are listed in `tables_reasons`",
    )
    tables_page_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="CPU time to search one page, a hundred times what an ordinary page with tables takes; the next page follows",
    )
    tables_per_page_max: Positive = Field(
        default=50,
        description="tables found on one page; a printed page has few, and each further one is a row of the database that a drawing could make by the thousand",
    )
    figures_per_page_max: Positive = Field(
        default=100,
        description="figures found on one page, for the same reason",
    )
    table_cells_max: Positive = Field(
        default=20_000,
        description="places (rows times columns) of one table. A longer table goes on as another one, or lacks its last rows and says so: a table is one value of the database and one answer, 2 MB at most with the default",
    )
    table_text_max: ByteSize = Field(
        default=ByteSize(MIB),
        description="text of one table, as UTF-8; its rows after that are left out, and the table says so",
    )


class OcrEngineName(StrEnum):
    """Which engine recognises the text of pages that are pictures."""

    AUTO = "auto"
    TESSERACT = "tesseract"
    RAPIDOCR = "rapidocr"
    NONE = "none"


class OcrChoiceSettings(BaseModel):
    ocr_engine: OcrEngineName = Field(
        default=OcrEngineName.AUTO,
        description="what recognises scanned pages: `tesseract`, `rapidocr` or `none`; by default Tesseract where its language data are installed, else RapidOCR (extra `ocr-rapidocr`), which takes ten times as long. With `none` scanned pages stay `needs_ocr`, and readiness does not mention it; a worker of `ocr_processing` with `none` ends the jobs that wait for recognition, which otherwise wait for an engine",
    )


class OcrSettings(BaseModel):
    ocr_languages: Names = Field(
        default=("eng",),
        description="Tesseract's names of the language data for documents whose language is unknown, comma separated; each further one takes as long again. A page in another language is recognised with its own data, if they are installed",
    )
    tessdata_dir: Path = Field(
        default=Path("/usr/share/tesseract-ocr/5/tessdata"),
        description="directory of Tesseract's language data; the default is that of Debian's packages `tesseract-ocr-<language>`",
    )
    ocr_dpi: Positive = Field(
        default=200,
        description="resolution at which pages are recognised; 300 takes a third longer, and helps only with poor scans of small print (7 points)",
    )
    ocr_pages_max: Positive = Field(
        default=300,
        description="most pages recognised of one document, a quarter of an hour of one worker; the others stay `needs_ocr`",
    )
    ocr_pixels_max: Positive = Field(
        default=25_000_000,
        description="most pixels of one picture: A3 at 300 dpi has 17 million. A larger page is recognised at a lower resolution. Each pixel takes 10 to 20 bytes of the worker's memory",
    )
    ocr_page_timeout: Duration = Field(
        default=timedelta(seconds=60),
        description="CPU time to recognise one page, thirty times what an ordinary page takes; the page then stays without text, and the next one follows",
    )
    ocr_timeout: Duration = Field(
        default=timedelta(minutes=20),
        description="CPU time to recognise one document, over all attempts; pages without a turn stay `needs_ocr`",
    )
    ocr_confidence_min: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="mean confidence of a page below which its text is discarded, because it is garbage: ordinary scans have 0.85 and more, pages that the engine cannot read 0.2 to 0.4",
    )


class EmbeddingModelName(StrEnum):
    """Which model makes the vectors of passages and queries."""

    USE_STATIC = "use-static"
    USE = "use"
    NONE = "none"


class EmbeddingSettings(BaseModel):
    embedding_model: EmbeddingModelName = Field(
        default=EmbeddingModelName.USE_STATIC,
        description="what makes vectors of passages and of queries, so that search finds other words for the same, in 16 languages: `use-static`, `use`, which finds more and takes over ten times as long (both need the extra `embeddings`), or `none`: search finds words alone. After a change run `waybill reindex`: until then the model of the existing vectors stays in use",
    )


class RelaySettings(BaseModel):
    outbox_batch: Positive = Field(
        default=100,
        description="most events published in one transaction; after a crash at most these events are published again",
    )
    outbox_poll: Duration = Field(
        default=timedelta(seconds=1),
        description="how often the outbox is read if no notification arrives (behind a connection pooler, or after a lost connection)",
    )


class WebhookTargetSettings(BaseModel):
    webhook_allow_loopback: bool = Field(
        default=False,
        description="whether webhooks may be on loopback addresses; only for local development",
    )
    webhook_allowed_networks: Networks = Field(
        default=(),
        description="networks that webhooks may be in although they are not public, comma separated, such as `10.20.0.0/16`. Every tenant can send requests to every address in them. Link-local addresses and the metadata services of clouds stay forbidden",
    )

    @cached_property
    def webhook_allowed(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """All networks that are allowed although they are not public."""
        return self.webhook_allowed_networks + (_LOOPBACK if self.webhook_allow_loopback else ())


class WebhookSettings(BaseModel):
    webhook_endpoints_max: Positive = Field(
        default=100,
        description="most endpoints of a tenant. Every event is matched with all of them, so the limit bounds the cost of an event; callbacks of uploads do not count",
    )
    webhook_timeout_max: Duration = Field(
        default=timedelta(seconds=30),
        description="longest timeout that an endpoint may have; a slow attempt occupies a slot for this time. A deliver process that stops waits only for `WEBHOOK_TIMEOUT`, and repeats an attempt that takes longer",
    )
    webhook_secret_overlap: Duration = Field(
        default=timedelta(hours=24),
        description="how long an earlier secret of an endpoint still signs after a rotation that names no overlap; long enough to change the secret of a receiver by hand",
    )


class DeliverySettings(BaseModel):
    webhook_timeout: Duration = Field(
        default=timedelta(seconds=20),
        description="longest time of one attempt, from the DNS lookup to the end of the answer",
    )
    webhook_retry_delays: Durations = Field(
        # The example of the Standard Webhooks specification: three days, a weekend and a Monday.
        default=(
            timedelta(seconds=5),
            timedelta(minutes=5),
            timedelta(minutes=30),
            timedelta(hours=2),
            timedelta(hours=5),
            timedelta(hours=10),
            timedelta(hours=14),
            timedelta(hours=20),
            timedelta(hours=24),
        ),
        description="delays before the retries of a failed delivery, comma separated; each varies by a fifth at random. After the last retry the delivery is exhausted",
    )
    webhook_concurrency: Positive = Field(
        default=100,
        description="most attempts at the same time at receivers that answer within half a second. They free their slots at once: a hundred are enough for thousands of deliveries per second",
    )
    webhook_slow_concurrency: Positive = Field(
        default=400,
        description="most attempts at the same time at receivers that are slow, fail, or were never seen; an attempt that takes longer than half a second moves here. Each costs an open connection, and no more. A tenant gets a slot of either kind only while it has fewer than are free, so at most half; beyond the limit, up to twice as much, there is a slot for attempts that turn slow, and one for each tenant without any",
    )
    webhook_permanent_attempts: Positive = Field(
        default=5,
        description="most attempts at a delivery of which each is answered with a status that the same request gets again, such as 400, 401, 404 or 422. The default takes two and a half hours, long enough for a deploy that answers 404 or 401",
    )
    webhook_disable_after: Duration = Field(
        default=timedelta(days=5),
        description="an endpoint is disabled once every attempt has failed for this time, ten attempts at least. Longer than the retries of one delivery, and than a long weekend",
    )
    webhook_response_max: ByteSize = Field(
        default=ByteSize(16 * 1024), description="most bytes of an answer that are read and kept"
    )
    webhook_idle_connections: Positive = Field(
        default=500,
        description="most connections to receivers that are kept open for the next event, each for at most 30 s; together with the attempts they bound the open files of deliver",
    )
    webhook_proxy: str | None = Field(
        default=None,
        description="HTTP proxy for deliveries, such as `http://proxy:3128`; it must allow CONNECT, also to port 80. It gets the address that was checked, not the name of the receiver",
    )
    webhook_proxy_credentials: SecretStr | None = Field(
        default=None, description="`user:password` for the proxy of deliveries"
    )

    @field_validator("webhook_proxy")
    @classmethod
    def _check_proxy(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            host, port = parts.hostname, parts.port
        except ValueError:
            # The message of urlsplit can quote credentials.
            raise ValueError("is not a URL") from None
        if parts.scheme != "http" or not host or port is None:
            raise ValueError("is not http://host:port")
        if "@" in parts.netloc:
            raise ValueError("has credentials, which belong in WEBHOOK_PROXY_CREDENTIALS")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("has more than http://host:port")
        return f"http://{parts.netloc}"


class ReplaySettings(BaseModel):
    webhook_replay_rate: float = Field(
        default=50,
        gt=0,
        description="most deliveries per second of a replay; an endpoint that was down for a day gets its events again without being overrun. Its own `rate` may be lower",
    )


class ExportSettings(BaseModel):
    export_size_max: ByteSize = Field(
        default=ByteSize(10 * GIB),
        gt=0,
        description="largest file of an export; a larger one fails with `export_too_large`. The file is first written to `WORK_DIR`",
    )
    export_time_max: Duration = Field(
        default=timedelta(minutes=15),
        description="longest query of an export; a longer one fails with `export_too_large`. While it runs, PostgreSQL cleans up no rows that are deleted meanwhile. Keep it under `TASK_TIME_LIMIT`, with time left to send the file",
    )
    export_disk_reserve: ByteSize = Field(
        default=ByteSize(GIB),
        description="free space that an export leaves on the disk of `WORK_DIR`; with less, it is repeated later",
    )
    export_ttl: Duration = Field(
        default=timedelta(days=7),
        description="how long an export and its file are kept after its end",
    )


class BatchLimitSettings(BaseModel):
    """How large a batch may be, and how many batches a tenant may have."""

    batch_lines_max: Positive = Field(
        default=1_000_000,
        le=2**31 - 1,
        description="most lines of one batch; a larger body is answered with 413 `batch_too_large`. Each line is a row of about 300 bytes until `BATCH_RETENTION` is over",
    )
    batch_line_bytes_max: ByteSize = Field(
        default=ByteSize(64 * 1024),
        ge=1024,
        description="longest line of a batch; a longer one is rejected with `line_too_long`, and the others count. The largest key and some metadata take a few kB",
    )
    batch_bytes_max: ByteSize = Field(
        default=ByteSize(GIB),
        le=2**31 - 1,
        description="largest body of a batch; a larger one is answered with 413 `batch_too_large`. The default allows 1 kB for each of a million lines",
    )
    tenant_batches_max: Positive = Field(
        default=10,
        description="most batches of a tenant that have not ended; a further one is answered with 429 `too_many_batches`. With the default, a tenant has ten million waiting lines at most, some 3 GB of the database",
    )


class BatchSettings(BaseModel):
    """Batches: many lines in one request, each a job once its turn comes."""

    batch_open_max: Positive = Field(
        default=100,
        description="most lines of one batch that are jobs at the same time; the other lines wait as rows that cost the queues nothing. More than the workers of all steps process in a few seconds",
    )
    batch_retention: Duration = Field(
        default=timedelta(days=30),
        description="how long a batch and its lines are kept after its end, for its report",
    )


class LivenessSettings(BaseModel):
    liveness_file: Path | None = Field(
        default=None,
        description="file that a process touches while it is connected and working; probes read its age",
    )


class ProcessSettings(BaseModel):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="lowest level of the project's own log lines; libraries log from `WARNING`",
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="format of log lines"
    )


class CelerySettings(BaseModel):
    task_attempts: Positive = Field(
        default=20,
        description="attempts at an event before its job fails. The waits between are 5 s, 30 s, then 5 min each: the default survives an outage of the object store of an hour and a half",
    )
    task_time_limit: Duration = Field(
        default=timedelta(minutes=25),
        description="time after which a running task is killed and its message delivered again. A document that takes longer than half of it goes on with the next delivery of its event. Keep it under the broker's consumer timeout (30 min by default)",
    )
    celery_remote_control: bool = Field(
        default=False,
        description="whether Flower may inspect the workers and see their events; costs transient queues on the broker",
    )
    celery_result_backend: SecretStr | None = Field(
        default=None,
        description="where Celery stores task results, for operators who want them in Flower; nothing else reads them",
    )
