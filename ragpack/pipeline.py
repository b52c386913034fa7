"""The engine: passages in, packed context out, in one call that does not fail.

query, passages ─► dedup ─► store or compressor ─► select ─► budget ─► PackedContext
"""

import asyncio
import math
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ragpack import config, registry
from ragpack.account import Outcome, account
from ragpack.budget import assemble, fit, is_empty
from ragpack.cache import ArtifactCache
from ragpack.deadline import Deadline
from ragpack.errors import BudgetError, ConfigError
from ragpack.models import load_token_counter
from ragpack.protocols import CacheStore, Compressor, TokenCounter
from ragpack.reader import Lookup, Recent
from ragpack.report import PackedContext, PackReport, StageTimer
from ragpack.selection import Selection
from ragpack.text import plural
from ragpack.tracing import note, span
from ragpack.types import Passage

__all__ = ["ContextPacker", "make_compressor"]


class ContextPacker:
    """Packs retrieved passages into the least a decoder needs.

    A failure of the method or the store costs compression, never the request: the passage is passed
    on as it is, counted in the report, and said once in the log. ``strict`` raises instead.

    Args:
        method: a method's name (``ragpack.registry.names("compressors")``) or a compressor.
        store: a store URL or a store; the embedded one by default.
        budget: most tokens of the packed context; None for no limit.
        min_relevance: a passage below it gives nothing (selective augmentation); None lets all in.
            Its scale is that of the method's scores: the dot product of ``recomp-extractive`` (a
            cosine, with the encoder it has by default), P(Yes) of ``exit``, cosine and log-odds of
            ``exit-mini``; with any other method that of the retriever's scores.
        tokenizer: the decoder's name or path, whose tokenizer counts the tokens.
        deadline_ms: milliseconds after which passages not yet compressed are passed on as they are.
        strict: raise errors instead of falling back.
        namespace: tenant wall; entries of one are invisible to another.
        secret: key of the stored entries' authentication tag; None for a checksum.
        ttl: seconds that stored entries live; None for ever.
        recent: artifacts read lately, for a process that serves many requests; None for none.
        settings: the method's own settings.

    Raises:
        ConfigError: a setting is wrong.
        UnknownPluginError: no such method or store.
    """

    def __init__(
        self,
        method: str | Compressor = config.DEFAULT_METHOD,
        *,
        store: str | CacheStore | None = None,
        budget: int | None = None,
        min_relevance: float | None = None,
        tokenizer: str | TokenCounter = config.DEFAULT_DECODER,
        deadline_ms: float | None = None,
        strict: bool = False,
        namespace: str | None = None,
        secret: bytes | None = None,
        ttl: float | None = None,
        recent: Recent | None = None,
        **settings: Any,
    ) -> None:
        _check_budget(budget)
        if min_relevance is not None and not math.isfinite(min_relevance):
            raise ConfigError(f"min_relevance must be a finite number, not {min_relevance}")
        if deadline_ms is not None and not deadline_ms > 0:  # NaN neither
            raise ConfigError(f"deadline_ms must be above 0, not {deadline_ms}")
        self.compressor = make_compressor(method, settings)
        self.budget = budget
        self.min_relevance = min_relevance
        self.deadline_ms = deadline_ms
        self.strict = strict
        self._tokenizer = tokenizer
        self._owns_store = not isinstance(store, CacheStore)
        self.store = (
            store
            if isinstance(store, CacheStore)
            else registry.open_store(store or config.store_url())
        )
        self.cache = ArtifactCache(
            self.compressor,
            self.store,
            namespace=namespace or config.namespace(),
            secret=secret if secret is not None else config.secret(),
            ttl=ttl,
            recent=recent,
        )

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """A packer from the keys of a TOML file's ``[ragpack]`` table.

        Raises:
            ConfigError: the file cannot be read, or a key is unknown.
        """
        try:
            settings = tomllib.loads(Path(path).read_text(encoding="utf-8"))["ragpack"]
        except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
            raise ConfigError(f"{path}: no readable [ragpack] table ({error})") from error
        return cls(**settings)

    @property
    def counter(self) -> TokenCounter:
        """Counts tokens as the decoder will; loaded on first use."""
        tokenizer = self._tokenizer
        if isinstance(tokenizer, str):
            self._tokenizer = tokenizer = load_token_counter(tokenizer)
        return tokenizer

    def pack(
        self, query: str, passages: Sequence[Passage], *, budget: int | None = None
    ) -> PackedContext:
        """Pack ``passages``, in their order, for ``query``.

        Args:
            query: the question.
            passages: best first, as a retriever gives them; none is changed.
            budget: overrides the packer's for this call.

        Raises:
            ConfigError: ``budget`` below 1, or ``min_relevance`` without anything to go by.
            RagpackError: only with ``strict``.
        """
        _check_budget(budget)
        with span("pack", method=self.compressor.name, passages=len(passages)):
            packed = self._pack(query, passages, self.budget if budget is None else budget)
            report = packed.report
            note(tokens_in=report.tokens_in, tokens_out=report.tokens_out, hits=report.hits)
            return packed

    def _pack(self, query: str, passages: Sequence[Passage], budget: int | None) -> PackedContext:
        timer = StageTimer()
        if config.bypass():
            untouched = [Outcome(p, Lookup(None, "bypassed"), None, (p,)) for p in passages]
            return self._finish(query, passages, untouched, None, timer)
        selection = Selection(
            self.compressor, self.min_relevance, strict=self.strict, warn=self.cache.warn_once
        )
        near, left_out = selection.sift(_without_twins(passages))
        whole = self.compressor.scope == "set"
        units = _merged(near) if whole else near
        with timer.stage("fetch"):
            looked = self.cache.fetch(units, query, Deadline(self.deadline_ms))
        if self.strict:
            _raise_first(looked)
        with timer.stage("select"):
            outcomes = selection.choose(query, units, looked, budget)
        if whole:
            outcomes = _unmerged(outcomes, near)
        return self._finish(query, passages, [*outcomes, *left_out], budget, timer)

    async def apack(
        self, query: str, passages: Sequence[Passage], *, budget: int | None = None
    ) -> PackedContext:
        """:meth:`pack` in a worker thread, so that the event loop stays free."""
        return await asyncio.to_thread(self.pack, query, passages, budget=budget)

    def flush(self) -> None:
        """Wait until everything computed so far is in the store."""
        self.cache.flush()

    def close(self) -> None:
        """Finish the writes; close the store if this packer opened it."""
        self.cache.close()
        if self._owns_store:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _finish(
        self,
        query: str,
        passages: Sequence[Passage],
        outcomes: Sequence[Outcome],
        budget: int | None,
        timer: StageTimer,
    ) -> PackedContext:
        """Spend the budget, and write the account."""
        drafts = [outcome.draft for outcome in outcomes]
        with timer.stage("budget"):
            full = assemble(drafts) if budget is None else fit(drafts, budget, self.counter)
        segments = [o.carry(segment) for o, segment in zip(outcomes, full, strict=True)]
        with timer.stage("count"):
            rows, tokens = account(passages, outcomes, segments, self.counter)
        kept = tuple(segment for segment in segments if not is_empty(segment))
        if self.strict and budget is not None and drafts and not kept:
            raise BudgetError(f"nothing fits into a budget of {plural(budget, 'token')}; raise it")
        report = PackReport(
            method=self.compressor.name,
            tokens_in=tokens.before,
            tokens_out=tokens.after,
            passages=rows,
            ms=timer.ms,
            fallbacks=dict(Counter(o.look.reason for o in outcomes if o.fell_back)),
            budget=budget,
        )
        return PackedContext(query, kept, report)


