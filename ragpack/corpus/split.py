"""Cuts long documents into passages: whole sentences, exact slices, ids that stay.

A document is read through a window that slides from sentence to sentence, so that time grows with
its length and memory does not, beyond the text itself.
"""

import logging
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from ragpack.errors import ConfigError
from ragpack.protocols import TokenCounter
from ragpack.sentences import sentence_spans
from ragpack.text import plural, utf8
from ragpack.types import Passage, Span

from .records import BadRecord, Item, Record

__all__ = ["PART_OF", "RECORD_TOKENS", "Splitter", "document_of"]

_log = logging.getLogger(__name__)

PART_OF = "part_of"
"""Metadata of a passage that was cut from a document: its ``id``, and ``start`` and ``end``."""

RECORD_TOKENS = 2048
"""Tokens up to which a line or row counts as the passage that its author wanted."""

_WINDOW = 8192
_CHARACTERS_PER_TOKEN = 8
"""A tokenizer may make one token of a word of any length; beyond this, characters count."""
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class _Unit:
    """A sentence, or a piece of one that is too long, and what it costs in tokens."""

    start: int
    end: int
    tokens: int


class Splitter:
    """Splits documents that are longer than a passage may be.

    A passage holds as many whole sentences as fit; only a sentence that is longer than a passage
    is cut, at white space if it has some. The passages of the document ``d`` are ``d#0``, ``d#1``
    and so on; each text is an exact slice of the document, and ``metadata["part_of"]`` says of
    which. Title and metadata are the document's own. What needs no splitting is left as it is.

    Args:
        counter: the encoder's tokenizer.
        tokens: most tokens of a passage, its title included.
        overlap: tokens at the end of a passage that the next one repeats, in whole sentences.
        record_tokens: lines and rows are split only when they are longer than this; documents
            with a file of their own as soon as they are longer than ``tokens``.
        language: ISO 639 code for the sentence rules, where a record's metadata has no
            ``language``.

    Raises:
        ConfigError: ``tokens`` below 8, or ``overlap`` not below half of it.
    """

    def __init__(
        self,
        counter: TokenCounter,
        tokens: int,
        *,
        overlap: int = 0,
        record_tokens: int = RECORD_TOKENS,
        language: str = "en",
    ) -> None:
        if tokens < 8:
            raise ConfigError(f"a passage must be allowed at least 8 tokens, not {tokens}")
        if not 0 <= overlap < tokens / 2:
            raise ConfigError(f"overlap must be from 0 to below {tokens / 2:g}, not {overlap}")
        self.tokens = tokens
        self.overlap = overlap
        self.record_tokens = max(record_tokens, tokens)
        self.language = language
        self._counter = counter

    def split(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same records, with long ones replaced by their passages.

        How many lines and rows stay whole although they are longer than a passage is said in the
        log at the end: an encoder that reads no more than ``tokens`` knows only their beginning.
        """
        longer = 0
        for item in items:
            if isinstance(item, BadRecord):
                yield item
                continue
            parts = self._parts(item)
            first = next(parts)
            longer += first is item and item.passage.text.count(" ") >= self.tokens
            yield first
            yield from parts
        if longer:
            _log.warning(
                "longer than the %d tokens that are read of each: at least %s; split long ones to "
                "have all of them read",
                self.tokens,
                plural(longer, "passage"),
            )

    def spans(self, text: str, room: int, language: str = "en") -> Iterator[Span]:
        """Ranges of ``text`` with at most ``room`` tokens each, in order.

        Every character that is not white space lies in one, or in several where they overlap.
        """
        held: deque[_Unit] = deque()
        total = 0
        for unit in self._units(text, room, language):
            if held and total + unit.tokens > room:
                yield held[0].start, held[-1].end
                while held and (total > self.overlap or total + unit.tokens > room):
                    total -= held.popleft().tokens
            held.append(unit)
            total += unit.tokens
        if held:
            yield held[0].start, held[-1].end

    def _parts(self, record: Record) -> Iterator[Record]:
        passage = record.passage
        limit = self.record_tokens if record.line else self.tokens
        if self._short(passage.full_text, limit):
            yield record
            return
        title = self._counter.count([passage.title])[0] if passage.title else 0
        room = max(self.tokens - title, self.tokens // 2)
        language = passage.metadata.get("language")
        rules = language if isinstance(language, str) else self.language
        ranges = self.spans(passage.text, room, rules)
        first_two = list(islice(ranges, 2))
        if len(first_two) < 2:  # white space, or a long title
            yield record
            return
        for number, span in enumerate(chain(first_two, ranges)):
            yield replace(record, passage=_part(passage, number, span))

    def _short(self, text: str, limit: int) -> bool:
        """Whether ``text`` has at most ``limit`` tokens, of which each is a byte at least."""
        if len(text) > limit * _CHARACTERS_PER_TOKEN:
            return False
        return len(utf8(text)) <= limit or self._counter.count([text])[0] <= limit

    def _units(self, text: str, room: int, language: str) -> Iterator[_Unit]:
        for sentences in _windows(text, language):
            counts = self._counter.count([text[start:end] for start, end in sentences])
            for span, count in zip(sentences, counts, strict=True):
                yield from self._pieces(text, span, count, room)

    def _pieces(self, text: str, span: Span, count: int, room: int) -> Iterator[_Unit]:
        """The sentence, or its halves, halved again until they fit."""
        start, end = span
        tokens = max(count, (end - start) // _CHARACTERS_PER_TOKEN)
        if tokens <= room or end - start == 1:
            yield _Unit(start, end, tokens)
            return
        halves = _halves(text, span)
        counts = self._counter.count([text[a:b] for a, b in halves])
        for half, own in zip(halves, counts, strict=True):
            yield from self._pieces(text, half, own, room)


def document_of(passage: Passage) -> str:
    """The id of the document that a passage was cut from, or its own."""
    place = passage.metadata.get(PART_OF)
    return str(place["id"]) if isinstance(place, dict) and "id" in place else passage.id


def _part(document: Passage, number: int, span: Span) -> Passage:
    start, end = span
    place = {"id": document.id, "start": start, "end": end}
    return Passage(
        id=f"{document.id}#{number}",
        text=document.text[start:end],
        title=document.title,
        metadata={**document.metadata, PART_OF: place},
    )


def _windows(text: str, language: str) -> Iterator[Sequence[Span]]:
    """The sentences of ``text``, some at a time.

    A sentence that touches the end of a window may go on behind it, so the next window begins
    with it.
    """
    at = 0
    while at < len(text):
        window = text[at : at + _WINDOW]
        found = [(at + start, at + end) for start, end in sentence_spans(window, language)]
        last = at + len(window) == len(text)
        if not last and len(found) > 1:
            at = found.pop()[0]
        else:
            at += len(window)
        yield found


def _halves(text: str, span: Span) -> tuple[Span, Span]:
    """Two halves, parted at the white space nearest to the middle; without any, in the middle."""
    start, end = span
    middle = (start + end) // 2
    spaces = (match.span() for match in _SPACE.finditer(text, start, end))
    left, right = min(spaces, key=lambda gap: abs(gap[0] - middle), default=(middle, middle))
    return (start, left), (right, end)
