"""Every setting of the system, by the section of the system that needs it.

Sections are plain models; each process composes the ones it needs with
``pydantic_settings.BaseSettings`` in its own ``settings.py``, which is the only
reader of the environment there. A field's name in capitals is the name of its
environment variable; its description is its line in docs/settings.md.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ByteSize,
    Field,
    SecretStr,
    model_validator,
)

from schemas.lifecycle import StagingKind

MIB = 1024 * 1024
GIB = 1024 * MIB

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")


def _duration(value: object) -> object:
    """Read ``250ms``, ``10s``, ``5m``, ``24h``, ``7d`` or plain seconds; ISO 8601 passes through."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    return value


STAGING_MARKER: Final = ".waybill-staging"
"""File a gateway puts into the staging directory; where it is missing, the volume is not mounted."""

Positive = Annotated[int, Field(ge=1)]
Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0))]


class DatabaseSettings(BaseModel):
    database_url: SecretStr = Field(
        description="PostgreSQL 16 or newer, as `postgresql+psycopg://user:password@host:port/database`",
    )
    database_pool_size: Positive = Field(
        default=10,
        description="connections a process keeps, and a gateway as many again for chunks; requests beyond it wait for one",
    )


class BrokerSettings(BaseModel):
    rabbitmq_url: SecretStr = Field(
        validation_alias=AliasChoices("rabbitmq_url", "celery_broker_url"),
        description="RabbitMQ 3.10 or newer, as `amqp://user:password@host:port/vhost`; also read from `CELERY_BROKER_URL`",
    )
    publish_timeout: Duration = Field(
        default=timedelta(seconds=10),
        description="how long a publish waits for the broker's confirm; under a memory alarm it would wait for ever",
    )


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
        description="preferred part size of a multipart upload: every part costs the store some work, and what is under way at a crash is sent again; grows by itself where a file would need more than `S3_MAX_PARTS`",
    )
    s3_max_parts: Positive = Field(
        default=10_000,
        le=10_000,
        description="most parts the store takes in one upload (AWS: 10,000; some stores: 1,000)",
    )
    s3_parallel_parts: Positive = Field(
        default=4,
        description="parts a worker sends at once; with the part buffers it bounds the worker's memory",
    )
    s3_connect_timeout: Duration = Field(
        default=timedelta(seconds=5), description="time to connect to the store"
    )
    s3_read_timeout: Duration = Field(
        default=timedelta(seconds=60), description="time the store may stay silent within a request"
    )
    s3_attempts: Positive = Field(
        default=5, description="tries of one request before the whole transfer is retried later"
    )
    s3_checksum_mode: Literal["auto", "when_supported", "when_required"] = Field(
        default="auto",
        description="`when_supported` adds CRC32 trailers, which older S3-compatible stores refuse or store as data; `auto` asks the store once whether it checks the Content-MD5 that every body has, and adds a CRC32 only where it does not",
    )
    s3_ca_bundle: Path | None = Field(
        default=None,
        description="file with the certificates to trust for `https` endpoints, where the system's own do not do",
    )


class StagingSettings(BaseModel):
    staging: Literal[StagingKind.DIRECTORY, StagingKind.OBJECTS] = Field(
        default=StagingKind.DIRECTORY,
        description="where received chunks wait: `directory` is `STAGING_DIR`, on a volume all gateways and transfer workers share; `s3` is the bucket, under `staging/`, and they share nothing else. Uploads begun with the other one are finished with it",
    )
    staging_dir: Path | None = Field(
        default=None,
        description="directory for received chunks, shared by gateways and transfer workers; needed where `STAGING=directory`",
    )

    @model_validator(mode="after")
    def _directory_is_named(self) -> Self:
        if self.staging == StagingKind.DIRECTORY and self.staging_dir is None:
            raise ValueError("STAGING_DIR is needed where STAGING=directory")
        return self


