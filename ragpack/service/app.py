"""The application: routes, errors and what stands before them, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer

import ragpack
from ragpack import registry
from ragpack.service import problems
from ragpack.service.chat.upstream import Upstream
from ragpack.service.engine import Engine
from ragpack.service.front import Front
from ragpack.service.gate import Gate
from ragpack.service.keys import KeyRing
from ragpack.service.metrics import Metrics
from ragpack.service.routes import ROUTERS
from ragpack.service.routing import GUARDED
from ragpack.service.settings import Settings

__all__ = ["create_app"]

# For the OpenAPI document alone: front.py checks the key, before a body is read.
_KEYED = Depends(HTTPBearer(auto_error=False, description="A key of this service."))


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; models load with its first use or at start-up.

    Raises:
        UnknownPluginError: a method or a store that is not registered.
        ConfigError: the upstream's address or key cannot be used.
    """
    settings = settings or Settings()
    _check(settings)
    metrics = Metrics()
    gate = Gate(KeyRing(settings.keys), settings.limits.in_flight)
    upstream = _upstream(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = Engine(settings, metrics)
        app.state.engine, app.state.upstream = engine, upstream
        engine.start(engine.warm)
        try:
            yield
        finally:
            engine.close()
            if upstream is not None:
                await upstream.aclose()

    app = FastAPI(
        title="ragpack",
        version=ragpack.__version__,
        description="Retrieved passages in, the least a decoder needs out.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for router in ROUTERS:
        keyed = settings.keys and router.prefix == GUARDED
        app.include_router(router, dependencies=[_KEYED] if keyed else None)
    problems.install(app)
    app.add_middleware(Front, gate=gate, metrics=metrics, limits=settings.limits)
    return app


def _upstream(settings: Settings, metrics: Metrics) -> Upstream | None:
    if settings.upstream is None:
        return None
    return Upstream(
        settings.upstream,
        settings.upstream_key,
        settings.upstream_seconds,
        settings.limits.in_flight,
        metrics,
    )


def _check(settings: Settings) -> None:
    """Find wrong names before anything is opened or loaded."""
    for name in settings.methods or ():
        registry.load("compressors", name)
    registry.load("cache_stores", settings.store.partition("://")[0])
