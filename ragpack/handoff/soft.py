"""Soft tokens into a decoder: the prompt that a packed context makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ragpack.errors import HandoffError
from ragpack.models import tokenizer_digest, weights_digest
from ragpack.models.prompt import SEPARATOR
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.report import PackedContext
from ragpack.soft.compose import SoftPrompt
from ragpack.soft.placed import PlacedChunks, SoftRecipe
from ragpack.types import Segment

__all__ = ["has_soft_tokens", "recipe_of", "soft_prompt"]


def has_soft_tokens(context: PackedContext) -> bool:
    """Whether a passage of the context came as chunks."""
    return any(isinstance(segment.artifact, PlacedChunks) for segment in context.segments)


def recipe_of(folder: Path, width: int) -> SoftRecipe:
    """What soft tokens for the decoder in ``folder`` say of it; no projector is named."""
    return SoftRecipe(
        projector="",
        decoder=folder.name,
        weights=weights_digest(folder),
        tokenizer=tokenizer_digest(folder),
        width=width,
    )


def soft_prompt(
    context: PackedContext, query: str, prompts: PromptTokenizer, decoder: SoftRecipe
) -> SoftPrompt:
    """The whole prompt; a passage that comes without chunks (its compression failed) is text.

    Args:
        context: has soft tokens.
        query: the question.
        prompts: the decoder's prompts.
        decoder: what soft tokens for the decoder would say of it; ``projector`` is not read.

    Raises:
        HandoffError: the soft tokens are of several projectors, or for another decoder.
    """
    _check(context, decoder)
    passages = [_passage(segment, prompts) for segment in context.segments]
    return SoftPrompt.of(
        prompts.prompt("x", query).prefix, passages, prompts.after_separator(query)
    )


def _check(context: PackedContext, decoder: SoftRecipe) -> None:
    made = {s.artifact.recipe for s in context.segments if isinstance(s.artifact, PlacedChunks)}
    if len(made) != 1:
        raise HandoffError(f"a context needs soft tokens of one projector, it has {len(made)}")
    recipe = made.pop()
    if recipe.width != decoder.width:
        raise HandoffError(
            f"the soft tokens have the width {recipe.width}, for {recipe.decoder}; "
            f"{decoder.decoder} has a hidden size of {decoder.width}"
        )
    if (recipe.weights, recipe.tokenizer) != (decoder.weights, decoder.tokenizer):
        raise HandoffError(
            f"the soft tokens were made for {recipe.decoder}, whose weights or tokenizer are not "
            f"those of {decoder.decoder}"
        )


def _passage(segment: Segment, prompts: PromptTokenizer) -> PlacedChunks | Sequence[int]:
    if isinstance(segment.artifact, PlacedChunks):
        return segment.artifact
    return prompts.encode_before_text(segment.text + SEPARATOR)
