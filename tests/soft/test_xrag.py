"""xRAG on tiny checkpoints in the published key layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.xrag import XRag
from ragpack.errors import ConfigError
from ragpack.handoff.hf import HFDecoder
from ragpack.pipeline import ContextPacker
from ragpack.types import Passage

QUERY = "Who designed the bridge?"
PASSAGES = [
    Passage("a", "The bridge over the Tarn was designed by Vera Holm.", "Tarn Bridge"),
    Passage("b", "A dam was built nearby in 1931. " * 60),
]
WIDTH, HIDDEN = 48, 32


def write(folder: Path, **extra: torch.Tensor) -> dict[str, torch.Tensor]:
    """A published checkpoint: the language model's keys, and the projector's."""
    torch.manual_seed(1)
    made = {
        "model.embed_tokens.weight": torch.randn(10, HIDDEN),
        "projector.projector.0.weight": torch.randn(HIDDEN, WIDTH),
        "projector.projector.0.bias": torch.randn(HIDDEN),
        "projector.projector.2.weight": torch.randn(HIDDEN, HIDDEN),
        "projector.projector.2.bias": torch.randn(HIDDEN),
        **extra,
    }
    folder.mkdir(exist_ok=True)
    config = {
        "model_type": "xmistral",
        "projector_type": "mlp2x_gelu",
        "retriever_hidden_size": WIDTH,
        "hidden_size": HIDDEN,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(made, folder / "model-00001-of-00001.safetensors")
    return made


@pytest.fixture(scope="module")
def retriever(make_decoder) -> str:
    return make_decoder("MistralConfig", hidden_size=WIDTH, sliding_window=None)


@pytest.fixture
def xrag(tmp_path, decoder_folder, retriever) -> XRag:
    write(tmp_path / "xrag")
    return XRag(str(tmp_path / "xrag"), decoder=decoder_folder, retriever=retriever, device="cpu")


def test_a_passage_is_the_projection_of_its_last_tokens_state(xrag, tmp_path, retriever):
    from transformers import AutoModel, AutoTokenizer

    made = write(tmp_path / "xrag")
    model, tokenizer = (kind.from_pretrained(retriever) for kind in (AutoModel, AutoTokenizer))
    ids = [*tokenizer(PASSAGES[0].full_text).input_ids, tokenizer.eos_token_id]
    with torch.no_grad():
        vector = model(torch.tensor([ids])).last_hidden_state[0, -1]
    artifacts = xrag.compress(PASSAGES, None)
    np.testing.assert_allclose(artifacts[0].vectors[0], vector.numpy(), atol=1e-5)
    (placed, _) = xrag.select(QUERY, PASSAGES, artifacts)
    first, second = (made[f"projector.projector.{n}.weight"] for n in (0, 2))
    biases = [made[f"projector.projector.{n}.bias"] for n in (0, 2)]
    wanted = second @ nn.functional.gelu(first @ vector + biases[0]) + biases[1]
    np.testing.assert_allclose(placed.rows[0], wanted.numpy(), atol=1e-4)


def test_a_prompt_has_one_row_a_passage_and_keeps_its_separators(xrag, decoder_folder):
    decoder = HFDecoder(decoder_folder, device="cpu")
    packer = ContextPacker(xrag, store=MemoryStore(), tokenizer=decoder_folder, strict=True)
    packed = packer.pack(QUERY, PASSAGES)
    ids = decoder.inputs(packed, QUERY).input_ids[0].tolist()
    newline = decoder.prompts.encode_before_text("\n\n")
    prefix = decoder.prompts.prompt("x", QUERY).prefix
    middle = [-1, *newline, -1, *newline]
    assert ids == [*prefix, *middle, *decoder.prompts.after_separator(QUERY)]
    assert packed.report.tokens_out == len(middle)
    assert decoder.generate(packed, QUERY, max_new_tokens=4).usage.completion_tokens == 4
    one = packer.pack(QUERY, PASSAGES, budget=3)
    assert [segment.passage.id for segment in one.segments] == ["a"]


def test_unknown_keys_are_named(xrag, tmp_path):
    write(tmp_path / "xrag", **{"projector.projector.4.weight": torch.zeros(1)})
    with pytest.raises(ConfigError, match=r"unknown keys 4\.weight"):
        _ = xrag.projector


def test_another_projector_is_refused(xrag, tmp_path):
    write(tmp_path / "xrag")
    (tmp_path / "xrag" / "config.json").write_text('{"projector_type": "linear"}')
    with pytest.raises(ConfigError, match="projector_type is 'linear'"):
        _ = xrag.projector


def test_pickle_weights_are_refused_with_the_command_that_converts_them(xrag, tmp_path):
    folder = tmp_path / "xrag"
    (folder / "model-00001-of-00001.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"pytorch_model\.bin is a pickle.*save_file"):
        _ = xrag.projector


def test_a_decoder_of_another_width_is_refused_by_name(tmp_path, make_decoder, retriever):
    write(tmp_path / "xrag")
    method = XRag(str(tmp_path / "xrag"), decoder=make_decoder(hidden_size=64), retriever=retriever)
    with pytest.raises(ConfigError, match=r"width 32.*hidden size of 64"):
        _ = method.recipe
