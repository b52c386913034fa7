"""An optional low-rank update (LoRA; Hu et al., 2021) of the decoder, beside the projector.

It is merged in the end into a copy of the decoder, which any server loads as it loads the first.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from ragpack.errors import ConfigError
from ragpack.models import checkpoint_folder, resolve, tokenizer_digest, weights_digest
from ragpack.models.checkpoint import quiet_progress
from ragpack.models.low_rank import LowRank, add_low_rank, merge_low_rank
from ragpack.soft.checkpoint import SoftConfig

__all__ = ["add_updates", "merge"]

_LINEARS = ("q_proj", "v_proj")
"""Names of the attention's linear layers that get an update, as in LoRA's own experiments."""


def add_updates(model: PreTrainedModel, rank: int) -> dict[str, LowRank]:
    """Freeze a decoder and put an update of ``rank`` on its query and value projections.

    Returns:
        The updates by their paths in the decoder.

    Raises:
        ConfigError: the decoder has no such projections.
    """
    paths = [
        path
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and path.endswith(_LINEARS)
    ]
    if not paths:
        raise ConfigError(f"{type(model).__name__} has no {' or '.join(_LINEARS)} to update")
    return add_low_rank(model, paths, rank)


def merge(
    model: PreTrainedModel, updates: Mapping[str, LowRank], config: SoftConfig, folder: Path
) -> SoftConfig:
    """Add the updates to the decoder's weights, and write it with its tokenizer into ``folder``.

    Returns:
        ``config``, which was for the decoder as it was, for the one in ``folder``.
    """
    merge_low_rank(model, updates)
    with quiet_progress():
        model.save_pretrained(folder)
    source = checkpoint_folder(resolve(config.decoder))
    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(folder)
    return replace(
        config,
        decoder=str(folder),
        decoder_weights=weights_digest(folder),
        decoder_tokenizer=tokenizer_digest(folder),
    )
