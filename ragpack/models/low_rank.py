"""Low-rank updates (LoRA; Hu et al., 2021) of a model's linear layers, for training."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from transformers import BertModel

__all__ = ["LowRank", "add_low_rank", "merge_low_rank", "upper_linears"]

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
        down = torch.randn(rank, base.in_features) / base.in_features**0.5
        self.down = nn.Parameter(down.to(base.weight.device))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def forward(self, hidden: Tensor) -> Tensor:
        """The layer's output plus the update's."""
        plain: Tensor = self.base(hidden)
        return plain + hidden @ self.down.T @ self.up.T

    def merged(self) -> nn.Linear:
        """The plain layer with the update added to its weight."""
        with torch.no_grad():
            self.base.weight += self.up @ self.down
        return self.base


def add_low_rank(model: nn.Module, paths: Iterable[str], rank: int) -> dict[str, LowRank]:
    """Freeze ``model`` and put an update on the linear layer at each of its ``paths``.

    Returns:
        The updates by their paths.
    """
    model.requires_grad_(False)
    updates = {
        path: LowRank(model.get_submodule(path), rank)  # type: ignore[arg-type]
        for path in paths
    }
    _replace(model, updates)
    return updates


def merge_low_rank(model: nn.Module, updates: Mapping[str, LowRank]) -> None:
    """Put plain layers back in, with their updates added to the weights."""
    _replace(model, {path: update.merged() for path, update in updates.items()})


def upper_linears(encoder: BertModel, first_layer: int) -> Iterator[str]:
    """Paths of every linear layer of a BERT encoder from ``first_layer`` (0-based) up."""
    for number in range(first_layer, encoder.config.num_hidden_layers):
        yield from (f"encoder.layer.{number}.{name}" for name in _LINEARS)


def _replace(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    for path, layer in layers.items():
        model.set_submodule(path, layer)
