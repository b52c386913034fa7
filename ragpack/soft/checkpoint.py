"""A REFRAG checkpoint: projector and policy of one encoder and one decoder.

A folder with ``config.json`` (:class:`SoftConfig`), ``model.safetensors`` (keys ``projector.*``,
``policy.*`` and ``rarity``) and a model card. The published method has no checkpoint format; this
one is ours.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ragpack.digest import canonical_json, digest_fields, digest_file
from ragpack.errors import ConfigError
from ragpack.soft.learned import PolicyNet
from ragpack.soft.placed import SoftRecipe
from ragpack.soft.projector import Projector
from ragpack.soft.weights import fill, read

__all__ = ["SHIPPED", "SoftCheckpoint", "SoftConfig", "load_checkpoint"]

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "refrag"
"""The checkpoint that comes with ragpack."""

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"


@dataclass(frozen=True, slots=True)
class SoftConfig:
    """What a checkpoint was made for: names, digests, widths.

    ``encoder_digest`` is the encoder's fingerprint, ``decoder_weights`` and ``decoder_tokenizer``
    are digests of the decoder's files, ``chunk`` the tokens of a chunk unless a method says
    otherwise.
    """

    encoder: str
    encoder_digest: str
    chunk_width: int
    decoder: str
    decoder_weights: str
    decoder_tokenizer: str
    decoder_width: int
    vocabulary: int
    inner: int
    policy_width: int
    chunk: int


class SoftCheckpoint(nn.Module):
    """Projector, policy and the rarity of every token, with what they were made for."""

    rarity: Tensor

    def __init__(self, config: SoftConfig) -> None:
        super().__init__()
        self.config = config
        self.projector = Projector(config.chunk_width, config.inner, config.decoder_width)
        self.policy = PolicyNet(config.chunk_width, config.policy_width)
        self.register_buffer("rarity", torch.ones(config.vocabulary))

    def save(self, folder: Path) -> None:
        """Write configuration and weights, in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self.config), indent=2)
        (folder / _CONFIG).write_text(f"{text}\n", encoding="utf-8")
        tensors = {name: part.half().contiguous() for name, part in self.state_dict().items()}
        save_file(tensors, folder / _WEIGHTS)

    def recipe(self, digest: str) -> SoftRecipe:
        """Who made the soft tokens, for the packed context; ``digest`` is this checkpoint's."""
        made = self.config
        return SoftRecipe(
            projector=digest,
            decoder=made.decoder,
            weights=made.decoder_weights,
            tokenizer=made.decoder_tokenizer,
            width=made.decoder_width,
        )


@lru_cache(maxsize=4)
def load_checkpoint(folder: Path) -> tuple[SoftCheckpoint, str]:
    """A checkpoint ready to be used, and its digest.

    Raises:
        ConfigError: the folder is no checkpoint, or its weights are not those of its configuration.
    """
    config = _read_config(folder / _CONFIG)
    checkpoint = SoftCheckpoint(config)
    fill(checkpoint, read(folder / _WEIGHTS), str(folder / _WEIGHTS))
    digest = digest_fields(
        "soft checkpoint", canonical_json(asdict(config)), digest_file(folder / _WEIGHTS)
    )
    return checkpoint.requires_grad_(False).eval(), digest


def _read_config(path: Path) -> SoftConfig:
    if not path.is_file():
        raise ConfigError(
            f"no checkpoint of refrag in {path.parent}: make one for your decoder with 'ragpack "
            "train refrag --decoder NAME', and name its folder, checkpoint=FOLDER"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is no readable configuration: {error}") from error
    known = {field.name: field.type for field in fields(SoftConfig)}
    if not isinstance(found, dict) or found.keys() != known.keys():
        raise ConfigError(f"{path} must have exactly the keys {', '.join(known)}")
    for name, value in found.items():
        if type(value).__name__ != known[name]:
            raise ConfigError(f"{path}: {name} must be of type {known[name]}, not {value!r}")
    return SoftConfig(**found)
