"""Judges sentences by a cross-encoder and a sentence encoder, fused."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safetensors.torch import load_file

from ragpack.config import DEFAULT_ENCODER
from ragpack.errors import ConfigError
from ragpack.models.device import best_device
from ragpack.models.encoder import SentenceEncoder, load_encoder
from ragpack.models.files import resolve
from ragpack.models.sentence_reader import SentenceReader, Tokens
from ragpack.models.sentence_scorer import SentenceScorer

__all__ = ["FUSION", "SHIPPED_WEIGHTS", "SentenceJudge", "Signals"]

SHIPPED_WEIGHTS = Path(__file__).parent.parent / "data" / "exit-mini" / "exit-mini.safetensors"
FUSION = "fusion"
"""Tensor [3] in a weights file: weight of the log-odds, weight of the cosine, offset."""

_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known of one sentence: the cross-encoder's log-odds, the cosine with the query."""

    log_odds: float
    cosine: float


class SentenceJudge:
    """Judges sentences under a query; may be called from several threads.

    Args:
        reader: the cross-encoder.
        encoder: of unit vectors, for the cosine.
        fusion: weight of the log-odds, weight of the cosine, offset.
    """

    def __init__(
        self, reader: SentenceReader, encoder: SentenceEncoder, fusion: Sequence[float]
    ) -> None:
        self._reader, self._encoder = reader, encoder
        self._fusion = tuple(fusion)

    @classmethod
    def load(cls, weights: Path, device: str | None = None) -> "SentenceJudge":
        """The judge of a weights file, on the encoder that it was trained on.

        Raises:
            ConfigError: the file is not there or holds other tensors.
            MissingExtraError: the encoder's package is not installed.
        """
        if not weights.is_file():
            raise ConfigError(f"no weights at {weights}: train them, or leave the setting out")
        tensors = load_file(weights)
        if FUSION not in tensors:
            raise ConfigError(f"{weights} holds no {FUSION!r} tensor: not weights of exit-mini")
        fusion = tensors.pop(FUSION).tolist()
        base = resolve(DEFAULT_ENCODER).path
        scorer = SentenceScorer.load(base, tensors).to(device or best_device())
        reader = SentenceReader(scorer, base / "tokenizer.json")
        return cls(reader, load_encoder(DEFAULT_ENCODER, device), fusion)

    def scores(
        self, query: str, titles: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        """Log-odds of every sentence.

        Args:
            query: the question.
            titles: of the passages, "" for none.
            texts: the sentences of each passage.
        """
        weight, nearness, offset = self._fusion
        return [
            [weight * one.log_odds + nearness * one.cosine + offset for one in row]
            for row in self.signals(query, titles, texts)
        ]

    def signals(
        self, query: str, titles: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[list[Signals]]:
        """Both signals of every sentence, in the shape of ``texts``."""
        odds = self._log_odds(query, titles, texts)
        nearness = self._cosines(query, titles, texts)
        return [
            [Signals(*pair) for pair in zip(*rows, strict=True)]
            for rows in zip(odds, nearness, strict=True)
        ]

    def _log_odds(
        self, query: str, titles: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        flat = [sentence for row in texts for sentence in row]
        tokens = iter(self._reader.tokens([query, *titles, *flat]))
        asked = next(tokens)
        heads = list(islice(tokens, len(titles)))
        bodies = [list(islice(tokens, len(row))) for row in texts]
        passages = [Tokens(*pair) for pair in zip(heads, bodies, strict=True)]
        return [[_logit(kept) for kept in row] for row in self._reader.read(asked, passages)]

    def _cosines(
        self, query: str, titles: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> list[list[float]]:
        flat = [
            f"{title} {sentence}" if title else sentence
            for title, row in zip(titles, texts, strict=True)
            for sentence in row
        ]
        vectors = self._encoder.encode([query, *flat])
        found = iter((vectors[1:] * vectors[0]).sum(axis=1).tolist())
        return [list(islice(found, len(row))) for row in texts]


def _logit(probability: float) -> float:
    inside = min(max(probability, _LEAST), 1.0 - _LEAST)
    return math.log(inside / (1.0 - inside))