class ScratchSettings(BaseModel):
    work_dir: Path | None = Field(
        default=None,
        description="directory for files being read or passed on; unset means the system's. With `STAGING=s3` a chunk lies here until the bucket has it",
    )


class UploadSettings(BaseModel):
    upload_ttl: Duration = Field(
        default=timedelta(hours=24), description="how long an unfinished upload takes chunks"
    )
    form_lease: Duration = Field(
        default=timedelta(minutes=5),
        description="how long the upload of a form, which nobody else can finish, outlives the gateway that takes it; renewed while the form comes in, for up to `UPLOAD_TTL`. Longer than an outage of the database that a form should survive, and than the clocks of gateway and database differ",
    )
    chunk_size_default: ByteSize = Field(
        default=ByteSize(8 * MIB),
        ge=64 * 1024,
        description="chunk size where the client names none; files of more than a thousand such chunks get larger ones, up to `CHUNK_SIZE_MAX`",
    )
    chunk_size_min: ByteSize = Field(
        default=ByteSize(64 * 1024),
        ge=1,
        description="smallest chunk size a client may ask for; each chunk costs a request, an fsync and a row",
    )
    chunk_size_max: ByteSize = Field(
        default=ByteSize(64 * MIB),
        description="largest chunk size a client may ask for; a broken connection costs at most one chunk",
    )
    chunk_count_max: Positive = Field(
        default=20_000,
        description="most chunks of one upload; the chunk size grows to stay under it",
    )
    chunk_lock_wait: Duration = Field(
        default=timedelta(seconds=10),
        description="how long a repeated chunk waits for an older request that still writes the same chunk",
    )
    staging_reserve: ByteSize = Field(
        default=ByteSize(256 * MIB),
        description="free space kept on the staging disk: an upload larger than the rest is not created, and a chunk that would leave less is not kept; both answer 507. A chunk that is stored already is answered all the same",
    )
    uploads_async_enabled: bool = Field(
        default=True,
        description="`false` makes finalize wait for the end of the job and answer 200 (for clients not yet moved)",
    )
    wait_max: Duration = Field(
        default=timedelta(seconds=60),
        description="longest time `?wait=` or `Prefer: wait` holds a request open",
    )
    sync_wait_max: Duration = Field(
        default=timedelta(minutes=15),
        description="longest time finalize waits when `UPLOADS_ASYNC_ENABLED=false`; after it the answer is 202",
    )


class QuotaSettings(BaseModel):
    """What a tenant may have at once; `python -m gateway set-quota` changes it for one tenant."""

    upload_max_size: ByteSize = Field(
        default=ByteSize(100 * GIB),
        description="largest file accepted. A tenant may have its own",
    )
    quota_bytes: ByteSize | None = Field(
        default=None,
        description="bytes of a tenant's uploads, open and stored together; unset means no limit. A tenant may have its own",
    )
    quota_open_uploads: Positive = Field(
        default=1_000,
        description="uploads a tenant may have open at once; each is a file in staging. A tenant may have its own",
    )
    allowed_types: str = Field(
        default="*/*",
        description="media types a tenant may send, with commas between, such as `application/pdf,image/*`; what the first bytes show counts, and where they show nothing, what the client declared, unless they would have shown it. A tenant may have its own",
    )


class HttpSettings(BaseModel):
    gateway_host: str = Field(default="127.0.0.1", description="address to listen on")
    gateway_port: int = Field(default=8000, ge=0, le=65535, description="port to listen on")
    request_body_max: ByteSize = Field(
        default=ByteSize(MIB), description="largest JSON body; chunks have limits of their own"
    )
    api_key_cache: Duration = Field(
        default=timedelta(seconds=5),
        description="how long a gateway believes what it read of an API key; a revoked key works at most so much longer",
    )
    page_size_max: Positive = Field(default=200, description="most items a list answers at once")


class TransferSettings(BaseModel):
    transfer_lease: Duration = Field(
        default=timedelta(seconds=15),
        description="how long a silent worker keeps its upload; then another one takes over",
    )
    transfer_slice: Duration = Field(
        default=timedelta(minutes=10),
        description="how long one delivery is held; a longer transfer hands itself on with the next part that is stored, and resumes. Keep it well under the broker's consumer timeout",
    )


