"""Time to first token: the plain prompt against REFRAG's soft tokens, everything of a hit included.

A hit is: keys, store read, frame checks and decoding, sensing, projection, the prompt's embeddings,
the forward, the first token. The decoder has random weights: what is measured is arithmetic, and
says nothing of quality. Arms take turns in one run; the policy of the arms that spell chunks out is
query-cosine. From the repository's root:

    python benchmarks/refrag_ttft.py --tokens 1024 4096 --runs 3
    python benchmarks/refrag_ttft.py --tokens 16384 --only "k=16 cached" "k=32 cached"
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import parser, report
from kv_ttft import passages_of, timed
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ragpack import Passage
from ragpack.cache import ArtifactCache
from ragpack.codec import encode_frame
from ragpack.compressors.refrag import Refrag
from ragpack.config import DEFAULT_DECODER, DEFAULT_ENCODER
from ragpack.handoff.hf import HFDecoder
from ragpack.models import checkpoint_folder, resolve
from ragpack.registry import open_store
from ragpack.report import PackedContext, PackReport
from ragpack.train.refrag.start import untrained
from ragpack.types import Segment

QUERY = "Who is responsible for it, since when, and what has changed in the last two years?"
PASSAGE_TOKENS = 256
SHAPES: dict[str, dict[str, Any]] = {
    "22M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6},
    "llama-3.1-8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
}


def random_decoder(folder: Path, shape: str) -> None:
    """A decoder of random weights with the default decoder's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder(resolve(DEFAULT_DECODER)))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_attention_heads=SHAPES[shape]["hidden_size"] // 64,
        num_key_value_heads=SHAPES[shape]["hidden_size"] // 64,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        **SHAPES[shape],
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


class Arm:
    """One setting of the method over one store, filled."""

    def __init__(self, method: Refrag, url: str, decoder: HFDecoder) -> None:
        self.method, self.decoder = method, decoder
        self.cache = ArtifactCache(method, open_store(url), namespace="bench-refrag")

    def fill(self, passages: list[Passage]) -> int:
        """Store every passage; returns the bytes of one stored passage."""
        artifact = self.cache.fetch(passages, QUERY)[0].artifact
        self.cache.flush()
        if artifact is None:
            raise RuntimeError("a passage was not compressed")
        return len(encode_frame(self.cache.keys(passages[:1])[0], artifact))

    def first_token(self, passages: list[Passage], *, stored: bool = True) -> int:
        """One request to its first token; returns the rows of the context."""
        artifacts: list[Any] = []
        if stored:
            looked = self.cache.fetch(passages, QUERY)
            if any(look.result != "hit" for look in looked):
                raise RuntimeError("a passage was not in the store: raise the store's cap")
            artifacts = [look.artifact for look in looked]
        else:
            artifacts = self.method.compress(passages, None)
        chosen: list[Any] = self.method.select(QUERY, passages, artifacts)
        segments = tuple(
            Segment(passage, ((0, len(passage.text)),), artifact=each)
            for passage, each in zip(passages, chosen, strict=True)
        )
        packed = PackedContext(QUERY, segments, PackReport(self.method.name, 0, 0))
        next(islice(self.decoder.stream(packed, QUERY, max_new_tokens=1), 1), None)
        return sum(each.tokens for each in chosen)


def arms_of(
    checkpoint: Path, url: str, decoder: HFDecoder, only: list[str] | None
) -> dict[str, Arm]:
    """Every setting that is compared, or those of ``only``."""
    settings: dict[str, dict[str, Any]] = {
        f"k={k} cached": {"k": k, "sense": "none"} for k in (8, 16, 32)
    }
    settings["k=16 encoded on the fly"] = {"k": 16, "sense": "none"}
    settings |= {f"k=16 p={p:.0%} cached": {"k": 16, "share": p} for p in (0.05, 0.10, 0.25)}
    return {
        name: Arm(Refrag(checkpoint, **settings[name]), url, decoder) for name in only or settings
    }


def measure(
    decoder: HFDecoder, arms: dict[str, Arm], passages: list[Passage], runs: int
) -> dict[str, Any]:
    """Every arm on one prompt, with the ratio to the plain prompt."""
    stored = {name: arm.fill(passages) for name, arm in arms.items()}
    text = "\n\n".join(passage.full_text for passage in passages)

    def plain(context: str) -> Callable[[], str | None]:
        return lambda: next(islice(decoder.stream(context, QUERY, max_new_tokens=1), 1), None)

    def runner(name: str, arm: Arm) -> Callable[[], int]:
        return lambda: arm.first_token(passages, stored="fly" not in name)

    rows: dict[str, dict[str, Any]] = dict(
        timed(
            {"plain": plain(text), "no context": plain("")}
            | {name: runner(name, arm) for name, arm in arms.items()},
            runs,
        )
    )
    for name, row in rows.items():
        row["times_faster_wall"] = round(rows["plain"]["wall_ms"] / row["wall_ms"], 2)
        row["times_faster_cpu"] = round(rows["plain"]["cpu_ms"] / row["cpu_ms"], 2)
        if name in arms:
            row["context_rows"] = arms[name].first_token(passages)
            row["bytes_a_passage"] = stored[name]
    return {"prompt_tokens": decoder.inputs(text, QUERY).prompt_tokens, "arms": rows}


def kv_bytes(decoder: HFDecoder) -> int:
    """Bytes of a passage's raw bf16 keys and values in this decoder."""
    shape = decoder.model.config
    width = shape.hidden_size // shape.num_attention_heads
    size: int = 2 * 2 * shape.num_hidden_layers * shape.num_key_value_heads * width * PASSAGE_TOKENS
    return size


def main() -> None:
    """Measure every length and print the figures."""
    arguments_of = parser(__doc__)
    arguments_of.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096])
    arguments_of.add_argument("--shape", choices=sorted(SHAPES), default="22M")
    arguments_of.add_argument("--store", default="memory://?max_bytes=1gb")
    arguments_of.add_argument("--only", nargs="+", help="settings by name; all by default")
    arguments_of.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = arguments_of.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder, checkpoint = Path(name) / "decoder", Path(name) / "refrag"
        random_decoder(folder, arguments.shape)
        untrained(DEFAULT_ENCODER, str(folder), inner=1024, policy_width=128, chunk=16).save(
            checkpoint
        )
        decoder = HFDecoder(str(folder))
        arms = arms_of(checkpoint, arguments.store, decoder, arguments.only)
        longest = max(arguments.tokens) // PASSAGE_TOKENS
        passages = passages_of(decoder, longest, PASSAGE_TOKENS)
        lengths = {
            str(tokens): measure(
                decoder, arms, passages[: tokens // PASSAGE_TOKENS], arguments.runs
            )
            for tokens in arguments.tokens
        }
        figures = {"threads": arguments.threads, "shape": arguments.shape, "lengths": lengths}
        report({**figures, "kv_bytes_a_passage": kv_bytes(decoder)})


if __name__ == "__main__":
    main()
