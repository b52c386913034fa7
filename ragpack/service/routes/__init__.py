"""One file for each group of paths; a router is offered by being listed here."""

from ragpack.service import page
from ragpack.service.routes import (
    batch,
    catalog,
    chat,
    compress,
    embeds,
    health,
    index,
    pack,
    rerank,
)

__all__ = ["ROUTERS"]

ROUTERS = (
    compress.router,
    batch.router,
    pack.router,
    embeds.router,
    rerank.router,
    chat.router,
    index.router,
    catalog.router,
    health.router,
    page.router,
)
