"""BM25 over a few thousand texts, for finding hard negatives."""

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

__all__ = ["LexicalIndex", "words"]

_WORD = re.compile(r"\w+")
_K1, _B = 1.2, 0.75
_COMMON = 0.1
"""Words in more than this share of the texts are skipped: they cost most and tell least."""


def words(text: str) -> list[str]:
    """The words of ``text`` in lower case."""
    return _WORD.findall(text.lower())


class LexicalIndex:
    """An inverted index with BM25 weights (Robertson and Zaragoza, 2009)."""

    def __init__(self, texts: Iterable[str]) -> None:
        counts = [Counter(words(text)) for text in texts]
        lengths = [count.total() for count in counts]
        mean = sum(lengths) / max(1, len(lengths))
        rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for row, count in enumerate(counts):
            norm = _K1 * (1 - _B + _B * lengths[row] / mean)
            for word, times in count.items():
                rows[word].append((row, times * (_K1 + 1) / (times + norm)))
        self._rows = {
            word: (math.log(1 + (len(counts) - len(found) + 0.5) / (len(found) + 0.5)), found)
            for word, found in rows.items()
            if len(found) <= max(1, _COMMON * len(counts))
        }

    def nearest(self, query: str, k: int) -> list[int]:
        """Rows of the ``k`` best texts that share a word with ``query``, best first."""
        scores: dict[int, float] = defaultdict(float)
        for word in set(words(query)):
            idf, found = self._rows.get(word, (0.0, []))
            for row, weight in found:
                scores[row] += idf * weight
        return heapq.nsmallest(k, scores, key=lambda row: (-scores[row], row))
