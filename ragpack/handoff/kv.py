"""Stored KV into a decoder: where decoding starts when the context is already computed."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from ragpack.errors import HandoffError
from ragpack.handoff.decoding import ModelInputs
from ragpack.kv.compose import Composed, Row, compose_parallel, compose_sequential
from ragpack.kv.encode import KVEncoder
from ragpack.kv.recipe import PlacedKV, Recipe
from ragpack.kv.recompute import choose
from ragpack.models.prompt import SEPARATOR
from ragpack.models.prompt_tokens import PromptTokenizer
from ragpack.report import PackedContext
from ragpack.types import KVArtifact, Segment

__all__ = ["KVHandoff"]


class KVHandoff:
    """Composes packed KV for one decoder.

    Args:
        model: the decoder.
        prompts: its prompts; the prefix must be the one that the KV was made behind.
        weights: digest of its weights.
    """

    def __init__(self, model: PreTrainedModel, prompts: PromptTokenizer, weights: str) -> None:
        self._model, self._prompts, self._weights = model, prompts, weights
        self._lock = threading.Lock()
        self._encoders: dict[tuple[tuple[int, ...], tuple[int, ...]], KVEncoder] = {}

    def inputs(self, context: PackedContext, query: str) -> ModelInputs:
        """The query, the tokens to encode again, and a cache that holds everything else.

        A passage that comes without KV (its compression failed) is encoded here.

        Raises:
            HandoffError: the KV was made for another decoder or another prompt, or the prompt is
                longer than the window.
        """
        recipe = self._recipe(context)
        encoder = self._encoder_for(recipe)
        passages = [self._artifact(encoder, segment) for segment in context.segments]
        query_ids = self._prompts.after_separator(query)
        composed = _compose(encoder, recipe, passages, query_ids)
        return ModelInputs(
            input_ids=composed.input_ids,
            position_ids=composed.position_ids,
            cache=composed.cache,
            prompt_tokens=len(composed.prompt_ids[0]),
        )

    def _recipe(self, context: PackedContext) -> Recipe:
        recipes = {s.artifact.recipe for s in context.segments if isinstance(s.artifact, PlacedKV)}
        if len(recipes) != 1:
            raise HandoffError(f"a context needs the KV of one method, this one has {len(recipes)}")
        recipe = recipes.pop()
        if recipe.weights != self._weights:
            raise HandoffError("the KV was made by another model than this decoder")
        if recipe.prefix_ids != tuple(self._prompts.prompt("x", "").prefix):
            raise HandoffError(
                "the KV was made behind another prompt: give method and decoder one instruction"
            )
        return recipe

    def _encoder_for(self, recipe: Recipe) -> KVEncoder:
        made = recipe.prefix_ids, recipe.anchor_ids
        with self._lock:
            if made not in self._encoders:
                prefix, anchor = made
                self._encoders[made] = KVEncoder(self._model, prefix, anchor_ids=anchor)
            return self._encoders[made]

    def _artifact(self, encoder: KVEncoder, segment: Segment) -> KVArtifact:
        if isinstance(segment.artifact, KVArtifact):
            return segment.artifact
        return encoder.encode([self._prompts.encode_before_text(segment.text + SEPARATOR)])[0]


@torch.inference_mode()
def _compose(
    encoder: KVEncoder, recipe: Recipe, passages: list[KVArtifact], query_ids: list[int]
) -> Composed:
    if recipe.parallel:
        row = Row(passages, query_ids)
        return compose_parallel(encoder, [row], temperature=recipe.temperature, scale=recipe.scale)
    row = Row(passages, query_ids)
    composed = compose_sequential(encoder, [row])
    if recipe.recompute == 0:
        return composed
    again = choose(recipe.selection, recipe.recompute, encoder, row, composed)
    return compose_sequential(encoder, [replace(row, recompute=again)], composed)
