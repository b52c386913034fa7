"""ARC-Encoder on tiny checkpoints in the published key layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.arc_encoder import ArcEncoder
from ragpack.errors import CompressionError, ConfigError
from ragpack.handoff.hf import HFDecoder
from ragpack.pipeline import ContextPacker
from ragpack.soft.pooling_encoder import pool_sizes
from ragpack.types import EmbedsArtifact, Passage

QUERY = "Who designed the bridge?"
PASSAGES = [
    Passage("a", "The bridge over the Tarn was designed by Vera Holm.", "Tarn Bridge"),
    Passage("b", "A dam was built nearby in 1931. " * 10),
]
WIDTH, HIDDEN, LAYERS, TRUNCATED, HEAD = 48, 32, 3, 1, 16
META = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture(scope="module")
def backbone(make_decoder) -> str:
    return make_decoder(hidden_size=WIDTH, num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def model(backbone) -> transformers.LlamaModel:
    return transformers.AutoModel.from_pretrained(backbone).eval()


def side_by_side(weight: torch.Tensor) -> torch.Tensor:
    """From transformers' order of rotary pairs to Meta's."""
    halves = weight.unflatten(0, (-1, 2, HEAD // 2))
    return halves.transpose(1, 2).reshape(weight.shape)


def embedder(model: transformers.LlamaModel, decoders: int = 1) -> dict[str, torch.Tensor]:
    """The encoder's published keys, with the weights of ``model``."""
    made = {"tok_embeddings.weight": model.embed_tokens.weight.detach().clone()}
    for name, part in model.layers[: LAYERS - TRUNCATED].named_parameters():
        layer, _, inside = name.removesuffix(".weight").partition(".")
        turned = side_by_side(part) if inside.endswith(("q_proj", "k_proj")) else part
        made[f"layers.{layer}.{META[inside]}.weight"] = turned.detach().clone()
    for number in range(decoders):
        made[f"rec_tok.{number}.weight"] = torch.randn(1, WIDTH)
        made[f"cont_tok.{number}.weight"] = torch.randn(1, WIDTH)
    return made


def bridge(prefix: str = "") -> dict[str, torch.Tensor]:
    return {
        f"{prefix}layer1.weight": torch.randn(20, WIDTH),
        f"{prefix}layer2.weight": torch.randn(HIDDEN, 20),
    }


def write(
    folder: Path, parts: dict[str, dict[str, torch.Tensor]], factor: int = 8, **params: object
) -> str:
    """A training's checkpoint as the authors' code writes it."""
    folder.mkdir()
    for name, tensors in parts.items():
        (folder / name).mkdir()
        save_file(tensors, folder / name / "consolidated.safetensors")
    made = {
        "n_truncated_layers": TRUNCATED,
        "pooling_module": {"pool_type": "mean_pooled_queries", "where": "before"},
        "compress_rates": [-factor],
        "causal_embedder": False,
        "rec_tok": True,
        "cont_tok": True,
    }
    text = json.dumps({"param_dtype": "float32", "embedder_params": made | params})
    (folder / "params.json").write_text(text)
    return str(folder)


