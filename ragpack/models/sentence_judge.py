"""Judges sentences by a sentence encoder's cosine and a cross-encoder's log-odds."""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path

from safetensors.torch import load_file

from ragpack.config import DEFAULT_ENCODER
from ragpack.digest import digest_file
from ragpack.errors import ConfigError
from ragpack.models.device import best_device
from ragpack.models.files import resolve
from ragpack.models.sentence_reader import SentenceReader, Tokens
from ragpack.models.sentence_scorer import SentenceScorer
from ragpack.protocols import TextEncoder
from ragpack.text import model_text

__all__ = ["LOG_ODDS", "SHIPPED_WEIGHTS", "SentenceJudge"]

SHIPPED_WEIGHTS = Path(__file__).parent.parent / "data" / "exit-mini" / "exit-mini.safetensors"

LOG_ODDS = 0.02
"""Weight of the log-odds beside the cosine: they vary about a third as much as it. None of several
keeps more on training data that neither network has seen (``benchmarks/exit_mini_weight.py``)."""

_LEAST = 1e-6


class SentenceJudge:
    """Judges sentences under a query; may be called from several threads.

    The score is the *cosine* between the query and the sentence under its title, plus a share of
    the cross-encoder's *log-odds* that the sentence answers. The cosine also favours sentences that
    lead to the answer without holding it; the cross-encoder tells the answer from what is near it.

    Args:
        reader: the cross-encoder.
        encoder: of unit vectors, for the cosine.
    """

    def __init__(self, reader: SentenceReader, encoder: TextEncoder) -> None:
        self._reader, self._encoder = reader, encoder

    @classmethod
    def load(
        cls, weights: Path, encoder: TextEncoder, device: str | None = None
    ) -> "SentenceJudge":
        """The judge of a weights file; those of one file share its cross-encoder.

        Raises:
            ConfigError: the file is not there or holds other tensors.
            MissingExtraError: the encoder's package is not installed.
        """
        if not weights.is_file():
            raise ConfigError(f"no weights at {weights}: train them, or leave the setting out")
        return cls(_reader(weights, digest_file(weights), device or best_device()), encoder)

    def scores(
        self, query: str, titles: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """The score of every sentence, in the shape of ``texts``.

        Args:
            query: the question.
            titles: of the passages, "" for none.
            texts: the sentences of each passage.
        """
        cosines = self.cosines(query, titles, texts)
        odds = self.log_odds(query, titles, texts)
        return [
            [cosine + LOG_ODDS * log_odds for cosine, log_odds in zip(*rows, strict=True)]
            for rows in zip(cosines, odds, strict=True)
        ]

    def log_odds(
        self, query: str, titles: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """The cross-encoder's part of :meth:`scores`, before it is weighted."""
        flat = [sentence for row in texts for sentence in row]
        tokens = iter(self._reader.tokens([query, *titles, *flat]))
        asked = next(tokens)
        heads = list(islice(tokens, len(titles)))
        bodies = [list(islice(tokens, len(row))) for row in texts]
        passages = [Tokens(*pair) for pair in zip(heads, bodies, strict=True)]
        return [[_logit(kept) for kept in row] for row in self._reader.read(asked, passages)]

    def cosines(
        self, query: str, titles: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """The encoder's part of :meth:`scores`."""
        flat = [
            model_text(f"{title} {sentence}" if title else sentence)
            for title, row in zip(titles, texts, strict=True)
            for sentence in row
        ]
        vectors = self._encoder.encode([model_text(query), *flat])
        found = iter((vectors[1:] * vectors[0]).sum(axis=1).tolist())
        return [list(islice(found, len(row))) for row in texts]


@lru_cache(maxsize=2)
def _reader(weights: Path, digest: str, device: str) -> SentenceReader:
    """The cross-encoder of a weights file as it is now, on the encoder that it was trained on."""
    base = resolve(DEFAULT_ENCODER).path
    scorer = SentenceScorer.load(base, load_file(weights)).to(device)
    return SentenceReader(scorer, base / "tokenizer.json")


def _logit(probability: float) -> float:
    inside = min(max(probability, _LEAST), 1.0 - _LEAST)
    return math.log(inside / (1.0 - inside))