def make_compressor(method: str | Compressor, settings: dict[str, Any]) -> Compressor:
    """The compressor called ``method``, built with its ``settings``.

    Raises:
        ConfigError: a setting that the method does not have, or of the wrong type.
        UnknownPluginError: no such method.
    """
    if isinstance(method, Compressor):
        if settings:
            raise ConfigError(f"settings {sorted(settings)} belong to the compressor you made")
        return method
    factory = registry.load("compressors", method)
    known = signature(factory).parameters
    unknown = sorted(set(settings) - set(known))
    if unknown:
        have = ", ".join(known) or "none"
        raise ConfigError(f"{method} has no setting {', '.join(unknown)}; it has: {have}")
    try:
        compressor: Compressor = factory(**settings)
    except TypeError as error:  # such as a text where a number belongs
        raise ConfigError(f"{method} cannot be made with {settings}: {error}") from error
    return compressor


def _check_budget(budget: int | None) -> None:
    if budget is not None and not budget >= 1:  # NaN neither
        raise ConfigError(f"budget must be at least 1 token, not {budget}")


def _without_twins(passages: Sequence[Passage]) -> list[Passage]:
    """The passages in order, each title and text once."""
    first: dict[tuple[str, str], Passage] = {}
    for passage in passages:
        first.setdefault((passage.title, passage.text), passage)
    return list(first.values())


def _merged(passages: Sequence[Passage]) -> list[Passage]:
    """The passages as one, in order; none of none."""
    ident, text = "+".join(p.id for p in passages), "\n".join(p.full_text for p in passages)
    return [Passage(ident, text)] if passages else []


def _unmerged(outcomes: Sequence[Outcome], passages: Sequence[Passage]) -> list[Outcome]:
    """The outcome of passages merged into one: theirs together, or each its own text again."""
    if not outcomes or outcomes[0].choice is not None:
        return [replace(outcome, sources=tuple(passages)) for outcome in outcomes]
    return [Outcome(passage, outcomes[0].look, None, (passage,)) for passage in passages]


def _raise_first(looked: Sequence[Lookup]) -> None:
    for look in looked:
        if look.error is not None:
            raise look.error
