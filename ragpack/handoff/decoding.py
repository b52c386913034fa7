"""Greedy decoding from any start: a plain prompt, or a cache that was filled beforehand."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

__all__ = ["ModelInputs", "greedy", "log_probabilities"]


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """Where decoding starts; good for one answer, since the cache grows with it.

    Shapes: ``input_ids`` and ``position_ids`` [1, n], the tokens that ``cache`` does not hold yet
    and their places, which need not follow from the cache's length. ``prompt_tokens`` counts the
    whole prompt, with what the cache stands for. ``embeds`` [1, n, hidden] is read in the place of
    the tokens' own embeddings, where soft tokens are among them.
    """

    input_ids: Tensor
    position_ids: Tensor
    cache: Cache
    prompt_tokens: int
    embeds: Tensor | None = None

    @property
    def next_position(self) -> int:
        """Where the first new token goes."""
        return int(self.position_ids[0, -1]) + 1


def greedy(
    model: PreTrainedModel, inputs: ModelInputs, max_new_tokens: int, stop: Collection[int]
) -> Iterator[int]:
    """The likeliest token, again and again, each as soon as it is known.

    Ends before a token of ``stop``, or when the caller asks for no more.
    """
    ids, positions, embeds = inputs.input_ids, inputs.position_ids, inputs.embeds
    for _ in range(max_new_tokens):
        token = int(_logits(model, ids, positions, inputs.cache, 1, embeds).argmax())
        if token in stop:
            return
        yield token
        ids, positions, embeds = ids.new_tensor([[token]]), positions[:, -1:] + 1, None


def log_probabilities(
    model: PreTrainedModel, inputs: ModelInputs, continuation: Sequence[int]
) -> list[float]:
    """Natural logarithm of the probability of each token of ``continuation``, in one forward."""
    if not continuation:
        return []
    targets = inputs.input_ids.new_tensor(continuation)
    steps = torch.arange(1, len(continuation), device=targets.device)
    ids = torch.cat([inputs.input_ids, targets[None, :-1]], dim=1)
    positions = torch.cat([inputs.position_ids, inputs.position_ids[:, -1:] + steps], dim=1)
    embeds = inputs.embeds
    if embeds is not None:
        embeds = torch.cat([embeds, model.get_input_embeddings()(targets[None, :-1])], dim=1)
    logits = _logits(model, ids, positions, inputs.cache, len(continuation), embeds)
    chosen = logits.float().log_softmax(-1).gather(-1, targets[:, None])
    return [float(value) for value in chosen[:, 0]]


# The mode is left before anything is yielded: held open, it would leak into the caller.
@torch.inference_mode()
def _logits(
    model: PreTrainedModel,
    ids: Tensor,
    positions: Tensor,
    cache: Cache,
    keep: int,
    embeds: Tensor | None,
) -> Tensor:
    """Logits [keep, vocabulary] after the last ``keep`` tokens; ``cache`` grows by ``ids``."""
    output = model(
        input_ids=ids if embeds is None else None,
        inputs_embeds=embeds,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    logits: Tensor = output.logits[0]
    return logits
