"""``ragpack cache``: look into the store, verify it, drop a namespace."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from ragpack import config, registry
from ragpack.cli.console import emit, talk
from ragpack.cli.options import Json, Namespace, Store
from ragpack.codec import verify_frame
from ragpack.errors import CorruptEntry
from ragpack.protocols import CacheStore
from ragpack.text import plural

__all__ = ["app", "drop", "stats", "verify"]

app = typer.Typer(no_args_is_help=True, help="Look into the store, verify it, drop a namespace.")


@contextmanager
def _opened(url: str | None) -> Iterator[CacheStore]:
    store = registry.open_store(url or config.store_url())
    try:
        yield store
    finally:
        store.close()


@app.command()
def stats(store: Store = None, json: Json = False) -> None:
    """Entries and bytes of the store, and what it pushed out."""
    with _opened(store) as opened:
        held = opened.stats()
    if json:
        emit(
            {
                "entries": held.entries,
                "bytes": held.bytes,
                "max_bytes": held.max_bytes,
                "evictions": held.evictions,
            }
        )
        return
    cap = f" of {held.max_bytes / 1e6:.0f} MB" if held.max_bytes else ""
    talk.print(
        f"{plural(held.entries, 'entry', 'entries')}, {held.bytes / 1e6:.1f} MB{cap}, "
        f"{plural(held.evictions, 'eviction')}"
    )


@app.command()
def drop(
    namespace: Namespace = None,
    store: Store = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove every entry of a namespace."""
    wall = namespace or config.namespace()
    if not yes:
        typer.confirm(f"Remove every entry of namespace {wall!r}?", abort=True, err=True)
    with _opened(store) as opened:
        dropped = opened.drop(wall)
    if json:
        emit({"namespace": wall, "dropped": dropped})
    else:
        talk.print(f"{plural(dropped, 'entry', 'entries')} dropped", markup=False)


@app.command()
def verify(
    namespace: Namespace = None,
    store: Store = None,
    heal: Annotated[bool, typer.Option("--heal", help="Delete what fails.")] = False,
    json: Json = False,
) -> None:
    """Check every frame of a namespace; exit 1 if one fails and stays."""
    wall = namespace or config.namespace()
    sound, failed = 0, Counter[str]()
    with _opened(store) as opened:
        for key in list(opened.scan(wall)):
            reason = _fault(opened, key)
            if reason is None:
                sound += 1
                continue
            failed[reason] += 1
            if heal:
                opened.delete_many([key])
    if json:
        emit({"namespace": wall, "sound": sound, "failed": dict(failed), "healed": heal})
    else:
        talk.print(f"{sound} sound, {failed.total()} failed {dict(failed) or ''}", markup=False)
    if failed and not heal:
        raise typer.Exit(1)


def _fault(store: CacheStore, key: str) -> str | None:
    """Why the entry cannot be used; None if it can, or has gone meanwhile."""
    value = store.get_many([key])[0]
    if value is None:
        return None
    try:
        verify_frame(key.rpartition(":")[2], value, config.secret())
    except CorruptEntry as error:
        return error.reason
    return None
