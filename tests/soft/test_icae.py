"""ICAE on tiny checkpoints in the published key layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.icae import Icae
from ragpack.errors import CompressionError, ConfigError
from ragpack.handoff.hf import HFDecoder
from ragpack.pipeline import ContextPacker
from ragpack.types import EmbedsArtifact, Passage

QUERY = "Who designed the bridge?"
PASSAGES = [
    Passage("a", "The bridge over the Tarn was designed by Vera Holm.", "Tarn Bridge"),
    Passage("b", "A dam was built nearby in 1931. " * 9),
]
SLOTS, HIDDEN, RANK = 6, 32, 4
LINEARS = ("layers.0.self_attn.q_proj", "layers.0.self_attn.v_proj", "layers.1.self_attn.q_proj")
SLOTS_NAME = "memory_token_embed.weight"


def key(path: str, half: str) -> str:
    return f"icae.base_model.model.model.{path}.lora_{half}.default.weight"


def write(path: Path, model: transformers.LlamaModel, **extra: torch.Tensor) -> str:
    """A published checkpoint: the updates' halves and the slots' vectors."""
    torch.manual_seed(2)
    made = {SLOTS_NAME: torch.randn(SLOTS + 3, HIDDEN), **extra}
    for linear in LINEARS:
        layer = model.get_submodule(linear)
        made[key(linear, "A")] = torch.randn(RANK, layer.in_features) / 9
        made[key(linear, "B")] = torch.randn(layer.out_features, RANK) / 9
    save_file(made, path)
    return str(path)


@pytest.fixture(scope="module")
def model(decoder_folder) -> transformers.LlamaModel:
    return transformers.AutoModel.from_pretrained(decoder_folder)


@pytest.fixture
def icae(tmp_path, model, decoder_folder) -> Icae:
    path = write(tmp_path / "icae.safetensors", model)
    return Icae(path, decoder=decoder_folder, device="cpu")


def test_slots_are_last_states_behind_the_text_under_the_updates(icae, decoder_folder):
    """Against the decoder with the updates beside its layers, as PEFT has them."""
    model = transformers.AutoModel.from_pretrained(decoder_folder)
    tensors = icae._tensors
    for linear in LINEARS:
        down, up = (tensors[key(linear, half)] for half in "AB")
        model.get_submodule(linear).register_forward_hook(
            lambda _, given, out, down=down, up=up: out + given[0] @ down.T @ up.T * (32 / RANK)
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder_folder)
    ids = torch.tensor(tokenizer(PASSAGES[0].full_text).input_ids)
    assert len(ids) < SLOTS * 4
    with torch.no_grad():
        rows = torch.cat([model.embed_tokens(ids), tensors[SLOTS_NAME][:SLOTS]])
        wanted = model(inputs_embeds=rows[None]).last_hidden_state[0, -SLOTS:]
    (artifact,) = icae.compress(PASSAGES[:1], None)
    np.testing.assert_allclose(artifact.vectors, wanted.numpy(), atol=1e-4)


def test_a_long_passage_has_slots_for_every_segment(icae, decoder_folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(decoder_folder)
    tokens = len(tokenizer(PASSAGES[1].full_text).input_ids)
    (artifact,) = icae.compress(PASSAGES[1:], None)
    assert len(artifact.vectors) == SLOTS * -(-tokens // (SLOTS * 4)) > 2 * SLOTS


def test_a_prompt_ends_its_slots_once_and_keeps_its_separators(icae, decoder_folder):
    decoder = HFDecoder(decoder_folder, device="cpu")
    packer = ContextPacker(icae, store=MemoryStore(), tokenizer=decoder_folder, strict=True)
    packed = packer.pack(QUERY, PASSAGES)
    first, second = (segment.artifact.rows for segment in packed.segments)
    assert len(first) == SLOTS
    assert len(second) % SLOTS == 1
    np.testing.assert_array_equal(second[-1], icae._tensors[SLOTS_NAME][-1].numpy())
    ids = decoder.inputs(packed, QUERY).input_ids[0].tolist()
    newline = decoder.prompts.encode_before_text("\n\n")
    middle = [*[-1] * len(first), *newline, *[-1] * len(second), *newline]
    prefix = decoder.prompts.prompt("x", QUERY).prefix
    assert ids == [*prefix, *middle, *decoder.prompts.after_separator(QUERY)]
    assert packed.report.tokens_out == len(middle)
    assert decoder.generate(packed, QUERY, max_new_tokens=4).usage.completion_tokens == 4
    budget = SLOTS + len(newline) + 1
    one = packer.pack(QUERY, PASSAGES, budget=budget)
    assert [segment.passage.id for segment in one.segments] == ["a"]
    assert one.report.tokens_out == budget


def test_the_decoder_that_reads_stays_plain(icae, model, decoder_folder):
    icae.compress(PASSAGES, None)
    weight = "layers.0.self_attn.q_proj.weight"
    plain = HFDecoder(decoder_folder, device="cpu").model.model.state_dict()[weight]
    assert torch.equal(plain, model.state_dict()[weight])
    assert not torch.equal(plain, icae.writer.state_dict()[weight])


def test_an_empty_passage_takes_no_row(icae):
    empty = [Passage("e", "")]
    (placed,) = icae.select(QUERY, empty, icae.compress(empty, None))
    assert placed.tokens == 0


def test_what_is_stored_and_not_finite_is_refused(icae):
    broken = EmbedsArtifact(np.full((SLOTS, HIDDEN), np.nan, dtype=np.float32))
    with pytest.raises(CompressionError, match="not finite"):
        icae.select(QUERY, PASSAGES[:1], [broken])


@pytest.mark.parametrize("name", ["icae.base_model.model.lm_head.weight", key("layers.9.x", "A")])
def test_unknown_keys_are_named(tmp_path, model, decoder_folder, name):
    path = write(tmp_path / "icae.safetensors", model, **{name: torch.zeros(1, 1)})
    with pytest.raises(ConfigError, match=f"unknown keys {name}"):
        _ = Icae(path, decoder=decoder_folder).writer


def test_half_of_an_update_is_refused(tmp_path, model, decoder_folder):
    half = {key("layers.0.self_attn.o_proj", "A"): torch.zeros(RANK, 64)}
    path = write(tmp_path / "icae.safetensors", model, **half)
    with pytest.raises(ConfigError, match=r"no keys .*o_proj\.lora_B"):
        _ = Icae(path, decoder=decoder_folder).writer


def test_a_checkpoint_without_slots_is_refused(tmp_path, decoder_folder):
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=f"no keys {SLOTS_NAME}"):
        _ = Icae(tmp_path / "other.safetensors", decoder=decoder_folder).writer


def test_pickle_weights_are_refused_with_the_command_that_converts_them(tmp_path, decoder_folder):
    torch.save({}, tmp_path / "icae.pt")
    with pytest.raises(ConfigError, match=r"icae\.pt is a pickle.*save_file"):
        _ = Icae(tmp_path / "icae.pt", decoder=decoder_folder).writer


def test_a_decoder_of_another_width_is_refused_by_name(tmp_path, model, make_decoder):
    path = write(tmp_path / "icae.safetensors", model)
    with pytest.raises(ConfigError, match=r"width 32.*hidden size of 64"):
        _ = Icae(path, decoder=make_decoder(hidden_size=64)).writer
