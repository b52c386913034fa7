"""Where training begins: bags of rare tokens, which a frozen decoder half understands already."""

import math
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ragpack.models import (
    checkpoint_folder,
    load_encoder,
    resolve,
    tokenizer_digest,
    weights_digest,
)
from ragpack.models.embeddings import input_embeddings
from ragpack.models.prompt import INSTRUCTION
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.soft.checkpoint import SoftCheckpoint, SoftConfig

__all__ = ["begin", "rarity", "untrained"]

_INNER, _POLICY = 1024, 128
"""Widths between the projector's layers, and of the policy."""


def begin(encoder: str, decoder: str, texts: Iterable[str], chunk: int) -> SoftCheckpoint:
    """A checkpoint at its start, with rarities counted in ``texts``."""
    made = untrained(encoder, decoder, inner=_INNER, policy_width=_POLICY, chunk=chunk)
    folder = checkpoint_folder(resolve(decoder))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    prompts = PromptTokenizer(tokenizer, INSTRUCTION)
    made.rarity.copy_(rarity(texts, prompts, made.config.vocabulary))
    return made


def untrained(
    encoder: str, decoder: str, *, inner: int, policy_width: int, chunk: int
) -> SoftCheckpoint:
    """A checkpoint for two models, at its start.

    Args:
        encoder: the text encoder's name or path.
        decoder: the decoder's name or path.
        inner: width between the projector's layers.
        policy_width: width of the policy.
        chunk: tokens of a chunk unless a method says otherwise.
    """
    folder = checkpoint_folder(resolve(decoder))
    table, text = input_embeddings(folder), load_encoder(encoder)
    config = SoftConfig(
        encoder=encoder,
        encoder_digest=text.fingerprint.digest,
        chunk_width=text.dim + table.shape[1],
        decoder=decoder,
        decoder_weights=weights_digest(folder),
        decoder_tokenizer=tokenizer_digest(folder),
        decoder_width=table.shape[1],
        vocabulary=len(table),
        inner=inner,
        policy_width=policy_width,
        chunk=chunk,
    )
    made = SoftCheckpoint(config)
    made.projector.start(float(table.norm(dim=1).mean()))
    return made


def rarity(texts: Iterable[str], prompts: PromptTokenizer, vocabulary: int) -> Tensor:
    """How rare each token is [vocabulary]: the logarithm of texts over texts that hold it."""
    held, total = Counter[int](), 0
    for text in texts:
        held.update(set(prompts.encode(text)))
        total += 1
    return torch.tensor([math.log((total + 1) / (held[token] + 1)) for token in range(vocabulary)])
