"""Applications whose routes are built once: to build them takes as much CPU as a short test."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar

from gateway import app as composition
from gateway.settings import Settings
from schemas.settings import ObjectStoreSettings

OF_THE_TEST = {"database_url", "staging", "staging_dir", "work_dir"}
"""Settings that no route is built with."""


class Applications:
    """Runs applications; one that has stopped runs again, with a new context, for equal settings."""

    def __init__(self) -> None:
        self._stopped: defaultdict[str, list[Litestar]] = defaultdict(list)

    @asynccontextmanager
    async def running(
        self, settings: Settings, *, store: ObjectStoreSettings | None = None
    ) -> AsyncIterator[Litestar]:
        """Run an application during the block."""
        stopped = self._stopped[repr(settings.model_dump(exclude=OF_THE_TEST))]
        app = stopped.pop() if stopped else composition.build_routes(settings)
        composition.set_context(app, settings, store)
        async with app.lifespan():
            yield app
        stopped.append(app)
