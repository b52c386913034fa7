"""Runs the APE authors' package on one job of ``compare_ape.py``, under transformers 4.44."""

import json
import math
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


def flash_attn_func(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    causal: bool,
    softmax_scale: float | None = None,
    softcap: float | None = None,
    return_attn_probs: bool = False,
) -> Any:
    """What flash-attn computes, on a CPU: tensors are [rows, tokens, heads, head_dim].

    A causal mask is aligned to the last key, as flash-attn's is.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if softmax_scale is None else softmax_scale
    logits = torch.einsum("bqhd,bkhd->bhqk", query, key) * scale
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    if causal:
        ones = torch.ones(logits.shape[-2:], dtype=torch.bool)
        hidden = ones.triu(logits.shape[-1] - logits.shape[-2] + 1)
        logits = logits.masked_fill(hidden, -math.inf)
    out = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), value)
    return (out, logits.logsumexp(-1), None) if return_attn_probs else out


def main(folder: Path) -> None:
    """Read the job in ``folder``, and leave their logits there."""
    import transformers
    from safetensors.torch import load_file, save_file

    job = json.loads((folder / "job.json").read_text())
    settings = job["config"]
    config = getattr(transformers, settings.pop("class"))(**settings)
    model: Any = transformers.AutoModelForCausalLM
    model = model.from_config(config, attn_implementation="eager")
    model.load_state_dict(load_file(folder / "weights"))
    stand_in = ModuleType("flash_attn")  # after the model: transformers looks for the real one
    stand_in.flash_attn_func = flash_attn_func  # type: ignore[attr-defined]
    sys.modules["flash_attn"] = stand_in
    with torch.inference_mode():
        logits = {f"{t} {s}": _logits(model.eval(), job, t, s) for t, s in job["settings"]}
    save_file(logits, folder / "logits")


def _logits(model: Any, job: dict[str, Any], temperature: float, scale: float) -> Tensor:
    """Logits [query, vocabulary] after their three passes: prefix, contexts, query."""
    ape = import_module("ape")
    family, prefix, contexts = job["family"], job["prefix"], job["contexts"]
    start, width = len(prefix), max(map(len, contexts))
    ape.enable_attention_prefill_prefix(family, model)
    cache = model(torch.tensor([prefix]), use_cache=True).past_key_values

    rows = torch.tensor([row + [0] * (width - len(row)) for row in contexts])
    real = torch.tensor([[i < len(row) for i in range(width)] for row in contexts]).flatten()
    copies = len(rows), 1, 1, 1
    repeated = [(k.repeat(copies), v.repeat(copies), p) for k, v, p in cache]
    ape.enable_attention_prefill_context(family, model)
    cache = model(rows, past_key_values=repeated, use_cache=True).past_key_values

    def joined(part: Tensor) -> Tensor:
        """[1, heads, prefix + all real context tokens, head_dim] of one layer's rows."""
        flat = part[:, :, start:].transpose(1, 2).flatten(0, 1)[real]
        return torch.cat([part[:1, :, :start], flat[None].transpose(1, 2)], dim=2)

    packed = []
    for key, value, at in cache:
        places = torch.cat(
            [at[:, :start], at[:, start:].repeat(len(rows), 1).flatten()[real][None]], 1
        )
        packed.append((joined(key), joined(value), places, len(rows)))
    ape.enable_attention_prefill_query(family, model, temperature, scale)
    logits: Tensor = model(
        torch.tensor([job["query"]]), past_key_values=packed, use_cache=True
    ).logits
    return logits[0].float().contiguous()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
