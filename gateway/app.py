"""The composition root: everything is built here, and nowhere else."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from litestar import Litestar, Request, Response, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from gateway import db, health
from gateway.documents import routes as documents
from gateway.http import options, problems, request_log
from gateway.http.security import ApiKeyAuthentication, KnownCallers
from gateway.jobs import routes as jobs
from gateway.jobs.change_listener import JobWatch
from gateway.settings import API_PREFIX, Settings
from gateway.staging import Area, Staging
from gateway.staging.directory import DirectoryArea
from gateway.uploads import routes as uploads
from gateway.uploads.oneshot import routes as submissions
from gateway.uploads.operations import check_complete_upload
from gateway.uploads.receive import receive_chunk
from gateway.webhooks import routes as webhooks
from gateway.webhooks.operations import register_callback
from schemas.lifecycle import StagingKind
from schemas.settings import ObjectStoreSettings

VERSION: Final = "1"
DECLARED_CHUNK_BYTES: Final = 192
"""Room for one chunk named in a finalize, with generous white space."""


def create_app(settings: Settings, store: ObjectStoreSettings | None = None) -> Litestar:
    """Build the application; it opens connections when it starts, not here.

    Args:
        settings: of the server.
        store: needed where `settings` stage in the bucket; elsewhere it serves uploads
            that were begun there.
    """
    engine = db.build_engine(settings)
    autocommit_engine = db.build_autocommit_engine(settings)
    database = db.Database(engine)
    staging = _staging(settings, store)
    clock = partial(datetime.now, UTC)
    job_watch = JobWatch(partial(db.connect_to_listen, settings))

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        await staging.prepare()
        try:
            async with job_watch.listening():
                yield
        finally:
            staging.close()
            await autocommit_engine.dispose()
            await engine.dispose()

    api = Router(
        API_PREFIX,
        route_handlers=[
            uploads.router,
            jobs.router(
                finalize_body_max=settings.request_body_max
                + settings.chunk_count_max * DECLARED_CHUNK_BYTES
            ),
            submissions.router,
            documents.router,
            webhooks.router,
        ],
        middleware=[ApiKeyAuthentication],
        security=[{"apiKey": []}],
    )
    return Litestar(
        route_handlers=[api, health.router],
        state=State(
            {
                "database": database,
                "known_callers": KnownCallers(
                    believed_for=settings.api_key_cache, seconds=time.monotonic
                ),
                "job_watch": job_watch,
            }
        ),
        dependencies={
            "database": _always(database),
            "staging": _always(staging),
            "staging_probe": _always(health.StagingProbe(staging, patience=health.PATIENCE)),
            "job_watch": _always(job_watch),
            "clock": _always(clock),
            "receive_chunk": _always(
                partial(
                    receive_chunk,
                    db.AutocommitConnection(autocommit_engine),
                    staging,
                    lock_wait=settings.chunk_lock_wait,
                    clock=clock,
                )
            ),
            "register_callback": _always(
                partial(register_callback, allow_loopback=settings.webhook_allow_loopback)
            ),
            "upload_settings": _always(settings),
            "quota_settings": _always(settings),
            "check_complete_upload": _always(partial(check_complete_upload, settings=settings)),
            "http_settings": _always(settings),
            "target_settings": _always(settings),
        },
        exception_handlers=problems.EXCEPTION_HANDLERS,
        request_class=problems.ValidatedRequest,
        request_max_body_size=settings.request_body_max,
        before_request=_before_request,
        response_headers=problems.HEADERS,
        lifespan=[running],
        logging_config=None,
        openapi_config=_description(),
    )


def _staging(settings: Settings, store: ObjectStoreSettings | None) -> Staging:
    """Return the kind of staging the settings want, with the other one where it can be reached."""
    directory = (
        DirectoryArea(settings.staging_dir, reserve_bytes=settings.staging_reserve)
        if settings.staging_dir
        else None
    )
    bucket = partial(_bucket, store, work_dir=settings.work_dir) if store else None
    if settings.staging == StagingKind.OBJECTS and bucket:
        return Staging(bucket(), other=directory)
    if settings.staging == StagingKind.DIRECTORY and directory:
        return Staging(directory, make_other=bucket)
    raise ValueError(f"there are no settings for STAGING={settings.staging}")


def _bucket(store: ObjectStoreSettings, *, work_dir: Path | None) -> Area:
    from gateway.staging.bucket import ObjectArea  # noqa: PLC0415  # it costs 20 MiB where the bucket is not used

    return ObjectArea.connect(store, work_dir=work_dir)


async def _before_request(request: Request[Any, Any, Any]) -> Response[None] | None:
    await request_log.bind_ids(request)
    return await options.answer_options(request)


def _always(value: Any) -> Provide:  # noqa: ANN401  # anything can be injected
    return Provide(lambda: value, sync_to_thread=False)


def _description() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Waybill",
        version=VERSION,
        description="Takes large files in chunks, stores them, reads the PDFs among them, "
        "and tells other systems with signed webhooks. Errors are problems (RFC 9457) "
        "with a stable `code`.",
        use_handler_docstrings=True,
        operation_id_creator=lambda handler, _method, _path: handler.handler_name,
        components=Components(
            security_schemes={
                "apiKey": SecurityScheme(
                    type="http", scheme="bearer", description="an API key, `wb_…`"
                ),
            },
        ),
        # No page that would fetch its scripts from somebody else's server.
        render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"]), YamlRenderPlugin()],
    )
