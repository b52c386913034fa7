"""xRAG: a whole passage as one soft token, the projection of its retriever's own vector.

Source: Cheng et al., "xRAG: Extreme Context Compression for Retrieval-augmented Generation with One
Token", 2024 (arXiv 2405.13792); key names as in ``modeling_xmistral.py`` of the authors'
repository. The published checkpoint is its language model with ``projector.projector.*`` beside it;
the language model was frozen, so the plain one that it was trained on is the decoder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ragpack.digest import digest_fields
from ragpack.errors import ConfigError
from ragpack.kv.tensors import to_tensor
from ragpack.models import checkpoint_folder, resolve
from ragpack.models.last_token import LastTokenEncoder
from ragpack.protocols import Compressor
from ragpack.soft.placed import PlacedChunks, SoftRecipe
from ragpack.soft.served import ServedDecoder, require_finite
from ragpack.soft.weights import fill, read
from ragpack.types import Artifact, EmbedsArtifact, Fingerprint, Kind, Passage

__all__ = ["XRag"]

_PREFIX = "projector."
_PASSAGE_TOKENS = 180
"""Tokens of a passage in the authors' training; longer ones are cut."""


class XRag(Compressor):
    """One row a passage, whatever its length.

    Args:
        checkpoint: the published checkpoint's name or folder.
        decoder: name or folder of the plain language model that it was trained on.
        retriever: name or folder of the embedding model, whose last token's state is the vector.
        device: where the retriever runs; a GPU where there is one.
    """

    name: ClassVar[str] = "xrag"
    kind: ClassVar[Kind] = "embeds"
    query_aware: ClassVar[bool] = False

    def __init__(
        self,
        checkpoint: str = "Hannibal046/xrag-7b",
        *,
        decoder: str = "mistralai/Mistral-7B-Instruct-v0.2",
        retriever: str = "Salesforce/SFR-Embedding-Mistral",
        device: str | None = None,
    ) -> None:
        self.checkpoint, self.retriever, self.device = checkpoint, retriever, device
        self._served = ServedDecoder(decoder)

    @cached_property
    def encoder(self) -> LastTokenEncoder:
        """The retriever; loaded on first use."""
        return LastTokenEncoder(self.retriever, _PASSAGE_TOKENS, self.device)

    @cached_property
    def projector(self) -> nn.Module:
        """The published projector.

        Raises:
            ConfigError: the checkpoint has another projector, or only pickle weights.
        """
        return _load_projector(checkpoint_folder(resolve(self.checkpoint)))

    @cached_property
    def recipe(self) -> SoftRecipe:
        """Whose soft tokens these are.

        Raises:
            ConfigError: the decoder's width is not the projector's.
        """
        made = self.projector.state_dict()
        digest = digest_fields("xrag", *(part.numpy().tobytes() for part in made.values()))
        return self._served.recipe(digest, len(made["2.bias"]), self.checkpoint)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The retriever's; projector and decoder change nothing that is stored."""
        made = self.encoder.fingerprint
        return Fingerprint(
            method=self.name, model=made.model, dtype="float32", params={"encoder": made.digest}
        )

    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """The retriever's vector [1, d] of each passage; an empty one has none [0, d]."""
        vectors = self.encoder.encode([passage.full_text for passage in passages])
        return [
            EmbedsArtifact(vectors[row : row + bool(passage.full_text)])
            for row, passage in enumerate(passages)
        ]

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """The soft token of each passage, and behind it the separator as tokens.

        Raises:
            CompressionError: a stored vector is not finite.
        """
        vectors = [cast(EmbedsArtifact, artifact).vectors for artifact in artifacts]
        fits = self._served.fits([len(each) for each in vectors], budget)
        return [
            self._placed(each[: len(each) * fit]) for each, fit in zip(vectors, fits, strict=True)
        ]

    @torch.inference_mode()
    def _placed(self, vectors: NDArray[np.float32]) -> PlacedChunks:
        require_finite(vectors)
        return self._served.placed(self.projector(to_tensor(vectors, "f32")).numpy(), self.recipe)


def _load_projector(folder: Path) -> nn.Sequential:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("projector_type") != "mlp2x_gelu":
        raise ConfigError(f"{folder}: projector_type is {config.get('projector_type')!r}, no xRAG")
    files = sorted(folder.glob("*.safetensors")) or [folder / "pytorch_model.safetensors"]
    found = {name: part for file in files for name, part in read(file).items()}
    width, hidden = config["retriever_hidden_size"], config["hidden_size"]
    projector = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
    prefix = 2 * _PREFIX
    own = {n.removeprefix(prefix): part for n, part in found.items() if n.startswith(_PREFIX)}
    fill(projector, own, str(folder))
    return projector.requires_grad_(False).eval()
