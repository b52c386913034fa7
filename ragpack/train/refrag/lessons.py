"""The loss: what the decoder says behind soft tokens against what it should say."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from ragpack.train.refrag.samples import Sample
from ragpack.train.refrag.setup import Setup

__all__ = ["Lessons"]


class Lessons:
    """Losses whose gradients reach the projector, and the decoder's updates if it has some.

    Args:
        setup: the models.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def loss(self, samples: Sequence[Sample], *, distil: float = 0.0) -> Tensor:
        """Mean loss of a target token behind soft tokens.

        Args:
            samples: a batch.
            distil: weight, 0 to 1, of the divergence from what the decoder says behind the tokens
                themselves; the rest is the true token's. A decoder that must not change learns
                nothing, so it can teach (as for xRAG and CompLLM).
        """
        if self._setup.updates:
            self._setup.reader.begin()
        readings = [sample.reading(sample.expanded) for sample in samples]
        logits = self._setup.reader.logits(readings, self._rows(samples))
        targets = [token for sample in samples for token in sample.target]
        loss = cross_entropy(logits, torch.tensor(targets, device=logits.device))
        if distil:
            with torch.no_grad():
                taught = self._setup.reader.logits([sample.spelled_out for sample in samples])
                wanted = taught.log_softmax(-1)
            gap = kl_div(logits.log_softmax(-1), wanted, log_target=True, reduction="batchmean")
            loss = (1 - distil) * loss + distil * gap
        return loss

    def _rows(self, samples: Sequence[Sample]) -> list[Tensor]:
        """The soft tokens [n, h] of each sample's chunks that are not spelled out."""
        rows = self._setup.checkpoint.projector(self._setup.vectors(samples))
        own = rows.split([len(sample.chunks.texts) for sample in samples])
        return [
            part[torch.from_numpy(~sample.expanded)]
            for part, sample in zip(own, samples, strict=True)
        ]
