"""Packs what a retriever found; others take the place of those of which nothing is kept.

What the LangChain and the LlamaIndex retriever have in common. Passages have ids of their own here.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ragpack.errors import ConfigError
from ragpack.report import PackedContext, PackReport, PassageReport
from ragpack.types import Passage

__all__ = ["METADATA_KEY", "Kept", "at_least_one", "pack_all", "pack_until"]

METADATA_KEY = "ragpack"
"""Where the metadata of what comes back says what was kept and at what cost."""

Pack = Callable[[Sequence[Passage]], PackedContext]


class Kept(NamedTuple):
    """The text that is kept of a passage, or that stands for several, and the account of it."""

    text: str
    sources: Sequence[Passage]
    account: dict[str, Any]


def pack_all(pack: Pack, passages: Sequence[Passage]) -> list[Kept]:
    """Pack every passage; what is kept, in order."""
    return _kept(pack(passages), passages)


def pack_until(k: int, pack: Pack, passages: Sequence[Passage]) -> list[Kept]:
    """Pack the first ``k``, then others in place of those of which nothing was kept.

    Ends with ``k``, with a spent budget, or when none is left. A method may have kept nothing only
    because others were better, so passages get another chance for as long as there is progress.
    """
    waiting, kept, budgeted = _without_twins(passages), list[Kept](), False
    place = {passage.id: position for position, passage in enumerate(passages)}
    while waiting and (missing := k - len(_sources(kept))) > 0:
        again = _sources(kept) if budgeted else []  # a budget holds for all together
        batch = sorted(again + waiting[:missing], key=lambda passage: place[passage.id])
        packed = pack(batch)
        latest = _kept(packed, batch)
        grown = latest if budgeted else kept + latest
        waiting = waiting[missing:]
        if len(grown) > len(kept):
            waiting += _rest(batch, latest)
        kept, budgeted = grown, packed.report.budget is not None
        if any(row.reason == "budget" for row in packed.report.passages):
            break
    return sorted(kept, key=lambda one: place[one.sources[0].id])


def at_least_one(name: str, value: int | None) -> None:
    """Check a setting that may be None.

    Raises:
        ConfigError: ``value`` is below 1.
    """
    if value is not None and value < 1:
        raise ConfigError(f"{name} must be at least 1, not {value}")


def _kept(packed: PackedContext, passages: Sequence[Passage]) -> list[Kept]:
    report, kept = packed.report, []
    rows = {row.id: row for row in report.passages}
    for segment in packed.segments:
        if (text := segment.kept_text).strip():
            own = rows.get(segment.passage.id)
            sources = passages if own is None else [segment.passage]
            account = _account(report, report.passages if own is None else [own])
            kept.append(Kept(text, sources, account))
    return kept


def _account(report: PackReport, rows: Sequence[PassageReport]) -> dict[str, Any]:
    """The account of one passage, or of several that were packed into one segment."""
    before, after = sum([row.tokens_in for row in rows]), sum([row.tokens_out for row in rows])
    account = {
        "method": report.method,
        "kept": [list(span) for span in rows[0].kept],
        "tokens_in": before,
        "tokens_out": after,
        "rate": round(after / before, 4) if before else 1.0,
        "cache": rows[0].cache,
        "ms": round(sum(report.ms.values()), 3),
    }
    return account | {"reason": rows[0].reason} if rows[0].reason else account


def _without_twins(passages: Sequence[Passage]) -> list[Passage]:
    """The passages in order, each title and text once, so that a twin takes up no place."""
    first: dict[tuple[str, str], Passage] = {}
    for passage in passages:
        first.setdefault((passage.title, passage.text), passage)
    return list(first.values())


def _sources(kept: Sequence[Kept]) -> list[Passage]:
    return [source for one in kept for source in one.sources]


def _rest(passages: Sequence[Passage], kept: Sequence[Kept]) -> list[Passage]:
    """The passages of which nothing was kept."""
    names = {source.id for source in _sources(kept)}
    return [passage for passage in passages if passage.id not in names]
