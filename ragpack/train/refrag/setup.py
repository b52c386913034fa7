"""The models that a training of REFRAG needs, loaded once and frozen."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ragpack.models import checkpoint_folder, load_causal_lm, load_encoder, resolve
from ragpack.models.embeddings import input_embeddings
from ragpack.models.low_rank import LowRank
from ragpack.models.prompt import INSTRUCTION
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.soft.checkpoint import SoftCheckpoint
from ragpack.soft.chunks import cut
from ragpack.soft.encode import ChunkEncoder
from ragpack.soft.reader import SoftReader
from ragpack.text import model_text
from ragpack.train.refrag.lora import add_updates, merge
from ragpack.train.refrag.samples import Sample

__all__ = ["Setup", "set_up"]


@dataclass(frozen=True, slots=True)
class Setup:
    """A checkpoint with its frozen decoder, the updates of it that are trained, and its encoder."""

    checkpoint: SoftCheckpoint
    prompts: PromptTokenizer
    reader: SoftReader
    encoder: ChunkEncoder
    updates: Mapping[str, LowRank]

    def merge(self, folder: Path) -> None:
        """Add the updates to the decoder, write it, and make the checkpoint one for it."""
        made, model = self.checkpoint, self.reader.model
        made.config = merge(model, self.updates, made.config, folder)
        self.reader.begin()

    def vectors(self, samples: Sequence[Sample]) -> Tensor:
        """Chunk vectors [chunks of all samples, d]."""
        vectors = torch.from_numpy(self.encoder.encode([sample.chunks for sample in samples]))
        return vectors.to(self.reader.model.device)

    def query(self, question: str) -> Tensor:
        """The vector [d] of a question."""
        text, chunk = model_text(question), self.checkpoint.config.chunk
        vector = self.encoder.encode_one(cut(text, self.prompts.tokens_before_text(text), chunk))
        return torch.from_numpy(vector).to(self.reader.model.device)

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


def set_up(checkpoint: SoftCheckpoint, device: str | None, rank: int = 0) -> Setup:
    """Everything for the checkpoint's own encoder and decoder.

    Args:
        checkpoint: is moved to the decoder's device.
        device: where models run; a GPU where there is one.
        rank: of the updates of a copy of the decoder; 0 for none.
    """
    made = checkpoint.config
    model, tokenizer = load_causal_lm(made.decoder, device, torch.float32)
    model = (deepcopy(model) if rank else model).requires_grad_(False)
    updates = add_updates(model, rank) if rank else {}
    prompts = PromptTokenizer(tokenizer, INSTRUCTION)
    table = input_embeddings(checkpoint_folder(resolve(made.decoder)))
    return Setup(
        checkpoint.to(model.device),
        prompts,
        SoftReader(model, prompts),
        ChunkEncoder(load_encoder(made.encoder, device), table, checkpoint.rarity.cpu()),
        updates,
    )
