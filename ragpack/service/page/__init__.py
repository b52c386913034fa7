"""The page at ``/``: plain HTML, CSS and JavaScript modules, sent as they lie here.

Its policy lets it load from this service alone and run no inline script, so a passage that shows up
as markup by some mistake still could not act. The files hold no data; asking the service for
something is subject to keys and limits like any other client's request.
"""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException
from fastapi.responses import FileResponse

from ragpack.service.page.samples import samples

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


def _found() -> dict[str, Path]:
    with as_file(files(__name__) / "static") as folder:
        return {path.name: path for path in sorted(folder.iterdir())}


_FILES = _found()


@router.get("/")
async def _page() -> FileResponse:
    """The page itself."""
    return _send("index.html")


@router.get("/page/samples.json")
def _samples() -> dict[str, Any]:
    """Questions about the sample handbook, each with its passages."""
    return {"samples": samples()}


@router.get("/page/{name}")
async def _part(name: str) -> FileResponse:
    """A style sheet, a module or the icon."""
    if name not in _FILES:  # a look-up, so that no path leads out of the folder
        raise HTTPException(404, f"the page has no part named {name!r}")
    return _send(name)


def _send(name: str) -> FileResponse:
    path = _FILES[name]
    return FileResponse(path, headers=_HEADERS, media_type=_TYPES[path.suffix])
