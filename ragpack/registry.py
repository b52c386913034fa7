"""Finds plug-ins by entry point, so that the engine imports no adapter.

Groups: ``ragpack.compressors`` (method name to class), ``ragpack.cache_stores`` (URL scheme to
class), ``ragpack.retrievers``. ragpack's own adapters are registered the same way.
"""

import difflib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from ragpack.config import allowed_plugins
from ragpack.errors import ConfigError, MissingExtraError, UnknownPluginError
from ragpack.protocols import CacheStore

__all__ = ["Group", "load", "missing_extra", "names", "open_store"]

Group = Literal["compressors", "cache_stores", "retrievers"]
_WORD = {"compressors": "method", "cache_stores": "store", "retrievers": "retriever"}
_EXTRA_OF_MODULE = {
    "accelerate": "demo",
    "bm25s": "bench",
    "fastapi": "serve",
    "datasets": "corpus",
    "gguf": "demo",
    "hiredis": "hiredis",
    "limits": "serve",
    "llama_index": "llamaindex",
    "matplotlib": "bench",
    "pyarrow": "corpus",
    "prometheus_client": "serve",
    "ray": "ray",
    "starlette": "serve",
    "uvicorn": "serve",
}


def _of_ragpack(point: EntryPoint) -> bool:
    return point.value.startswith("ragpack.")


@cache
def _points(group: Group) -> dict[str, EntryPoint]:
    limit = allowed_plugins()
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=f"ragpack.{group}"):
        foreign = not _of_ragpack(point)
        if foreign and limit is not None and point.name not in limit:
            continue
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise ConfigError(
                f"two packages register the {_WORD[group]} {point.name!r}: "
                f"{other.value} and {point.value}; uninstall one of them"
            )
        found[point.name] = point
    return found


def names(group: Group) -> list[str]:
    """Every registered name of a group, sorted."""
    return sorted(_points(group))


def load(group: Group, name: str) -> Any:
    """The object registered as ``name``.

    Raises:
        UnknownPluginError: no such name; the message holds near ones.
        MissingExtraError: the plug-in needs a package that is not installed.
    """
    points = _points(group)
    if name not in points:
        near = difflib.get_close_matches(name, points, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        known = ", ".join(sorted(points))
        raise UnknownPluginError(f"no {_WORD[group]} named {name!r}{hint} Known: {known}")
    try:
        return points[name].load()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ragpack"):
            raise  # our own fault, not a missing extra
        raise missing_extra(error, f"the {_WORD[group]} {name!r}") from error


def missing_extra(error: ModuleNotFoundError, wanted_by: str) -> MissingExtraError:
    """The error to raise when ``error`` shows that an optional package is absent."""
    module = (error.name or "").split(".")[0]
    extra = _EXTRA_OF_MODULE.get(module)
    command = f"pip install 'ragpack-middleware[{extra}]'" if extra else f"pip install {module}"
    return MissingExtraError(f"{wanted_by} needs the package {module!r}: {command}", name=module)


def open_store(url: str) -> CacheStore:
    """Open a store by URL: ``memory://``, ``lmdb:///folder``, ``redis://host:6379/0`` and so on.

    Raises:
        ConfigError: the URL has no scheme.
        UnknownPluginError: no store for its scheme.
        CacheUnavailable: the store's folder cannot be opened.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        raise ConfigError(f"store must be a URL such as lmdb:///folder or memory://, not {url!r}")
    store: CacheStore = load("cache_stores", scheme).from_url(url)
    return store
