"""The projector's loss: what the decoder says behind soft tokens against what it should say."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from ragpack.soft.encode import ChunkEncoder
from ragpack.soft.projector import Projector
from ragpack.soft.reader import SoftReader
from ragpack.train.refrag.samples import Sample

__all__ = ["Lessons"]


class Lessons:
    """Losses whose gradients reach the projector alone.

    Args:
        reader: the frozen decoder.
        encoder: makes chunk vectors.
        projector: makes soft tokens of them.
    """

    def __init__(self, reader: SoftReader, encoder: ChunkEncoder, projector: Projector) -> None:
        self._reader = reader
        self._encoder = encoder
        self._projector = projector

    def loss(self, samples: Sequence[Sample], *, distil: float = 0.0) -> Tensor:
        """Mean loss of a target token behind soft tokens.

        Args:
            samples: a batch.
            distil: weight, 0 to 1, of the divergence from what the decoder says behind the tokens
                themselves; the rest is the true token's. A decoder that must not change learns
                nothing, so it can teach (as for xRAG and CompLLM).
        """
        readings = [sample.reading for sample in samples]
        logits = self._reader.logits(readings, self._rows(samples))
        targets = [token for reading in readings for token in reading.target]
        loss = cross_entropy(logits, torch.tensor(targets, device=logits.device))
        if distil:
            with torch.no_grad():
                wanted = self._reader.logits(readings).log_softmax(-1)
            gap = kl_div(logits.log_softmax(-1), wanted, log_target=True, reduction="batchmean")
            loss = (1 - distil) * loss + distil * gap
        return loss

    def _rows(self, samples: Sequence[Sample]) -> list[Tensor]:
        """The soft tokens [chunks, h] of each sample."""
        vectors = torch.from_numpy(self._encoder.encode([sample.chunks for sample in samples]))
        rows = self._projector(vectors.to(self._reader.model.device))
        return list(rows.split([len(sample.chunks.texts) for sample in samples]))
