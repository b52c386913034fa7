"""ARC-Encoder: a passage as one soft token for every eight tokens, for a decoder that stays plain.

Source: Pilchen, Grave, Perez, "ARC-Encoder: learning compressed text representations for large
language models", 2025 (arXiv 2510.20535); layout of the checkpoints as in the authors' repository
(kyutai-labs/ARC-Encoder). One encoder serves several decoders, each with a bridge of its own, so
what is stored are the encoder's vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from ragpack.errors import ConfigError
from ragpack.kv.tensors import to_array, to_tensor
from ragpack.models import checkpoint_folder, resolve, tokenizer_digest, weights_digest
from ragpack.models.device import best_device
from ragpack.protocols import Compressor
from ragpack.soft.placed import PlacedChunks, SoftRecipe
from ragpack.soft.pooling_encoder import EncoderShape, PoolingEncoder
from ragpack.soft.served import ServedDecoder, require_finite
from ragpack.soft.weights import fill, read
from ragpack.text import model_text
from ragpack.types import Artifact, EmbedsArtifact, Fingerprint, Kind, Passage

__all__ = ["ArcEncoder"]

_EMBEDDER, _BRIDGE = "embedder", "bridge_module"
_RELEASED = {
    "embedder_params": {
        "n_truncated_layers": 2,
        "compress_rates": [-8],
        "pooling_module": {"pool_type": "mean_pooled_queries", "where": "before"},
    }
}
"""``params.json`` of the released encoders: their files on the hub come without it."""


class ArcEncoder(Compressor):
    """Vectors of the encoder, projected by the decoder's bridge; one more row ends a passage.

    Args:
        checkpoint: a name on the hub, or a folder: the released file with the prefixes
            ``embedder.`` and ``bridge_module.``, or a training's ``checkpoint_NNNNNN``.
        decoder: name or folder of the plain decoder that it was trained for.
        backbone: name or folder of the model that the encoder was made from; its tokenizer and
            ``config.json`` are read, its weights are not.
        number: which decoder, of a checkpoint for several.
        device: where the encoder runs; a GPU where there is one.
    """

    name: ClassVar[str] = "arc-encoder"
    kind: ClassVar[Kind] = "embeds"
    query_aware: ClassVar[bool] = False

    def __init__(
        self,
        checkpoint: str = "kyutai/ARC8_Encoder_Llama",
        *,
        decoder: str = "meta-llama/Llama-3.1-8B",
        backbone: str = "meta-llama/Llama-3.2-3B",
        number: int = 0,
        device: str | None = None,
    ) -> None:
        self.checkpoint, self.backbone, self.number = checkpoint, backbone, number
        self.device = device
        self._served = ServedDecoder(decoder)

    @cached_property
    def encoder(self) -> PoolingEncoder:
        """The published encoder.

        Raises:
            ConfigError: the checkpoint is of another sort, or has only pickle weights.
        """
        tensors = _part(self._folder, _EMBEDDER)
        shape = _shape(_params(self._folder), _backbone(self._backbone_folder), tensors)
        decoders = sum(name.startswith("cont_tok.") for name in tensors)
        with torch.device("meta"):  # billions of numbers need not be drawn first
            encoder = PoolingEncoder(shape, decoders)
        encoder = encoder.to(tensors["tok_embeddings.weight"].dtype).to_empty(device="cpu")
        fill(encoder, tensors, f"{self._folder}/{_EMBEDDER}")
        return encoder.requires_grad_(False).eval().to(self.device or best_device())

    @cached_property
    def bridge(self) -> nn.Module:
        """The decoder's own two layers, without a nonlinearity.

        Raises:
            ConfigError: the checkpoint has another bridge, or none for this decoder.
        """
        tensors = _part(self._folder, _BRIDGE)
        if "layer1.weight" not in tensors:
            tensors = _part(self._folder, _BRIDGE, f"{self.number}.")
        if not tensors:
            raise ConfigError(f"{self.checkpoint} has no bridge for a decoder {self.number}")
        inner, width = tensors["layer1.weight"].shape
        bridge = nn.Sequential()
        bridge.add_module("layer1", nn.Linear(width, inner, bias=False))
        bridge.add_module("layer2", nn.Linear(inner, len(tensors["layer2.weight"]), bias=False))
        fill(bridge, tensors, f"{self._folder}/{_BRIDGE}")
        return bridge.requires_grad_(False).eval()

    @cached_property
    def recipe(self) -> SoftRecipe:
        """Whose soft tokens these are.

        Raises:
            ConfigError: the decoder's width is not the bridge's.
        """
        width = len(self.bridge.state_dict()["layer2.weight"])
        return self._served.recipe(weights_digest(self._folder), width, self.checkpoint)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Encoder and backbone; the decoder changes nothing that is stored."""
        return Fingerprint(
            method=self.name,
            model=resolve(self.backbone).name,
            weights=weights_digest(self._folder),
            tokenizer=tokenizer_digest(self._backbone_folder),
            dtype="float32",
            params={"factor": _params(self._folder)["compress_rates"][0]},
        )

    @torch.inference_mode()
    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """The encoder's vectors [m, d] of each passage; an empty one has none [0, d]."""
        return [EmbedsArtifact(self._vectors(model_text(each.full_text))) for each in passages]

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """The soft tokens of each passage that fits, and behind them the separator as tokens.

        Raises:
            CompressionError: a stored vector is not finite.
        """
        vectors = [cast(EmbedsArtifact, artifact).vectors for artifact in artifacts]
        counts = [len(each) + bool(len(each)) for each in vectors]  # one row ends a passage
        fits = self._served.fits(counts, budget)
        return [
            self._placed(each[: len(each) * fit]) for each, fit in zip(vectors, fits, strict=True)
        ]

    @torch.inference_mode()
    def _placed(self, vectors: NDArray[np.float32]) -> PlacedChunks:
        """A passage's soft tokens, the last of which says that they end."""
        require_finite(vectors)
        rows = to_tensor(vectors, "f32")
        if len(rows):
            rows = torch.cat([rows, self._end])
        soft: Tensor = self.bridge(rows)
        return self._served.placed(soft.numpy(), self.recipe)

    @cached_property
    def _end(self) -> Tensor:
        """The vector [1, d] behind a passage's, one for each decoder."""
        (end,) = _part(self._folder, _EMBEDDER, f"cont_tok.{self.number}.").values()
        return end.float()

    def _vectors(self, text: str) -> NDArray[np.float32]:
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            return to_array(torch.zeros(0, self.encoder.shape.width), torch.float32)
        device = self.encoder.tok_embeddings.weight.device
        return to_array(self.encoder(torch.tensor(ids, device=device)), torch.float32)

    @cached_property
    def _folder(self) -> Path:
        local = Path(self.checkpoint).expanduser()
        return local if local.is_dir() else resolve(self.checkpoint).path

    @cached_property
    def _backbone_folder(self) -> Path:
        return checkpoint_folder(resolve(self.backbone))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return Tokenizer.from_file(str(self._backbone_folder / "tokenizer.json"))


