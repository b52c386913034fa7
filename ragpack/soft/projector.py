"""From the encoder's space into the decoder's: one chunk vector becomes one soft token."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

__all__ = ["Projector"]


class Projector(nn.Module):
    """A two-layer perceptron beside a linear shortcut.

    REFRAG (Lin et al., 2025, section 2) has the perceptron alone. The shortcut begins as the
    identity on the part of the chunk vector that is in the decoder's space already (see
    :class:`ragpack.soft.encode.ChunkEncoder`), the perceptron at zero beside it.

    Args:
        chunk_width: width d of a chunk vector; its last h numbers are the bag of embeddings.
        inner: width between the two layers.
        decoder_width: hidden size h of the decoder.
    """

    def __init__(self, chunk_width: int, inner: int, decoder_width: int) -> None:
        super().__init__()
        self.shortcut = nn.Linear(chunk_width, decoder_width)
        self.down = nn.Linear(chunk_width, inner)
        self.up = nn.Linear(inner, decoder_width, bias=False)
        nn.init.zeros_(self.up.weight)

    def start(self, length: float) -> None:
        """Begin training from bags of embeddings, each brought to ``length``."""
        width = self.shortcut.out_features
        nn.init.zeros_(self.shortcut.bias)
        nn.init.zeros_(self.shortcut.weight)
        with torch.no_grad():
            self.shortcut.weight[:, -width:] = length * torch.eye(width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Soft tokens [..., h] of chunk vectors [..., d]."""
        rows: Tensor = self.shortcut(vectors) + self.up(gelu(self.down(vectors)))
        return rows
