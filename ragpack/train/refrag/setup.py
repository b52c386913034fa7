"""The models that a training of REFRAG needs, loaded once and frozen."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragpack.models import checkpoint_folder, load_causal_lm, load_encoder, resolve
from ragpack.models.embeddings import input_embeddings
from ragpack.models.prompt import INSTRUCTION
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.soft.checkpoint import SoftCheckpoint
from ragpack.soft.encode import ChunkEncoder
from ragpack.soft.reader import SoftReader
from ragpack.train.refrag.samples import Sample

__all__ = ["Setup", "set_up"]


@dataclass(frozen=True, slots=True)
class Setup:
    """A checkpoint with its frozen decoder and encoder."""

    checkpoint: SoftCheckpoint
    prompts: PromptTokenizer
    reader: SoftReader
    encoder: ChunkEncoder

    def vectors(self, samples: Sequence[Sample]) -> Tensor:
        """Chunk vectors [chunks of all samples, d]."""
        vectors = torch.from_numpy(self.encoder.encode([sample.chunks for sample in samples]))
        return vectors.to(self.reader.model.device)

    @torch.inference_mode()
    def losses(self, sample: Sample, rows: Tensor, expanded: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Mean loss [len(expanded)] of the sample's target, for each mask of chunks to spell out.

        Args:
            sample: with n chunks.
            rows: its soft tokens [n, h].
            expanded: masks [n].
        """
        readings = [sample.reading(mask) for mask in expanded]
        soft = [rows[torch.from_numpy(~mask)] for mask in expanded]
        logits = self.reader.logits(readings, soft).log_softmax(-1)
        targets = torch.tensor(list(sample.target), device=logits.device)
        told = logits.view(len(expanded), len(targets), -1)
        return -told[:, torch.arange(len(targets)), targets].mean(dim=1)


def set_up(checkpoint: SoftCheckpoint, device: str | None) -> Setup:
    """Everything for the checkpoint's own encoder and decoder."""
    made = checkpoint.config
    model, tokenizer = load_causal_lm(made.decoder, device, torch.float32)
    prompts = PromptTokenizer(tokenizer, INSTRUCTION)
    table = input_embeddings(checkpoint_folder(resolve(made.decoder)))
    return Setup(
        checkpoint.to(model.device),
        prompts,
        SoftReader(model.requires_grad_(False), prompts),
        ChunkEncoder(load_encoder(made.encoder, device), table, checkpoint.rarity.cpu()),
    )
