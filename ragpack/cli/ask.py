"""``ragpack ask``: retrieve, pack, and let a decoder answer."""

import sys
from typing import Annotated, Any

import typer

from ragpack import config
from ragpack.cli.console import emit, show_report, talk
from ragpack.cli.options import (
    Budget,
    Index,
    Json,
    K,
    Method,
    MinRelevance,
    Namespace,
    PassageFile,
    Query,
    Settings,
    Sources,
    Store,
    open_packer,
)
from ragpack.handoff import open_decoder
from ragpack.pipeline import ContextPacker
from ragpack.registry import load
from ragpack.types import Answer, Passage

__all__ = ["answer_dict", "ask", "plain_context"]


def plain_context(query: str, passages: list[Passage]) -> Any:
    """The same passages uncompressed: the baseline of every comparison."""
    with ContextPacker("identity", store="memory://") as packer:
        return packer.pack(query, passages)


def answer_dict(answer: Answer) -> dict[str, Any]:
    """The JSON shape of an answer."""
    return {
        "text": answer.text,
        "ttft_ms": round(answer.ttft_ms, 3),
        "total_ms": round(answer.total_ms, 3),
        "prompt_tokens": answer.usage.prompt_tokens,
        "completion_tokens": answer.usage.completion_tokens,
    }


def ask(
    query: Query,
    passages: PassageFile = None,
    index: Index = None,
    k: K = 10,
    method: Method = config.DEFAULT_METHOD,
    budget: Budget = None,
    min_relevance: MinRelevance = None,
    store: Store = None,
    namespace: Namespace = None,
    decoder: Annotated[
        str, typer.Option("--decoder", help="Model name or path, or openai://… or vllm://… URL.")
    ] = config.DEFAULT_DECODER,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Counts tokens; the decoder's by default.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 64,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also answer from the uncompressed passages.")
    ] = False,
    settings: Settings = None,
    json: Json = False,
) -> None:
    """Answer a question from packed passages; the answer goes to stdout."""
    found = Sources(passages, index, k).load(query)
    counting = tokenizer or (config.DEFAULT_DECODER if "://" in decoder else decoder)
    reader = open_decoder(decoder)
    with open_packer(
        method,
        store=store,
        namespace=namespace,
        budget=budget,
        min_relevance=min_relevance,
        tokenizer=counting,
        settings=[*_made_by(decoder, method), *(settings or [])],
    ) as packer:
        packed = packer.pack(query, found)
    answer = reader.generate(packed, query, max_new_tokens=max_new_tokens)
    plain = None
    if compare:
        context = plain_context(query, found)
        plain = reader.generate(context, query, max_new_tokens=max_new_tokens)
    if json:
        both = {"plain": answer_dict(plain)} if plain is not None else {}
        emit(packed.to_dict() | {"answer": answer_dict(answer)} | both)
        return
    sys.stdout.write(answer.text.strip() + "\n")
    show_report(packed.report)
    talk.print(f"first token after {answer.ttft_ms:.0f} ms, whole answer {answer.total_ms:.0f} ms")
    if plain is not None:
        talk.print(f"uncompressed: first token after {plain.ttft_ms:.0f} ms, and the answer is:")
        talk.print(plain.text.strip(), markup=False)


def _made_by(decoder: str, method: str) -> list[str]:
    """KV serves only the decoder that made it: that one makes it, unless told otherwise."""
    local = "://" not in decoder
    return [f"model={decoder}"] if local and load("compressors", method).kind == "kv" else []