class SweepSettings(BaseModel):
    sweep_every: Duration = Field(
        default=timedelta(minutes=5), description="how often beat orders a sweep"
    )
    sweep_grace: Duration = Field(
        default=timedelta(hours=1),
        description="age from which something in staging or in the store that no upload owns is an orphan. Longer than any clock is wrong and any request takes",
    )
    outbox_retention: Duration = Field(
        default=timedelta(days=7), description="how long published events stay in the outbox"
    )
    inbox_retention: Duration = Field(
        default=timedelta(days=30),
        description="how long it is remembered that an event was applied. Longer than an event can wait in a queue or a dead-letter queue before it is delivered again",
    )
    idempotency_retention: Duration = Field(
        default=timedelta(days=7), description="how long an `Idempotency-Key` is remembered"
    )
    delivery_retention: Duration = Field(
        default=timedelta(days=30),
        description="how long it is kept what was told to a webhook, with every attempt, once that has ended. As long as somebody may ask what became of an event",
    )


class IngestSettings(BaseModel):
    spacy_model: str = Field(
        default="blank:en",
        description="installed spaCy model, or `blank:<language>` for sentences, lemmas and rule-based entities",
    )
    pdf_timeout: Duration = Field(
        default=timedelta(seconds=120), description="wall-clock time one PDF may take"
    )
    pdf_memory_max: ByteSize = Field(
        default=ByteSize(GIB),
        description="memory the child that reads a PDF may add to the worker's",
    )
    pdf_pages_max: Positive = Field(default=5_000, description="pages read of one PDF")
    pdf_text_max: ByteSize = Field(
        default=ByteSize(50 * MIB), description="text taken from one PDF"
    )
    pdf_file_max: ByteSize = Field(
        default=ByteSize(GIB),
        description="largest PDF that is read; a larger one is stored, and its job fails with `pdf_limit_exceeded`",
    )


class RelaySettings(BaseModel):
    outbox_batch: Positive = Field(
        default=100, description="events published per transaction; a crash repeats at most these"
    )
    outbox_poll: Duration = Field(
        default=timedelta(seconds=1),
        description="fallback when no wake-up arrives (a pooler between, or a lost connection)",
    )


class WebhookTargetSettings(BaseModel):
    webhook_allow_loopback: bool = Field(
        default=False, description="deliver to loopback addresses; only for local development"
    )


class DeliverySettings(BaseModel):
    webhook_timeout: Duration = Field(
        default=timedelta(seconds=20),
        description="total time of one attempt: name, connection, request and answer",
    )
    webhook_concurrency: Positive = Field(default=50, description="attempts under way at once")
    webhook_response_max: ByteSize = Field(
        default=ByteSize(16 * 1024), description="bytes of an answer read and logged"
    )


class LivenessSettings(BaseModel):
    liveness_file: Path | None = Field(
        default=None, description="file a worker touches while it is connected and consuming"
    )


class ProcessSettings(BaseModel):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="threshold of the project's own log lines"
    )
    log_format: Literal["json", "console"] = Field(default="json", description="shape of log lines")


class CelerySettings(BaseModel):
    task_attempts: Positive = Field(
        default=20,
        description="tries of an event before its job fails; they wait 5 s, 30 s, then 5 min each, so the default outlasts an outage of the object store of an hour and a half",
    )
    task_time_limit: Duration = Field(
        default=timedelta(minutes=25),
        description="a task still running then is killed and delivered again. Keep it under the broker's consumer timeout (30 min by default)",
    )
    celery_remote_control: bool = Field(
        default=False,
        description="lets Flower inspect the workers and see their events; costs transient queues on the broker",
    )
    celery_result_backend: SecretStr | None = Field(
        default=None, description="kept for operators who want results in Flower; nothing reads it"
    )