@pytest.fixture
def parts(model) -> dict[str, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return {"embedder": embedder(model), "bridge_module": bridge()}


@pytest.fixture
def arc(tmp_path, parts, decoder_folder, backbone) -> ArcEncoder:
    folder = write(tmp_path / "arc", parts)
    return ArcEncoder(folder, decoder=decoder_folder, backbone=backbone, device="cpu")


def read_by_transformers(model: transformers.LlamaModel, ids: list[int]) -> torch.Tensor:
    """Hidden states of the layers that the encoder keeps, every token seeing every other."""
    everything = torch.zeros(1, 1, len(ids), len(ids))
    with torch.no_grad():
        states = model(
            torch.tensor([ids]), attention_mask=everything, output_hidden_states=True
        ).hidden_states
    return states[LAYERS - TRUNCATED][0]


def test_without_pooling_it_is_the_backbone_read_in_both_directions(arc, model):
    ids = list(range(300, 323))
    arc.encoder.shape = type(arc.encoder.shape)(
        **{name: getattr(arc.encoder.shape, name) for name in arc.encoder.shape.__slots__}
        | {"factor": 1}
    )
    with torch.no_grad():
        found = arc.encoder(torch.tensor(ids))
    torch.testing.assert_close(found, read_by_transformers(model, ids), atol=1e-4, rtol=1e-4)


def test_the_last_layer_asks_with_the_means_of_groups(arc, parts, model):
    """With nothing read in the last layer, the means of its input are what comes out."""
    last = arc.encoder.layers[str(LAYERS - TRUNCATED - 1)]
    with torch.no_grad():
        last.attention.wo.weight.zero_()
        last.feed_forward.w2.weight.zero_()
        ids = torch.arange(400, 420)
        found = arc.encoder(ids)
        below = arc.encoder.layers["0"](*[arc.encoder.tok_embeddings(ids)] * 2)
    wanted = [below[:7].mean(0), below[7:14].mean(0), below[14:].mean(0)]
    torch.testing.assert_close(found, torch.stack(wanted))


def test_soft_tokens_are_bridged_vectors_and_an_end(arc, parts):
    artifacts = arc.compress(PASSAGES, None)
    assert artifacts[0].vectors.shape[1] == WIDTH
    (placed, _) = arc.select(QUERY, PASSAGES, artifacts)
    end = parts["embedder"]["cont_tok.0.weight"]
    rows = torch.cat([torch.from_numpy(artifacts[0].vectors), end])
    first, second = (parts["bridge_module"][f"layer{n}.weight"] for n in (1, 2))
    np.testing.assert_allclose(placed.rows, (rows @ first.T @ second.T).numpy(), rtol=1e-4)


def test_a_prompt_has_the_rows_and_keeps_its_separators(arc, decoder_folder):
    decoder = HFDecoder(decoder_folder, device="cpu")
    packer = ContextPacker(arc, store=MemoryStore(), tokenizer=decoder_folder, strict=True)
    packed = packer.pack(QUERY, PASSAGES)
    ids = decoder.inputs(packed, QUERY).input_ids[0].tolist()
    newline = decoder.prompts.encode_before_text("\n\n")
    middle = []
    for passage in PASSAGES:
        tokens = len(decoder.prompts.encode(passage.full_text))
        middle += [-1] * (-(-tokens // 8) + 1) + newline
    prefix = decoder.prompts.prompt("x", QUERY).prefix
    assert ids == [*prefix, *middle, *decoder.prompts.after_separator(QUERY)]
    assert packed.report.tokens_out == len(middle)
    assert decoder.generate(packed, QUERY, max_new_tokens=4).usage.completion_tokens == 4
    one = packer.pack(QUERY, PASSAGES, budget=len(middle) - 1)
    assert [segment.passage.id for segment in one.segments] == ["a"]


def test_the_released_file_and_its_second_decoder(tmp_path, parts, model, decoder_folder, backbone):
    """On the hub both parts lie in one file, with prefixes; two layers are left out."""
    encoder = embedder(model, decoders=2)
    encoder = {n: part for n, part in encoder.items() if not n.startswith("layers.1.")}
    bridges = bridge("0.") | bridge("1.")
    folder = tmp_path / "hub"
    folder.mkdir()
    released = {f"embedder.{name}": part for name, part in encoder.items()}
    released |= {f"bridge_module.{name}": part for name, part in bridges.items()}
    save_file(released, folder / "model.safetensors")
    method = ArcEncoder(str(folder), decoder=decoder_folder, backbone=backbone, number=1)
    artifacts = method.compress(PASSAGES, None)
    (placed, _) = method.select(QUERY, PASSAGES, artifacts)
    end = encoder["cont_tok.1.weight"] @ bridges["1.layer1.weight"].T @ bridges["1.layer2.weight"].T
    np.testing.assert_allclose(placed.rows[-1:], end.numpy(), rtol=1e-4)
    lacking = ArcEncoder(str(folder), decoder=decoder_folder, backbone=backbone, number=2)
    with pytest.raises(ConfigError, match="no bridge for a decoder 2"):
        _ = lacking.bridge


def test_an_empty_passage_takes_no_row(arc):
    empty = [Passage("e", "")]
    artifacts = arc.compress(empty, None)
    (placed,) = arc.select(QUERY, empty, artifacts)
    assert placed.tokens == 0
    assert placed.rows.shape == (0, HIDDEN)


def test_what_is_stored_and_not_finite_is_refused(arc):
    broken = EmbedsArtifact(np.full((2, WIDTH), np.nan, dtype=np.float32))
    with pytest.raises(CompressionError, match="not finite"):
        arc.select(QUERY, PASSAGES[:1], [broken])


@pytest.mark.parametrize(("part", "match"), [("embedder", "layers.9.x"), ("bridge_module", "norm")])
def test_unknown_keys_are_named(tmp_path, parts, decoder_folder, backbone, part, match):
    parts[part][match] = torch.zeros(1)
    method = ArcEncoder(write(tmp_path / "arc", parts), decoder=decoder_folder, backbone=backbone)
    with pytest.raises(ConfigError, match=f"unknown keys {match}"):
        _ = (method.encoder, method.bridge)


@pytest.mark.parametrize(
    "params",
    [
        {"causal_embedder": True},
        {"compress_rates": [2]},
        {"pooling_module": {"pool_type": "last", "where": "between"}},
    ],
)
def test_another_kind_of_encoder_is_refused(tmp_path, parts, decoder_folder, backbone, params):
    folder = write(tmp_path / "arc", parts, **params)
    method = ArcEncoder(folder, decoder=decoder_folder, backbone=backbone)
    with pytest.raises(ConfigError, match=r"params\.json"):
        _ = method.encoder


def test_pickle_weights_are_refused_with_the_command_that_converts_them(arc):
    folder = Path(arc.checkpoint) / "bridge_module"
    (folder / "consolidated.safetensors").unlink()
    torch.save({}, folder / "consolidated.pth")
    with pytest.raises(ConfigError, match=r"consolidated\.pth is a pickle.*save_file"):
        _ = arc.bridge


def test_a_decoder_of_another_width_is_refused_by_name(tmp_path, parts, make_decoder, backbone):
    folder = write(tmp_path / "arc", parts)
    method = ArcEncoder(folder, decoder=make_decoder(hidden_size=64), backbone=backbone)
    with pytest.raises(ConfigError, match=r"width 32.*hidden size of 64"):
        _ = method.recipe


@given(st.integers(1, 500), st.integers(1, 32))
def test_groups_are_even_and_none_is_longer_than_the_factor(tokens, factor):
    sizes = pool_sizes(tokens, factor)
    assert sum(sizes) == tokens
    assert len(sizes) == -(-tokens // factor)
    assert max(sizes) <= factor
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
