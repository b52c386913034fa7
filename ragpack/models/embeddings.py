"""A decoder's input embeddings, read without loading the rest of it."""

from functools import lru_cache
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from ragpack.errors import UnsupportedModel

__all__ = ["input_embeddings"]

_NAMES = ("embed_tokens.weight", "tok_embeddings.weight", "wte.weight", "embed_in.weight")


@lru_cache(maxsize=2)
def input_embeddings(folder: Path) -> Tensor:
    """The table [vocabulary, hidden] in float32, as the checkpoint has it.

    Models that scale their embeddings in the forward pass (Gemma) are not told apart here.

    Raises:
        UnsupportedModel: the checkpoint names no embedding table that ragpack knows.
    """
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                if name.endswith(_NAMES):
                    table: Tensor = tensors.get_tensor(name).float()
                    return table
    raise UnsupportedModel(f"{folder.name} has no tensor that ends in {' or '.join(_NAMES)}")
