"""ARC-Encoder's network: a bidirectional transformer whose last layer has fewer queries than keys.

Keys and arithmetic are those of ``embed_llm/models/enhanced_transformer.py`` in the authors'
repository (Apache-2.0): Meta's names, rotary pairs side by side, no norm behind the last layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

__all__ = ["EncoderShape", "PoolingEncoder", "pool_sizes"]


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """What the network looks like.

    ``factor`` is the number of tokens that become one vector.
    """

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    epsilon: float
    theta: float
    factor: int


class PoolingEncoder(nn.Module):
    """Vectors of a text, one for every ``factor`` tokens.

    Args:
        shape: of the network.
        decoders: number of decoders that it was trained for; each has two vectors of its own.
    """

    def __init__(self, shape: EncoderShape, decoders: int) -> None:
        super().__init__()
        self.shape = shape
        self.tok_embeddings = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleDict({str(n): _Layer(shape) for n in range(shape.layers)})
        self.rec_tok = nn.ModuleList(nn.Embedding(1, shape.width) for _ in range(decoders))
        self.cont_tok = nn.ModuleList(nn.Embedding(1, shape.width) for _ in range(decoders))

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors [m, d] of the tokens ``ids`` [n], m = ceil(n / factor)."""
        hidden: Tensor = self.tok_embeddings(ids)
        *layers, last = self.layers.values()
        for layer in layers:
            hidden = layer(hidden, hidden)
        groups = torch.split(hidden, pool_sizes(len(ids), self.shape.factor))
        pooled: Tensor = last(torch.stack([group.mean(dim=0) for group in groups]), hidden)
        return pooled


def pool_sizes(tokens: int, factor: int) -> list[int]:
    """Lengths of the groups that become one vector each: as even as can be, ``factor`` at most."""
    groups = -(-tokens // factor)
    return [tokens // groups + (place < tokens % groups) for place in range(groups)]


class _Layer(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.attention = _Attention(shape)
        self.feed_forward = _FeedForward(shape.width, shape.inner)
        self.attention_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.epsilon)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """``queries`` [m, d] after reading ``keys`` [n, d]."""
        read = self.attention(self.attention_norm(queries), self.attention_norm(keys))
        hidden = queries + read
        out: Tensor = hidden + self.feed_forward(self.ffn_norm(hidden))
        return out


class _Attention(nn.Module):
    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.head_width, self.theta = shape.head_width, shape.theta
        queries, keys = (heads * shape.head_width for heads in (shape.heads, shape.kv_heads))
        self.wq = nn.Linear(shape.width, queries, bias=False)
        self.wk = nn.Linear(shape.width, keys, bias=False)
        self.wv = nn.Linear(shape.width, keys, bias=False)
        self.wo = nn.Linear(queries, shape.width, bias=False)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Every query [m, d] reads every key [n, d]; both are numbered from 0."""
        asked, found, held = (
            layer(rows).unflatten(-1, (-1, self.head_width)).transpose(0, 1)
            for layer, rows in ((self.wq, queries), (self.wk, keys), (self.wv, keys))
        )
        read = scaled_dot_product_attention(
            _rotated(asked, self.theta)[None],
            _rotated(found, self.theta)[None],
            held[None],
            enable_gqa=True,
        )
        out: Tensor = self.wo(read[0].transpose(0, 1).flatten(1))
        return out


class _FeedForward(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)
        self.w3 = nn.Linear(width, inner, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Gated layers over [n, d]."""
        out: Tensor = self.w2(silu(self.w1(hidden)) * self.w3(hidden))
        return out


def _rotated(rows: Tensor, theta: float) -> Tensor:
    """``rows`` [heads, n, d] turned by their positions; a pair is two neighbouring numbers."""
    count, width = rows.shape[-2:]
    device = rows.device
    speeds = theta ** (-torch.arange(0, width, 2, device=device).float() / width)
    angles = torch.outer(torch.arange(count, device=device).float(), speeds)
    pairs = torch.view_as_complex(rows.float().reshape(*rows.shape[:-1], -1, 2).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)
    return torch.view_as_real(turned).flatten(-2).to(rows.dtype)
