"""Sentences as character ranges of the original text.

The splitter is ``sentencex`` (Wikimedia's rule-based one, good for most scripts), with three guards
that it needs on text from the wild:

- it panics on some non-ASCII white space, so it is shown a text in which every white space is a
  blank or a newline, character for character; offsets stay those of the original;
- a panic that comes all the same is no ``Exception``; a few rules of our own take over then;
- it runs lists together, so paragraphs and list items are split off first;
- Thai and Lao write no mark between sentences, so a blank between two of their letters ends one
  that is long enough.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import pairwise

import sentencex

from ragpack.text import model_text
from ragpack.types import Span

__all__ = ["LONGEST_SENTENCE", "SPLITTER", "sentence_spans"]

logger = logging.getLogger(__name__)

SPLITTER = f"sentencex-{version('sentencex')}/2"
"""Name and version of the rules: part of every fingerprint that depends on sentence borders."""

LONGEST_SENTENCE = 1000
"""Characters; what has no border for longer is cut at white space, where there is some."""

_BLANKS = "\t\v\f\r\x1c\x1d\x1e\x1f\xa0\u1680\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_NEWLINES = "\x85\u2028\u2029"
_PLAIN_SPACE = str.maketrans(_BLANKS + _NEWLINES, " " * len(_BLANKS) + "\n" * len(_NEWLINES))

_ITEM = r"(?:[-*+•‣◦▪–]|\d{1,3}\.|\(?(?:\d{1,3}|[A-Za-z])\)) +(?=\S)"
_BLOCK_BREAK = re.compile(rf"\n *\n\s*|\n(?= *{_ITEM})")
_ITEM_START = re.compile(rf"\s*{_ITEM}")
_PIECE = re.compile(
    rf"\S(?:.{{0,{LONGEST_SENTENCE - 2}}}\S)?(?!\S)|\S{{1,{LONGEST_SENTENCE}}}", re.DOTALL
)

_UNMARKED_BLANK = re.compile(r"(?<=[\u0e01-\u0eff]) +(?=[\u0e01-\u0eff])")
_UNMARKED_SENTENCE = 100
"""Characters of Thai or Lao from which on a blank ends a sentence."""

_TERMINAL = re.compile(r"[.!?…]+[\"'”’)\]]*\s+(?=[^a-z\s])|[。！？｡؟।]+[”’」』）]*")
_ABBREVIATION = re.compile(
    r"\b(?:[A-Za-z]|[A-Z][a-z]|Mrs|Prof|Sen|Rep|Gen|Col|Capt|Lt|Rev|Hon|Fig|Eq|vs|etc|cf|No|"
    r"Inc|Ltd|Corp|Co|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Oct|Nov|Dec|approx|dept|est)$"
)


def sentence_spans(text: str, language: str = "en") -> tuple[Span, ...]:
    """The sentences of ``text``, each without its outer white space.

    Spans are ascending, disjoint and never empty, and every character that is not white space lies
    in one. A paragraph or list item always ends a sentence; a list marker belongs to its item.

    Args:
        text: anything, lone surrogates and NUL included.
        language: ISO 639 code; an unknown one is treated as a near relative or as English.
    """
    plain = model_text(text).translate(_PLAIN_SPACE)
    breaks = [match.end() for match in _BLOCK_BREAK.finditer(plain)]
    cuts = [0]
    for start, end in pairwise([0, *breaks, len(plain)]):
        marker = _ITEM_START.match(plain, start, end)
        body = marker.end() if marker else start
        ends = [body + offset for offset in _sentence_ends(plain[body:end].rstrip(), language)]
        cuts += _with_unmarked(plain, body, ends)
        cuts.append(end)
    return tuple(
        piece.span()
        for start, end in pairwise(cuts)
        for piece in _PIECE.finditer(plain, start, end)
    )


def _sentence_ends(block: str, language: str) -> list[int]:
    """Where the sentences of ``block`` end, ascending."""
    try:
        sentences = sentencex.get_sentence_boundaries(language, block)
        return [sentence["end_index"] for sentence in sentences]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a Rust panic derives from BaseException
        logger.warning("sentencex failed on a text of %d characters; split by rule", len(block))
        return _ends_by_rule(block)


def _with_unmarked(text: str, start: int, ends: Iterable[int]) -> Iterator[int]:
    """``ends`` with those that are only written as a blank; the first sentence is at ``start``."""
    for end in ends:
        for blank in _UNMARKED_BLANK.finditer(text, start, end):
            if blank.start() - start >= _UNMARKED_SENTENCE:
                start = blank.end()
                yield start
        yield end
        start = end


def _ends_by_rule(block: str) -> list[int]:
    """Ends after terminal punctuation, unless it closes an abbreviation or an initial."""
    return [
        match.end()
        for match in _TERMINAL.finditer(block)
        if not (
            match[0].rstrip() == "."
            and _ABBREVIATION.search(block, max(0, match.start() - 8), match.start())
        )
    ]
