"""APE against its authors' own package, on the same random weights and tokens.

Their package (Infini-AI-Lab/APE) works on transformers 4.44 only and has no licence, so it is not
part of this project: give a checkout of it and a folder with the old libraries, made by

    git clone https://github.com/Infini-AI-Lab/APE
    pip install --target old --no-deps \
        transformers==4.44.2 tokenizers==0.19.1 huggingface_hub==0.24.7

Each family is compared as they released it and, where that differs from their paper, with its two
attention groups named the right way round (the released Mistral and Gemma files swap them).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from ragpack.kv.compose import Row, compose_parallel
from ragpack.kv.encode import KVEncoder
from ragpack.kv.forward import first_logits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from common import parser, report

_SHAPE = {
    "vocab_size": 199,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}
# Their package knows no sliding window, and scales Gemma's logits by the head's width.
_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "gemma": ("Gemma2Config", {"sliding_window": 4096, "query_pre_attn_scalar": 16}),
}
_SETTINGS = [(1.0, 1.0), (0.9, 0.9), (0.6, 1.0), (0.9, 0.8)]
_LENGTHS = (13, 9, 17, 11)
_SWAPPED = re.compile(
    r"^(\s+(?:key|value)_states)_(context|other) = (?=torch\.cat|key_|value_)", re.M
)


def main() -> None:
    """Compare every family at every setting."""
    options = parser(__doc__)
    options.add_argument("--package", type=Path, required=True, help="checkout of the authors'")
    options.add_argument("--old", type=Path, required=True, help="folder of the old libraries")
    args = options.parse_args()
    rows = []
    for family in _FAMILIES:
        model, tokens = _model(family, args.seed), _tokens(args.seed)
        ours = {key: _ours(model, tokens, *key) for key in _SETTINGS}
        released = _theirs(family, model, tokens, args.package, args.old)
        righted = _theirs(family, model, tokens, args.package, args.old, right=True)
        for key in _SETTINGS:
            row = {"family": family, "temperature": key[0], "scale": key[1]}
            row["released"] = _difference(ours[key], released[key])
            row["groups_named_rightly"] = _difference(ours[key], righted[key])
            rows.append(row)
    report({"largest_difference_of_logits": rows, "seed": args.seed})


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> dict[str, float]:
    agree = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    return {
        "absolute": float(f"{(ours - theirs).abs().max():.3g}"),
        "of_largest_logit": float(f"{(ours - theirs).abs().max() / ours.abs().max():.3g}"),
        "same_first_choice": round(float(agree), 3),
    }


def _model(family: str, seed: int) -> PreTrainedModel:
    name, extra = _FAMILIES[family]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**_SHAPE, **extra)
    factory: Any = AutoModelForCausalLM
    model: PreTrainedModel = factory.from_config(config).float().eval()
    return model


def _tokens(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> list[int]:
        drawn: list[int] = torch.randint(3, 199, (count,), generator=generator).tolist()
        return drawn

    return {"prefix": draw(8), "contexts": [draw(n) for n in _LENGTHS], "query": draw(7)}


@torch.inference_mode()
def _ours(
    model: PreTrainedModel, tokens: dict[str, Any], temperature: float, scale: float
) -> torch.Tensor:
    """Logits [query, vocabulary]."""
    encoder = KVEncoder(model, tokens["prefix"])
    row = Row(encoder.encode(tokens["contexts"]), tokens["query"])
    composed = compose_parallel(encoder, [row], temperature=temperature, scale=scale)
    return first_logits(model, composed, keep=len(tokens["query"]))[0]


def _theirs(
    family: str,
    model: PreTrainedModel,
    tokens: dict[str, Any],
    package: Path,
    old: Path,
    *,
    right: bool = False,
) -> dict[tuple[float, float], torch.Tensor]:
    """The same by their code, run under the old libraries in a process of its own."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        shutil.copytree(package / "ape", folder / "ape")
        if right and family != "llama":
            source = folder / "ape" / f"ape_{family}.py"
            source.write_text(_SWAPPED.sub(_exchanged, source.read_text()))
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "weights")
        config = {"class": type(model.config).__name__, **_SHAPE, **_FAMILIES[family][1]}
        job = {"family": family, "config": config, "settings": _SETTINGS, **tokens}
        (folder / "job.json").write_text(json.dumps(job))
        side = Path(__file__).with_name("run_ape.py")
        subprocess.run(
            [sys.executable, str(side), str(folder)],
            env={**os.environ, "PYTHONPATH": f"{old.resolve()}:{folder}"},
            check=True,
        )
        found = load_file(folder / "logits")
    return {key: found[f"{key[0]} {key[1]}"] for key in _SETTINGS}


def _exchanged(match: re.Match[str]) -> str:
    other = "other" if match[2] == "context" else "context"
    return f"{match[1]}_{other} = "


if __name__ == "__main__":
    main()