def _part(folder: Path, name: str, inside: str = "") -> dict[str, Tensor]:
    """A part's tensors below ``inside``, from its own file or from the released one."""
    own = folder / name / "consolidated.safetensors"
    if own.parent.is_dir():
        return read(own, inside)
    files = sorted(folder.glob("*.safetensors")) or [folder / "pytorch_model.safetensors"]
    prefix = f"{name}.{inside}"
    return {key: part for file in files for key, part in read(file, prefix).items()}


def _params(folder: Path) -> Mapping[str, Any]:
    path = folder / "params.json"
    params = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else _RELEASED
    made: dict[str, Any] = params["embedder_params"]
    released = _RELEASED["embedder_params"]
    if made.get("pooling_module") != released["pooling_module"] or made.get("causal_embedder"):
        raise ConfigError(f"{path}: only a bidirectional encoder with pooled queries is read")
    if len(made["compress_rates"]) != 1 or made["compress_rates"][0] >= -1:
        raise ConfigError(f"{path}: compress_rates must be one pooling factor, such as [-8]")
    return made


def _backbone(folder: Path) -> Mapping[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope: dict[str, Any] = config.get("rope_parameters", {})
    return config | rope


def _shape(
    params: Mapping[str, Any], backbone: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> EncoderShape:
    """The backbone's shape without the layers that the encoder leaves out."""
    vocabulary, width = tensors["tok_embeddings.weight"].shape
    heads = backbone["num_attention_heads"]
    return EncoderShape(
        vocabulary=vocabulary,
        width=width,
        inner=backbone["intermediate_size"],
        layers=backbone["num_hidden_layers"] - params["n_truncated_layers"],
        heads=heads,
        kv_heads=backbone["num_key_value_heads"],
        head_width=backbone.get("head_dim") or width // heads,
        epsilon=backbone["rms_norm_eps"],
        theta=backbone["rope_theta"],
        factor=-params["compress_rates"][0],
    )
