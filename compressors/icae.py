"""ICAE: a passage as memory slots, written by the decoder itself under a LoRA.

Source: Ge, Hu, Wang, Wang, Chen, Wei, "In-context Autoencoder for Context Compression in a Large
Language Model", 2023 (arXiv 2307.06945); layout and arithmetic of version 2 as in
``code/icae_v2/modeling_icae_multi_span.py`` of the authors' repository (getao/icae, CC0-1.0). The
LoRA writes, the plain decoder reads, so that it can be served as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ragpack.errors import ConfigError
from ragpack.kv.tensors import to_array
from ragpack.models.checkpoint import quiet_progress
from ragpack.models.device import best_device
from ragpack.models.digests import cached_file_digest, tokenizer_digest
from ragpack.protocols import Compressor
from ragpack.soft.placed import PlacedChunks, SoftRecipe
from ragpack.soft.served import ServedDecoder, require_finite
from ragpack.soft.weights import read
from ragpack.text import model_text
from ragpack.types import Artifact, EmbedsArtifact, Fingerprint, Kind, Passage

__all__ = ["Icae"]

_SLOTS = "memory_token_embed.weight"
_PREFIX = "icae.base_model.model.model."
_DOWN, _UP = ".lora_A.default.weight", ".lora_B.default.weight"
_ALPHA = 32
_SPECIAL = 3
"""Vectors behind those of the slots: for the authors' three tasks, fine-tuning's the last."""
_RATE = 4
"""Tokens that a slot stands for in a segment that is full."""


class Icae(Compressor):
    """128 slots for every 512 tokens begun, and one row more behind the last passage.

    Args:
        checkpoint: the published safetensors file.
        decoder: name or folder of the model that it was trained for, which writes and reads.
        device: where slots are written; a GPU where there is one.
    """

    name: ClassVar[str] = "icae"
    kind: ClassVar[Kind] = "embeds"
    query_aware: ClassVar[bool] = False

    def __init__(
        self,
        checkpoint: str | Path = "mistral_7b_ft_icae.safetensors",
        *,
        decoder: str = "mistralai/Mistral-7B-Instruct-v0.2",
        device: str | None = None,
    ) -> None:
        self.checkpoint, self.device = Path(checkpoint).expanduser(), device
        self._served = ServedDecoder(decoder)

    @cached_property
    def writer(self) -> PreTrainedModel:
        """The decoder with the updates in it, apart from the one that reads.

        Raises:
            ConfigError: the checkpoint has unknown keys, is of another width, or is a pickle.
        """
        _ = self.recipe  # refuses another width, and pickle weights
        with quiet_progress():
            model: PreTrainedModel = AutoModel.from_pretrained(
                self._served.folder, use_safetensors=True, local_files_only=True, dtype="auto"
            )
        _add(model, self._tensors, str(self.checkpoint))
        device = self.device or best_device()
        model.requires_grad_(False).to(device)  # type: ignore[arg-type]  # wrapped without "self"
        return model

    @cached_property
    def recipe(self) -> SoftRecipe:
        """Whose soft tokens these are.

        Raises:
            ConfigError: there is no such checkpoint, or the decoder is of another width than the
                slots.
        """
        width = self._memory.shape[1]
        return self._served.recipe(cached_file_digest(self.checkpoint), width, str(self.checkpoint))

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Updates, slots and the model that they are for."""
        return Fingerprint(
            method=self.name,
            model=self.recipe.decoder,
            weights=self.recipe.weights,
            tokenizer=tokenizer_digest(self._served.folder),
            dtype="float32",
            params={"updates": self.recipe.projector},
        )

    @torch.inference_mode()
    def compress(self, passages: Sequence[Passage], query: str | None) -> list[Artifact]:
        """The slots [n, h] of each passage; an empty one has none [0, h]."""
        return [EmbedsArtifact(self._written(model_text(each.full_text))) for each in passages]

    def select(
        self,
        query: str,
        passages: Sequence[Passage],
        artifacts: Sequence[Artifact],
        budget: int | None = None,
    ) -> list[Artifact]:
        """The slots of each passage that fits, behind the last of them what says that they end.

        Raises:
            CompressionError: a stored slot is not finite.
        """
        slots = [cast(EmbedsArtifact, artifact).vectors for artifact in artifacts]
        room = None if budget is None else budget - 1  # for the row that ends them all
        fits = self._served.fits([len(each) for each in slots], room)
        kept = [each[: len(each) * fit] for each, fit in zip(slots, fits, strict=True)]
        last = max((place for place, each in enumerate(kept) if len(each)), default=None)
        if last is not None:
            kept[last] = np.concatenate([kept[last], self._memory[-1:].numpy()])
        return [self._placed(each) for each in kept]

    def _placed(self, rows: NDArray[np.float32]) -> PlacedChunks:
        require_finite(rows)
        return self._served.placed(rows, self.recipe)

    def _written(self, text: str) -> NDArray[np.float32]:
        """Slots of the text's segments, which are as even as can be."""
        slots = self._memory[:-_SPECIAL]
        found = [torch.zeros(0, self._memory.shape[1])]
        ids = torch.tensor(self._tokenizer(text).input_ids if text else [], dtype=torch.long)
        segments = -(-len(ids) // (len(slots) * _RATE))
        for segment in torch.tensor_split(ids, _ends(len(ids), segments)) if segments else ():
            words = self.writer.get_input_embeddings()(segment.to(self.writer.device))
            rows = torch.cat([words, slots.to(words)])
            states = self.writer(inputs_embeds=rows[None]).last_hidden_state[0]
            found.append(states[-len(slots) :].float().cpu())
        return to_array(torch.cat(found), torch.float32)

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        return read(self.checkpoint)

    @cached_property
    def _memory(self) -> Tensor:
        """Vectors [slots + 3, h] that ask for the slots, and those of the tasks.

        Raises:
            ConfigError: the checkpoint has none.
        """
        if _SLOTS not in self._tensors:
            raise ConfigError(f"{self.checkpoint} has no keys {_SLOTS}: no checkpoint of ICAE 2")
        return self._tensors[_SLOTS].float()

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        made: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            self._served.folder, local_files_only=True
        )
        return made


def _ends(tokens: int, segments: int) -> list[int]:
    """Where all segments but the last one end."""
    length = -(-tokens // segments)
    return list(range(length, tokens, length))


def _add(model: PreTrainedModel, tensors: Mapping[str, Tensor], source: str) -> None:
    """Add every update ``scale * B @ A`` to the weight that it belongs to."""
    layers = dict(model.named_modules())
    downs = [name for name in tensors if name.startswith(_PREFIX) and name.endswith(_DOWN)]
    paths = {name: name.removeprefix(_PREFIX).removesuffix(_DOWN) for name in downs}
    known = {_SLOTS, *downs, *(name.replace(_DOWN, _UP) for name in downs)}
    strange = [name for name in tensors if name not in known]
    strange += [name for name, path in paths.items() if path not in layers]
    if strange:
        raise ConfigError(f"{source} has unknown keys {', '.join(strange[:5])}")
    if lacking := sorted(known - tensors.keys()):
        raise ConfigError(f"{source} has no keys {', '.join(lacking[:5])}")
    for name, path in paths.items():
        down, up = tensors[name].float(), tensors[name.replace(_DOWN, _UP)].float()
        weight = cast(Tensor, layers[path].weight)
        with torch.no_grad():
            weight += (_ALPHA / len(down) * (up @ down)).to(weight)
