"""A cross-encoder that reads a query and a passage together and scores every sentence.

``[CLS] query [SEP] title sentence sentence … [SEP]`` goes through a BERT encoder once. Each token
gets a probability to be kept, and a sentence the mean of its tokens', as in Provence (Chirkova et
al., 2025). The shipped weights are low-rank updates (LoRA) of the encoder's upper layers and a
small head.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import BertModel

from ragpack.errors import ConfigError
from ragpack.models.checkpoint import quiet_progress
from ragpack.models.low_rank import add_low_rank, merge_low_rank, upper_linears

__all__ = ["SentenceScorer"]

_FIRST_LAYER, _RANK = 3, 16


class SentenceScorer(nn.Module):
    """Encoder and head: a keep-logit for every token.

    The head adds a linear read-out of the token to its cosine with the mean of the query's tokens,
    weighted by dimension: what the encoder already knows of similarity is where training starts.
    """

    def __init__(self, encoder: BertModel) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.keep = nn.Linear(width, 1)
        self.match = nn.Parameter(torch.full((width,), 5.0))
        nn.init.zeros_(self.keep.weight)
        nn.init.constant_(self.keep.bias, -3.0)
        self._updates = add_low_rank(encoder, upper_linears(encoder, _FIRST_LAYER), _RANK)

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
        merge_low_rank(scorer.encoder, scorer._updates)
        return scorer.requires_grad_(False).eval()
