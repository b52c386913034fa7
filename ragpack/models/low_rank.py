"""Low-rank updates (LoRA; Hu et al., 2021) of a BERT encoder's upper layers, for training."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from transformers import BertModel

__all__ = ["LowRank", "add_low_rank", "merge_low_rank"]

_LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


class LowRank(nn.Module):
    """A frozen linear layer with a trained update ``up @ down`` of rank r, zero at first."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output plus the update's."""
        plain: Tensor = self.base(hidden)
        return plain + hidden @ self.down.T @ self.up.T

    def merged(self) -> nn.Linear:
        """The plain layer with the update added to its weight."""
        with torch.no_grad():
            self.base.weight += self.up @ self.down
        return self.base


def add_low_rank(encoder: BertModel, first_layer: int, rank: int) -> dict[str, LowRank]:
    """Freeze ``encoder`` and put an update on every linear map from ``first_layer`` (0-based) up.

    Returns:
        The updates by their paths in the encoder.
    """
    encoder.requires_grad_(False)
    updates = {
        path: LowRank(encoder.get_submodule(path), rank)  # type: ignore[arg-type]
        for path in _paths(encoder, first_layer)
    }
    _replace(encoder, updates)
    return updates


def merge_low_rank(encoder: BertModel, updates: Mapping[str, LowRank]) -> None:
    """Put plain layers back in, with their updates added to the weights."""
    _replace(encoder, {path: update.merged() for path, update in updates.items()})


def _paths(encoder: BertModel, first_layer: int) -> Iterator[str]:
    for number in range(first_layer, encoder.config.num_hidden_layers):
        yield from (f"encoder.layer.{number}.{name}" for name in _LINEARS)


def _replace(encoder: BertModel, layers: Mapping[str, nn.Module]) -> None:
    for path, layer in layers.items():
        encoder.set_submodule(path, layer)
