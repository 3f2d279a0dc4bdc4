"""The composition root: everything is built here, and nowhere else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from gateway import db, health, problems, telemetry
from gateway.documents import routes as documents
from gateway.job_watch import JobWatch
from gateway.jobs import routes as jobs
from gateway.security import ApiKeyAuthentication
from gateway.settings import API_PREFIX, Settings
from gateway.staging import Staging
from gateway.uploads import routes as uploads
from gateway.webhooks import routes as webhooks
from gateway.webhooks.operations import register_callback
from schemas.settings import STAGING_MARKER

VERSION: Final = "1"
DECLARED_CHUNK_BYTES: Final = 192
"""Room for one chunk named in a finalize, with generous white space."""


def create_app(settings: Settings) -> Litestar:
    """Build the application; it opens connections when it starts, not here."""
    engine = db.build_engine(settings)
    transaction = db.transactions(engine)
    staging = Staging(settings, reserve_bytes=settings.staging_reserve)
    job_watch = JobWatch(partial(db.connect_to_listen, settings))

    @asynccontextmanager
    async def running(_: Litestar) -> AsyncIterator[None]:
        settings.staging_dir.mkdir(parents=True, exist_ok=True)
        (settings.staging_dir / STAGING_MARKER).touch()
        try:
            async with job_watch.listening():
                yield
        finally:
            staging.close()
            await engine.dispose()

    api = Router(
        API_PREFIX,
        route_handlers=[
            uploads.router,
            jobs.router(
                finalize_body_max=settings.request_body_max
                + settings.chunk_count_max * DECLARED_CHUNK_BYTES
            ),
            documents.router,
            webhooks.router,
        ],
        middleware=[ApiKeyAuthentication],
        security=[{"apiKey": []}],
    )
    return Litestar(
        route_handlers=[api, health.router],
        state=State({"transaction": transaction, "job_watch": job_watch}),
        dependencies={
            "transaction": _always(transaction),
            "staging": _always(staging),
            "job_watch": _always(job_watch),
            "clock": _always(partial(datetime.now, UTC)),
            "register_callback": _always(
                partial(register_callback, allow_loopback=settings.webhook_allow_loopback)
            ),
            "upload_settings": _always(settings),
            "http_settings": _always(settings),
            "target_settings": _always(settings),
        },
        exception_handlers=problems.EXCEPTION_HANDLERS,
        request_class=problems.ValidatedRequest,
        request_max_body_size=settings.request_body_max,
        before_request=telemetry.bind_ids,
        response_headers=problems.HEADERS,
        lifespan=[running],
        logging_config=None,
        openapi_config=_description(),
    )


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
