"""What REFRAG loads: the checkpoint, and the decoder's and encoder's sides of it, checked."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path

from transformers import AutoTokenizer

from ragpack.digest import digest_fields
from ragpack.errors import ConfigError
from ragpack.models import (
    checkpoint_folder,
    load_causal_lm,
    load_encoder,
    resolve,
    tokenizer_digest,
    weights_digest,
)
from ragpack.models.embeddings import input_embeddings
from ragpack.models.prompt import INSTRUCTION
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.soft.checkpoint import SHIPPED, SoftCheckpoint, SoftConfig, load_checkpoint
from ragpack.soft.encode import ChunkEncoder
from ragpack.soft.reader import SoftReader

__all__ = ["Parts"]


class Parts:
    """One checkpoint with the models that it was made for; everything loads on first use.

    Args:
        checkpoint: its folder; the shipped one if None.
        decoder: the decoder's name or path; the checkpoint's own name if None.
        device: where encoder and decoder run; a GPU where there is one.
    """

    def __init__(
        self, checkpoint: str | Path | None, decoder: str | None, device: str | None
    ) -> None:
        self._folder = SHIPPED if checkpoint is None else Path(checkpoint)
        self._decoder = decoder
        self._device = device

    @cached_property
    def checkpoint(self) -> SoftCheckpoint:
        """Projector, policy and rarities."""
        return load_checkpoint(self._folder)[0]

    @cached_property
    def digest(self) -> str:
        """Digest of the checkpoint."""
        return load_checkpoint(self._folder)[1]

    @cached_property
    def vectors_digest(self) -> str:
        """Digest of what chunk vectors depend on; the projector is not among it."""
        made, rarity = self.checkpoint.config, self.checkpoint.rarity.numpy()
        return digest_fields("chunk vectors", made.encoder_digest, rarity.tobytes())

    @cached_property
    def decoder_folder(self) -> Path:
        """The decoder's files.

        Raises:
            ConfigError: it is not the decoder that the checkpoint was made for.
        """
        made = self.checkpoint.config
        name = self._decoder or made.decoder
        folder = checkpoint_folder(resolve(name))
        width = input_embeddings(folder).shape[1]
        if width != made.decoder_width:
            raise ConfigError(
                f"the projector in {self._folder} makes soft tokens of width {made.decoder_width} "
                f"for {made.decoder}, and {name} has a hidden size of {width}: train one for it"
            )
        if weights_digest(folder) != made.decoder_weights:
            raise ConfigError(
                f"the projector in {self._folder} was trained for {made.decoder}, and {name} has "
                "other weights: train one for it"
            )
        return folder

    @cached_property
    def tokenizer_digest(self) -> str:
        """Digest of the decoder's tokenizer as it is now."""
        return tokenizer_digest(self.decoder_folder)

    @cached_property
    def prompts(self) -> PromptTokenizer:
        """The decoder's tokenizer."""
        return _prompts(self.decoder_folder)

    @cached_property
    def encoder(self) -> ChunkEncoder:
        """Makes chunk vectors.

        Raises:
            ConfigError: the encoder is not the one that the checkpoint was made for.
        """
        made: SoftConfig = self.checkpoint.config
        text = load_encoder(made.encoder, self._device)
        if text.fingerprint.digest != made.encoder_digest:
            raise ConfigError(
                f"the projector in {self._folder} was trained with another {made.encoder} than the "
                "one on this machine"
            )
        table = input_embeddings(self.decoder_folder)
        return ChunkEncoder(text, table, self.checkpoint.rarity)

    @cached_property
    def reader(self) -> SoftReader:
        """The decoder itself, for policies that need its losses."""
        return SoftReader(load_causal_lm(str(self.decoder_folder), self._device)[0], self.prompts)


@lru_cache(maxsize=4)
def _prompts(folder: Path) -> PromptTokenizer:
    """Loading a tokenizer takes half a second, and methods of one decoder can share it."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return PromptTokenizer(tokenizer, INSTRUCTION)
