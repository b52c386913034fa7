"""A cross-encoder that reads a query and a passage together and scores every sentence.

``[CLS] query [SEP] title sentence sentence … [SEP]`` goes through a BERT encoder once. Each token
gets a probability to be kept, and a sentence the mean of its tokens', as in Provence (Chirkova et
al., 2025). The shipped weights are low-rank updates (LoRA) of the encoder's upper layers and a
small head.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import BertModel

from ragpack.errors import ConfigError
from ragpack.models.checkpoint import quiet_progress

__all__ = ["SentenceScorer"]

_RANK = 16
_FIRST_LAYER = 3
_LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


class _LowRank(nn.Module):
    """A frozen linear layer with a trained update ``up @ down`` of rank r (Hu et al., 2021)."""

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
        for parent, name, linear in list(self._linears()):
            if isinstance(linear, nn.Linear):
                setattr(parent, name, _LowRank(linear, _RANK))

    def _linears(self) -> Iterator[tuple[nn.Module, str, nn.Module]]:
        """Parent module, attribute and layer of every linear map that gets an update."""
        for layer in self.encoder.encoder.layer[_FIRST_LAYER:]:
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
        save_file({name: part.detach().half().cpu() for name, part in self.trained().items()}, path)

    @classmethod
    def untrained(cls, base: Path) -> "SentenceScorer":
        """A scorer on the encoder in the folder ``base``, ready to be trained."""
        with quiet_progress():
            encoder = BertModel.from_pretrained(base, use_safetensors=True, local_files_only=True)
        return cls(encoder)

    @classmethod
    def load(cls, base: Path, trained: Mapping[str, Tensor]) -> "SentenceScorer":
        """A scorer for inference: ``trained`` parameters, the updates merged into the encoder.

        Raises:
            ConfigError: other parameters than this architecture has.
        """
        scorer = cls.untrained(base)
        named = scorer.trained()
        shapes = {name: part.shape for name, part in named.items()}
        if {name: part.shape for name, part in trained.items()} != shapes:
            raise ConfigError("the weights are not those of a sentence scorer on this encoder")
        with torch.no_grad():
            for name, part in named.items():
                part.copy_(trained[name])
        for parent, name, linear in list(scorer._linears()):
            if isinstance(linear, _LowRank):
                setattr(parent, name, linear.merged())
        return scorer.requires_grad_(False).eval()
