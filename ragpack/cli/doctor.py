"""``ragpack doctor``: what works on this machine, and what to do about the rest."""

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

import ragpack
from ragpack import config, registry
from ragpack.cli.console import emit, talk
from ragpack.cli.options import Json, Store
from ragpack.errors import RagpackError
from ragpack.keys import CacheKey
from ragpack.models import resolve
from ragpack.pipeline import make_compressor
from ragpack.text import plural

__all__ = ["doctor"]

_PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "redis",
    "langchain-core",
)


@dataclass(frozen=True, slots=True)
class _Check:
    """One thing that was tried; ``ok`` is None for a mere fact."""

    name: str
    ok: bool | None
    detail: str


def doctor(
    store: Store = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Also prove that this decoder's KV can be reused.")
    ] = None,
    json: Json = False,
) -> None:
    """Check versions, models, the store and the folders; nothing is downloaded."""
    checks = [
        _Check("ragpack", None, ragpack.__version__),
        _Check("python", None, platform.python_version()),
        *(_Check(name, None, version(name)) for name in _PACKAGES),
        _try("device", _device),
        _try("encoder", lambda: str(resolve(config.DEFAULT_ENCODER).path)),
        _try("decoder", lambda: str(resolve(config.DEFAULT_DECODER).path)),
        *map(_method, registry.names("compressors")),
        _try("store", lambda: _round_trip(store or config.store_url())),
        _try("home", _home),
    ]
    if model is not None:
        checks += _gate(model)
    if json:
        emit([{"check": c.name, "ok": c.ok, "detail": c.detail} for c in checks])
    else:
        _show(checks)
    if any(check.ok is False for check in checks):
        raise typer.Exit(1)


def _try(name: str, probe: Callable[[], str]) -> _Check:
    try:
        return _Check(name, True, probe())
    except (RagpackError, OSError) as error:
        return _Check(name, False, str(error))


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return f"cpu, {torch.get_num_threads()} threads"


def _method(name: str) -> _Check:
    """Whether a method can run; one whose models are not here is a fact and no fault."""
    label = f"method {name}"
    try:
        method: Any = registry.load("compressors", name)
    except RagpackError as error:
        return _Check(label, False, str(error))
    try:
        if method.kind != "kv":  # that takes a minute, and --model is for it
            _ = make_compressor(name, {}).fingerprint
    except (RagpackError, OSError) as error:
        return _Check(label, None, f"cannot run here: {str(error).partition(chr(10))[0]}")
    return _Check(
        label, True, f"{method.kind}, {'query-aware' if method.query_aware else 'query-free'}"
    )


def _round_trip(url: str) -> str:
    """Write, read and delete one entry."""
    opened = registry.open_store(url)
    try:
        key = str(CacheKey("ragpack-doctor", "text", "", ""))
        opened.put_many({key: b"ping"}, ttl=60)
        answer = opened.get_many([key])[0]
        opened.delete_many([key])
        if answer is None or bytes(answer) != b"ping":
            raise RagpackError("an entry that was written did not come back")
        stats = opened.stats()
    finally:
        opened.close()
    return f"{plural(stats.entries, 'entry', 'entries')}, {stats.bytes / 1e6:.1f} MB"


def _home() -> str:
    folder = config.home()
    folder.mkdir(parents=True, exist_ok=True)
    return f"{folder}, {shutil.disk_usage(folder).free / 1e9:.1f} GB free"


def _gate(name: str) -> list[_Check]:
    """The exactness matrix of a decoder, run afresh and remembered."""
    from ragpack.kv.verdict import judge
    from ragpack.models import checkpoint_folder, load_causal_lm, weights_digest

    try:
        weights = weights_digest(checkpoint_folder(resolve(name)))
        rows = judge(load_causal_lm(name)[0], weights, again=True)
    except RagpackError as error:
        return [_Check(f"KV of {name}", False, str(error))]
    return [
        _Check(f"KV: {row.name}", row.passed, f"error {row.error:.1e}, allowed {row.allowed:.0e}")
        for row in rows
    ]


def _show(checks: list[_Check]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    marks = {True: Text("ok", "green"), False: Text("FAILED", "bold red"), None: Text("")}
    for check in checks:
        table.add_row(marks[check.ok], check.name, Text(check.detail))
    talk.print(table)
