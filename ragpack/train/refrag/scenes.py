"""Questions over whole passages: what a policy practises on without asking the decoder."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from ragpack.models.prompt import SEPARATOR
from ragpack.soft.chunks import cut
from ragpack.text import model_text
from ragpack.train.refrag.data import Asked
from ragpack.train.refrag.setup import Setup
from ragpack.types import Span

__all__ = ["AskedScene", "Scenes"]

_OTHERS = 1, 1, 2, 3
"""Passages beside the one that answers; each count is as likely as it stands here often."""
_NEAR = -3, -2, -1, 1, 2, 3
"""Half of them stand this far from it in the data, so they are of its article most often."""


@dataclass(frozen=True, slots=True)
class AskedScene:
    """Chunk vectors [n, d], the question's [d], and which chunks hold the answer [n]."""

    vectors: Tensor
    query: Tensor
    holds: Tensor


class Scenes:
    """Draws questions; a passage is encoded when it is drawn first.

    Args:
        asked: to draw from, article by article.
        setup: the models.
    """

    def __init__(self, asked: Sequence[Asked], setup: Setup) -> None:
        self._asked, self._setup = asked, setup
        self._passages = list(dict.fromkeys(each.context for each in asked))
        self._places = {text: place for place, text in enumerate(self._passages)}
        self._encoded = cache(self._encode)

    def draw(self, draw: random.Random) -> AskedScene:
        """A question over the passage that answers it and some others, in any order."""
        asked = draw.choice(self._asked)
        right = self._places[asked.context]
        places = [right, *sorted(self._others(right, draw))]
        draw.shuffle(places)
        vectors, holds = [], []
        for place in places:
            own, spans = self._encoded(place)
            vectors.append(own)
            holds += [place == right and _holds(span, asked) for span in spans]
        query = self._setup.query(asked.question)
        scene = torch.cat(vectors).float().to(query.device)
        return AskedScene(scene, query, torch.tensor(holds, device=query.device))

    def _others(self, right: int, draw: random.Random) -> set[int]:
        """Some other passages than the right one, if there are others."""
        found = set()
        for _ in range(draw.choice(_OTHERS)):
            count = len(self._passages)
            step = draw.choice(_NEAR) if draw.random() < 0.5 else draw.randrange(count)
            found.add((right + step) % count)
        return found - {right}

    def _encode(self, place: int) -> tuple[Tensor, list[Span]]:
        """The passage's chunk vectors, in half precision, and the characters of each chunk."""
        text = model_text(self._passages[place]) + SEPARATOR
        tokens = self._setup.prompts.tokens_before_text(text)
        chunk = self._setup.checkpoint.config.chunk
        parts = [tokens[start : start + chunk] for start in range(0, len(tokens), chunk)]
        spans = [(part[0][1][0], part[-1][1][1]) for part in parts]
        vectors = self._setup.encoder.encode([cut(text, tokens, chunk)])
        return torch.from_numpy(vectors).half(), spans


def _holds(span: Span, asked: Asked) -> bool:
    """Whether a part of the answer stands in the characters ``span``."""
    return span[0] < asked.start + len(asked.answer) and asked.start < span[1]
