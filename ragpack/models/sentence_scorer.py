"""A cross-encoder that reads a query and a passage together and scores every sentence.

``[CLS] query [SEP] title sentence sentence … [SEP]`` goes through a BERT encoder once. Each token
gets a probability to be kept, and a sentence the mean of its tokens', as in Provence (Chirkova et
al., 2025). The shipped weights are low-rank updates (LoRA) of the encoder's upper layers and a
small head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import BertModel

from ragpack.errors import ConfigError

__all__ = ["SentenceScorer", "Window", "collate", "sentence_means", "windows"]

RANK = 32
FIRST_LAYER = 2
_LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


@dataclass(frozen=True, slots=True)
class Window:
    """One sequence for the encoder.

    ``types`` is 0 for the query and 1 for title and text; ``owners`` is the number of the sentence
    that a token belongs to, -1 for query, title and special tokens.
    """

    ids: list[int]
    types: list[int]
    owners: list[int]


def windows(
    query: Sequence[int],
    title: Sequence[int],
    sentences: Sequence[Sequence[int]],
    specials: tuple[int, int],
    limit: int,
) -> Iterator[Window]:
    """Sequences of at most ``limit`` tokens that together hold every token of every sentence.

    A window ends between two sentences; only a sentence that fills more than a window is split.

    Args:
        query: token ids, without special tokens.
        title: token ids, repeated in every window.
        sentences: token ids of each sentence.
        specials: ids of ``[CLS]`` and ``[SEP]``.
        limit: the encoder's window; query and title must leave room in it.
    """
    start, stop = specials
    head = [start, *query, stop, *title]
    types = [0] * (len(query) + 2) + [1] * len(title)
    room = limit - len(head) - 1
    if room < 1:
        raise ConfigError(f"query and title fill the window of {limit} tokens")
    for body, owners in _fill(sentences, room):
        yield Window(
            ids=[*head, *body, stop],
            types=types + [1] * (len(body) + 1),
            owners=[-1] * len(head) + owners + [-1],
        )


def _fill(
    sentences: Sequence[Sequence[int]], room: int
) -> Iterator[tuple[list[int], list[int]]]:
    body: list[int] = []
    owners: list[int] = []
    for number, sentence in enumerate(sentences):
        for at in range(0, len(sentence), room):
            piece = sentence[at : at + room]
            if body and len(body) + len(piece) > room:
                yield body, owners
                body, owners = [], []
            body = [*body, *piece]
            owners = owners + [number] * len(piece)
    if body:
        yield body, owners


def collate(batch: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Padded ids, types, attention mask and owners, each [len(batch), longest]."""
    widest = max(len(window.ids) for window in batch)
    columns = [(w.ids, w.types, [1] * len(w.ids), w.owners) for w in batch]
    ids, types, mask, owners = (
        torch.tensor([row + [fill] * (widest - len(row)) for row in rows])
        for rows, fill in zip(zip(*columns, strict=True), (0, 0, 0, -1), strict=True)
    )
    return ids, types, mask, owners


def sentence_means(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """Mean of ``values`` over the tokens of each sentence [count]; 0 for one without tokens.

    Args:
        values: any shape, one value a token.
        owners: the same shape, sentence numbers in ``range(count)``, or -1 for none.
        count: number of sentences.
    """
    held = owners >= 0
    numbers = owners[held]
    sums = values.new_zeros(count).index_add(0, numbers, values[held])
    return sums / torch.bincount(numbers, minlength=count).clamp(min=1)


class _LowRank(nn.Module):
    """A frozen linear layer with a trained update ``up @ down`` of rank r (Hu et al., 2021)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output plus the update's."""
        update: Tensor = hidden @ self.down.T @ self.up.T
        return update + self.base(hidden)

    def merged(self) -> nn.Linear:
        """The plain layer with the update added to its weight."""
        with torch.no_grad():
            self.base.weight += self.up @ self.down
        return self.base


class SentenceScorer(nn.Module):
    """Encoder and head: a keep-logit for every token.

    The head adds a linear read-out of the token to its cosine with the mean of the query's tokens,
    weighted by dimension: what the encoder already knows of similarity is where training starts.
    """

    def __init__(self, encoder: BertModel) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder.requires_grad_(False)
        self.keep = nn.Linear(width, 1)
        self.match = nn.Parameter(torch.full((width,), 5.0))
        nn.init.zeros_(self.keep.weight)
        nn.init.constant_(self.keep.bias, -3.0)
        for parent, name, linear in self._linears():
            setattr(parent, name, _LowRank(linear, RANK))

    def _linears(self) -> Iterator[tuple[nn.Module, str, nn.Module]]:
        for layer in self.encoder.encoder.layer[FIRST_LAYER:]:
            for path in _LINEARS:
                folder, _, name = path.rpartition(".")
                parent = layer.get_submodule(folder)
                yield parent, name, getattr(parent, name)

    def forward(self, ids: Tensor, types: Tensor, mask: Tensor) -> Tensor:
        """Keep-logits [batch, tokens] from ids, types and attention mask [batch, tokens]."""
        hidden = self.encoder(
            input_ids=ids, token_type_ids=types, attention_mask=mask
        ).last_hidden_state
        asked = (mask * (1 - types)).unsqueeze(-1)
        query = normalize((hidden * asked).sum(1) / asked.sum(1), dim=-1)
        similar = (normalize(hidden, dim=-1) * query.unsqueeze(1)) @ self.match
        logits: Tensor = self.keep(hidden).squeeze(-1) + similar
        return logits

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        return {name: part for name, part in self.named_parameters() if part.requires_grad}

    def save(self, path: Path) -> None:
        """Write the trained parameters in half precision."""
        save_file(
            {name: part.detach().half().contiguous() for name, part in self.trained().items()}, path
        )

    @classmethod
    def load(cls, encoder: BertModel, path: Path) -> "SentenceScorer":
        """A scorer for inference: updates merged into ``encoder``.

        Raises:
            ConfigError: ``path`` does not hold the parameters of this architecture.
        """
        scorer = cls(encoder)
        saved = load_file(path)
        if saved.keys() != scorer.trained().keys():
            raise ConfigError(f"{path} holds no sentence-scorer weights for this encoder")
        with torch.no_grad():
            for name, part in scorer.trained().items():
                part.copy_(saved[name])
        for parent, name, linear in scorer._linears():
            if isinstance(linear, _LowRank):
                setattr(parent, name, linear.merged())
        return scorer.requires_grad_(False).eval()
