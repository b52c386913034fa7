"""One file for each group of paths; a router is offered by being listed here."""

from ragpack.service import page
from ragpack.service.routes import catalog, compress, health, pack

__all__ = ["ROUTERS"]

ROUTERS = (compress.router, pack.router, catalog.router, health.router, page.router)
