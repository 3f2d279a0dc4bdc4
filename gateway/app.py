"""The composition root: builds the application and everything that requests share."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from litestar import Litestar, Request, Response, Router

from gateway import chunk_holders, db, health, job_watch
from gateway.backlog import Backlog
from gateway.batches import routes as batches
from gateway.chunk_holders import ChunkHolders
from gateway.context import ApiRequest, Context
from gateway.deliveries import routes as deliveries
from gateway.document_changes import routes as document_changes
from gateway.document_tables import routes as document_tables
from gateway.documents import routes as documents
from gateway.event_types import routes as event_types
from gateway.events import queries as event_queries
from gateway.events import routes as events
from gateway.exports import routes as exports
from gateway.feed_tail import FeedTails
from gateway.feed_watch import FeedWatch
from gateway.http import (
    cors,
    ended_keys,
    openapi,
    options,
    paths,
    problems,
    rate_limit,
    request_log,
)
from gateway.http.bodies import Bodies, BodyLimits
from gateway.http.head import HeadWhereGetIs
from gateway.http.key_uses import KeyUses
from gateway.http.rate_limit import RateLimit, TenantRates
from gateway.http.security import ApiKeyAuthentication, ApiKeyCache
from gateway.http.wait_limit import KeyWaits
from gateway.job_actions import routes as job_actions
from gateway.job_watch import JobWatch
from gateway.jobs import queries as job_queries
from gateway.jobs import routes as jobs
from gateway.links import Links
from gateway.notifications import Notifications
from gateway.readiness import ReadinessProbe
from gateway.search import routes as search
from gateway.search_statistics import SearchStatistics
from gateway.settings import API_PREFIX, Settings
from gateway.staging import BufferLimits, Buffers, Staging, StagingBackend
from gateway.staging.directory import DirectoryBackend
from gateway.uploads import routes as uploads
from gateway.uploads.oneshot import routes as submissions
from gateway.webhooks import routes as webhooks
from gateway.webhooks import secret_routes as webhook_secrets
from schemas.lifecycle import StagingKind
from schemas.runtime import postgres
from schemas.settings import ObjectStoreSettings, OcrEngineName
from schemas.tables.events import FEED_CHANNEL

SEARCHES_OF_TENANT: Final = 4
"""Searches of one tenant that a process runs at a time; each takes two connections."""


def create_app(settings: Settings, store: ObjectStoreSettings | None = None) -> Litestar:
    """Build the application; it opens connections when it starts, not here.

    Args:
        settings: the settings of the server.
        store: as for `set_context`.
    """
    app = build_routes(settings)
    set_context(app, settings, store)
    return app


def set_context(app: Litestar, settings: Settings, store: ObjectStoreSettings | None) -> None:
    """Give an application that does not run what its requests share.

    Args:
        app: the result of `build_routes`.
        settings: the settings of the server.
        store: the object store; required if `settings` stage new uploads in the bucket.
            Otherwise used for links to stored files, and for uploads that were created with staging
            in the bucket.
    """
    engine = db.build_engine(settings)
    autocommit_engine = db.build_autocommit_engine(settings)
    autocommit = db.AutocommitConnection(autocommit_engine)
    staging = _staging(settings, store)
    watch = JobWatch(
        read=partial(job_queries.snapshots_of, autocommit),
        read_revisions=partial(job_queries.revisions_of, autocommit),
    )
    notifications = Notifications(
        partial(postgres.connect, settings, connection=db.LISTENER_CONNECTION)
    )
    notifications.subscribe(job_watch.CHANNEL, watch.notify)
    feed_watch = FeedWatch()
    notifications.subscribe(FEED_CHANNEL, feed_watch.notify)
    tails = FeedTails(
        newest=partial(event_queries.newest, autocommit),
        page_after=partial(event_queries.tail_after, autocommit),
        watch=feed_watch,
    )
    holders = ChunkHolders(
        keep_rate=settings.chunk_keep_rate,
        send=partial(autocommit.notify, chunk_holders.CHANNEL),
    )
    notifications.subscribe(chunk_holders.CHANNEL, holders.notify)
    context = Context(
        settings=settings,
        database=db.Database(engine),
        autocommit=autocommit,
        staging=staging,
        readiness=ReadinessProbe(
            partial(postgres.connect, settings, connection=db.PROBE_CONNECTION),
            clock_difference_max=settings.clock_difference_max,
            is_ocr_wanted=settings.ocr_engine is not OcrEngineName.NONE,
            staging=staging,
            is_listening=lambda: notifications.is_listening,
            monotonic=time.monotonic,
        ),
        chunk_holders=holders,
        job_watch=watch,
        feed_watch=feed_watch,
        feed_tails=tails,
        key_waits=KeyWaits(settings.waits_per_key, total=settings.waits_max),
        backlog=Backlog(settings, monotonic=time.monotonic),
        api_keys=ApiKeyCache(lifetime=settings.api_key_cache, monotonic=time.monotonic),
        key_uses=KeyUses(monotonic=time.monotonic),
        secret_keys=settings.key_ring,
        rates=TenantRates(RateLimit.from_settings(settings), monotonic_ns=time.monotonic_ns),
        bodies=Bodies(BodyLimits.from_settings(settings)),
        batch_turns=db.TenantTurns(count=1, wait_max=db.WAIT_MAX),
        search_turns=db.TenantTurns(count=SEARCHES_OF_TENANT, wait_max=db.WAIT_MAX),
        search_statistics=SearchStatistics(monotonic=time.monotonic),
        links=Links(store, settings=settings),
    )

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        await staging.primary.prepare()
        try:
            async with (
                watch.running(),
                tails.running(),
                notifications.listening(),
                context.key_uses.written_to(context.database),
                ended_keys.ending_waits(
                    context.key_waits, context.database, interval=settings.api_key_cache
                ),
            ):
                yield
        finally:
            await context.readiness.close()
            staging.close()
            context.links.close()
            await autocommit.close()
            await autocommit_engine.dispose()
            await engine.dispose()

    app.state.context = context
    app.state.running = running


def build_routes(settings: Settings) -> Litestar:
    """Build the application without what its requests share."""
    api = Router(
        API_PREFIX,
        route_handlers=[
            uploads.router,
            uploads.job_router(settings, body_max=settings.request_body_max),
            jobs.router,
            job_actions.router,
            submissions.router,
            documents.router,
            document_tables.router,
            document_changes.router,
            search.router,
            webhooks.router,
            event_types.router,
            deliveries.router,
            events.router,
            exports.router,
            batches.router,
        ],
        middleware=[ApiKeyAuthentication],
        response_headers=rate_limit.DESCRIBED_FIELDS,
        security=[{"apiKey": []}],
    )
    return Litestar(
        route_handlers=[api, webhook_secrets.public_router, health.router],
        exception_handlers=problems.EXCEPTION_HANDLERS,
        request_class=ApiRequest,
        request_max_body_size=settings.request_body_max,
        before_request=_before_request,
        before_send=[rate_limit.add_fields],
        cors_config=cors.config_from(settings),
        response_headers=problems.HEADERS,
        lifespan=[_lifespan],
        logging_config=None,
        openapi_config=openapi.CONFIG,
        plugins=[HeadWhereGetIs()],
    )


def _staging(settings: Settings, store: ObjectStoreSettings | None) -> Staging:
    """Return the staging that the settings choose; uploads in the other backend stay reachable."""
    directory = (
        DirectoryBackend(settings.staging_dir, reserve_bytes=settings.staging_reserve)
        if settings.staging_dir
        else None
    )
    bucket = partial(_bucket, store, work_dir=settings.work_dir) if store else None
    buffers = Buffers(BufferLimits.from_settings(settings))
    if settings.staging == StagingKind.OBJECTS and bucket:
        return Staging(bucket(), buffers=buffers, other=directory)
    if settings.staging == StagingKind.DIRECTORY and directory:
        return Staging(directory, buffers=buffers, make_other=bucket)
    raise ValueError(f"there are no settings for STAGING={settings.staging}")


def _bucket(store: ObjectStoreSettings, *, work_dir: Path | None) -> StagingBackend:
    from gateway.staging.bucket import ObjectBackend  # noqa: PLC0415  # boto3 takes 20 MiB, even if unused

    return ObjectBackend.connect(store, work_dir=work_dir)


@asynccontextmanager
async def _lifespan(app: Litestar) -> AsyncIterator[None]:
    async with app.state.running():
        yield


async def _before_request(request: Request[Any, Any, Any]) -> Response[None] | None:
    await request_log.bind_ids(request)
    paths.check(request)
    return await options.answer_options(request)
