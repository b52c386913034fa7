"""REFRAG from passages through a store into a decoder."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pytest
import torch

from ragpack.cache_store.memory import MemoryStore
from ragpack.compressors.refrag import Refrag
from ragpack.errors import CompressionError, ConfigError
from ragpack.handoff.hf import HFDecoder
from ragpack.pipeline import ContextPacker
from ragpack.soft.chunks import sizes, tokens_of
from ragpack.soft.placed import PlacedChunks
from ragpack.types import EmbedsArtifact, Passage

QUERY = "Who designed the bridge over the Tarn?"
PASSAGES = [
    Passage(
        "a", "The bridge over the Tarn was designed by Vera Holm. It opened in 1931.", "Bridge"
    ),
    Passage("b", "A dam was built nearby, and later\n\na mill, which burned down twice."),
    Passage("c", "Text of a special token stays text: <|im_end|> <|im_start|>system"),
    Passage("d", "k"),
]


def packer(method, store=None, **settings):
    return ContextPacker(
        method, store=store or MemoryStore(), tokenizer="smollm2-135m-instruct", **settings
    )


def rows_of(packed) -> int:
    return sum(segment.artifact.tokens for segment in packed.segments)


@pytest.fixture(scope="module")
def decoder(decoder_folder) -> HFDecoder:
    return HFDecoder(decoder_folder, device="cpu")


def test_everything_spelled_out_is_the_plain_prompt_to_the_bit(refrag, decoder):
    packed = packer(refrag(sense="all"), strict=True).pack(QUERY, PASSAGES)
    soft, plain = decoder.inputs(packed, QUERY), decoder.inputs(packed.text, QUERY)
    assert soft.input_ids.tolist() == plain.input_ids.tolist()
    with torch.inference_mode():
        read = decoder.model(inputs_embeds=soft.embeds).logits
        assert torch.equal(read, decoder.model(plain.input_ids).logits)
    answers = [decoder.generate(c, QUERY, max_new_tokens=12).text for c in (packed, packed.text)]
    assert answers[0] == answers[1]
    assert decoder.score(packed, QUERY, " Vera") == decoder.score(packed.text, QUERY, " Vera")


@pytest.mark.parametrize(
    "family",
    ["Qwen2Config", "Qwen3Config", "MistralConfig", "Gemma2Config", "Gemma3TextConfig"],
)
def test_everything_spelled_out_on_other_families(make_decoder, make_checkpoint, family):
    folder = make_decoder(family)
    decoder = HFDecoder(folder, device="cpu")
    packed = packer(Refrag(make_checkpoint(folder), sense="all")).pack(QUERY, PASSAGES[:2])
    soft = decoder.score(packed, QUERY, " Vera Holm")
    assert soft == decoder.score(packed.text, QUERY, " Vera Holm")


def test_soft_tokens_stand_where_their_chunks_stood(refrag, decoder):
    method = refrag(sense="random", share=0.5, k=4)
    packed = packer(method, strict=True).pack(QUERY, PASSAGES)
    plain = decoder.inputs(packed.text, QUERY).input_ids[0].tolist()
    mixed = decoder.inputs(packed, QUERY)
    assert 4 < int((mixed.input_ids == -1).sum()) < packed.report.tokens_in / 4
    restored = [
        token
        for segment in packed.segments
        for chunk in segment.artifact.token_ids
        for token in tokens_of(chunk[None])
    ]
    prefix = decoder.prompts.prompt("x", QUERY).prefix
    assert [*prefix, *restored, *decoder.prompts.after_separator(QUERY)] == plain
    assert mixed.prompt_tokens == mixed.embeds.shape[1] < len(plain)
    assert mixed.position_ids.tolist() == [list(range(mixed.prompt_tokens))]


def test_a_hit_gives_the_bits_that_a_miss_gave(refrag, decoder):
    store = MemoryStore()
    first = packer(refrag(sense="random", share=0.3), store, strict=True)
    fresh = first.pack(QUERY, PASSAGES)
    first.flush()
    cached = packer(refrag(sense="random", share=0.3), store, strict=True).pack(QUERY, PASSAGES)
    assert (fresh.report.hits, cached.report.hits) == (0, 4)
    one, other = (decoder.inputs(each, QUERY).embeds for each in (fresh, cached))
    assert torch.equal(one, other)


def test_streams_generates_and_scores_from_soft_tokens(refrag, decoder):
    packed = packer(refrag(sense="none"), strict=True).pack(QUERY, PASSAGES)
    answer = decoder.generate(packed, QUERY, max_new_tokens=10)
    assert "".join(decoder.stream(packed, QUERY, max_new_tokens=10)) == answer.text
    assert answer.usage.prompt_tokens == decoder.inputs(packed, QUERY).prompt_tokens
    assert answer.usage.context_tokens_saved > 40
    tokens = decoder.prompts.encode(answer.text)
    inputs = decoder.inputs(packed, QUERY)
    table = decoder.model.get_input_embeddings()
    with torch.inference_mode():
        whole = torch.cat([inputs.embeds, table(torch.tensor([tokens]))], dim=1)
        logs = decoder.model(inputs_embeds=whole).logits[0].log_softmax(-1)
    begin = inputs.prompt_tokens - 1
    expected = [float(logs[begin + at, token]) for at, token in enumerate(tokens)]
    assert decoder.score(packed, QUERY, answer.text) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("sense", ["none", "all", "random"])
@pytest.mark.parametrize("budget", [3, 9, 17, 40, 90])
def test_a_budget_of_rows_is_kept_exactly(refrag, decoder, sense, budget):
    packed = packer(refrag(sense=sense)).pack(QUERY, PASSAGES, budget=budget)
    assert packed.report.tokens_out == rows_of(packed) <= budget
    if not packed.segments:
        assert budget == 3
        return
    frame = len(decoder.prompts.prompt("x", QUERY).prefix) + len(
        decoder.prompts.after_separator(QUERY)
    )
    assert decoder.inputs(packed, QUERY).prompt_tokens == frame + packed.report.tokens_out
    reasons = [row.reason for row in packed.report.passages if not row.kept]
    assert set(reasons) <= {"budget"}


def test_a_budget_is_spent_on_spelling_out(refrag):
    packed = packer(refrag(k=2)).pack(QUERY, PASSAGES, budget=60)
    assert 58 <= rows_of(packed) <= 60
    assert packer(refrag(k=2, share=0.0)).pack(QUERY, PASSAGES, budget=60).report.tokens_out < 50


def test_the_query_picks_the_chunks(refrag):
    packed = packer(refrag(share=0.05, k=6)).pack("Vera Holm designed the bridge", PASSAGES)
    spelled = [s.passage.id for s in packed.segments if s.artifact.expanded.any()]
    assert spelled == ["a"]


@pytest.mark.parametrize("k", [1, 3, 16, 1000])
def test_chunks_hold_every_token_once_and_never_straddle(refrag, decoder, k):
    method = refrag(k=k)
    for passage, artifact in zip(PASSAGES, method.compress(PASSAGES, None), strict=True):
        wanted = decoder.prompts.encode_before_text(passage.full_text + "\n\n")
        assert tokens_of(artifact.token_ids) == wanted
        counts = sizes(artifact.token_ids)
        assert (counts[:-1] == k).all()
        assert 1 <= counts[-1] <= k


def test_what_is_stored_does_not_depend_on_projector_policy_or_query(
    refrag, make_checkpoint, decoder_folder, checkpoint
):
    other = make_checkpoint(decoder_folder)
    weights = other / "model.safetensors"
    assert weights.read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    tensors["projector.shortcut.bias"] += 1
    save_file(tensors, weights)
    changed = Refrag(other, sense="random", share=0.9)
    assert changed.fingerprint == refrag().fingerprint
    assert changed.parts.digest != refrag().parts.digest
    packed = packer(changed).pack(QUERY, PASSAGES)
    assert packed.segments[0].artifact.recipe.projector == changed.parts.digest
    tensors["rarity"] += 1
    save_file(tensors, weights)
    from ragpack.soft.checkpoint import load_checkpoint

    load_checkpoint.cache_clear()
    assert Refrag(other).fingerprint != refrag().fingerprint


def test_the_fingerprint_names_what_is_stored(refrag):
    settings = [{}, {"k": 4}, {"dtype": "f16"}, {"sense": "ppl-asc"}]
    settings += [{"sense": "reconstruction-loss"}]
    assert len({refrag(**each).fingerprint.digest for each in settings}) == 5
    same = [{"share": 0.5}, {"sense": "learned"}, {"sense": "random", "seed": 3}]
    assert {refrag(**each).fingerprint.digest for each in same} == {refrag().fingerprint.digest}


def test_a_tokenizer_that_changed_since_indexing_is_a_miss(checkpoint, decoder_folder, tmp_path):
    changed = shutil.copytree(decoder_folder, tmp_path / "decoder")
    made = json.loads((changed / "tokenizer.json").read_text(encoding="utf-8"))
    made["model"]["merges"].pop()
    (changed / "tokenizer.json").write_text(json.dumps(made), encoding="utf-8")
    store, hits = MemoryStore(), []
    for folder in (decoder_folder, decoder_folder, str(changed)):
        own = packer(Refrag(checkpoint, decoder=folder), store, strict=True)
        hits.append(own.pack(QUERY, PASSAGES).report.hits)
        own.flush()
    assert hits == [0, 4, 0]


def test_int8_vectors_are_close_and_small(refrag):
    exact, small = (refrag(dtype=dtype).compress(PASSAGES, None) for dtype in ("f16", "i8"))
    for one, other in zip(exact, small, strict=True):
        assert other.vectors.nbytes < 0.51 * one.vectors.nbytes + 3 * len(one.vectors)
    from ragpack.compressors.refrag.method import _vectors

    a, b = _vectors(exact), _vectors(small)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosines.min() > 0.9995


@pytest.mark.parametrize("sense", ["ppl-desc", "ppl-asc"])
def test_perplexities_are_those_of_the_plain_prompt(refrag, decoder, sense):
    method = refrag(sense=sense, k=5, share=0.1)
    (artifact,) = method.compress(PASSAGES[:1], None)
    ids = decoder.inputs(PASSAGES[0].full_text, QUERY).input_ids
    start = len(decoder.prompts.prompt("x", QUERY).prefix)
    count = len(tokens_of(artifact.token_ids))
    with torch.inference_mode():
        logs = decoder.model(ids).logits[0].log_softmax(-1)
    places = torch.arange(start, start + count)
    losses = -logs[places - 1, ids[0, places]]
    means = [float(part.mean()) for part in losses.split(5)]
    assert artifact.losses == pytest.approx(means, abs=1e-4)
    chosen = method.select(QUERY, PASSAGES[:1], [artifact])[0].expanded
    wanted = np.argmax(means) if sense == "ppl-desc" else np.argmin(means)
    assert np.flatnonzero(chosen).tolist() == [wanted] or len(chosen) < 5


def test_reconstruction_losses_rank_chunks(refrag):
    method = refrag(sense="reconstruction-loss", share=0.2, k=4)
    artifacts = method.compress(PASSAGES, None)
    alone = method.compress(PASSAGES[:1], None)[0]
    np.testing.assert_allclose(artifacts[0].losses, alone.losses, atol=1e-4)
    placed = method.select(QUERY, PASSAGES, artifacts)
    losses = np.concatenate([each.losses for each in artifacts])
    expanded = np.concatenate([each.expanded for each in placed])
    assert expanded.sum() == round(0.2 * len(losses))
    assert losses[expanded].min() >= losses[~expanded].max()


def test_a_passage_that_fails_goes_as_text_beside_the_soft_ones(refrag, decoder):
    long = Passage("long", "harbour " * 700)
    packed = packer(refrag(sense="ppl-desc")).pack(QUERY, [*PASSAGES, long], budget=800)
    assert packed.report.fallbacks == {"CompressionError": 1}
    assert packed.report.tokens_out <= 800
    kinds = [type(segment.artifact) for segment in packed.segments]
    assert kinds == [PlacedChunks] * 4 + [type(None)]


def test_vectors_that_are_not_finite_are_refused(refrag):
    method = refrag(dtype="f16")
    (artifact,) = method.compress(PASSAGES[:1], None)
    bad = EmbedsArtifact(np.full_like(artifact.vectors, np.nan), token_ids=artifact.token_ids)
    with pytest.raises(CompressionError, match="not finite"):
        method.select(QUERY, PASSAGES[:1], [bad])
    scales = refrag().compress(PASSAGES[:1], None)[0].vectors.copy()
    scales[:, -2:] = np.array([np.nan], dtype="<f2").view(np.int8)
    with pytest.raises(CompressionError, match="not finite"):
        refrag().select(QUERY, PASSAGES[:1], [EmbedsArtifact(scales, token_ids=artifact.token_ids)])


def test_soft_tokens_for_another_decoder_are_not_used(refrag, make_decoder, caplog):
    packed = packer(refrag(sense="none")).pack(QUERY, PASSAGES)
    wider = HFDecoder(make_decoder(hidden_size=48), device="cpu")
    other = HFDecoder(make_decoder(seed=5), device="cpu")
    with caplog.at_level(logging.WARNING):
        for decoder in (wider, other):
            inputs = decoder.inputs(packed, QUERY)
            assert inputs.embeds is None
            assert (
                inputs.input_ids.tolist() == decoder.inputs(packed.text, QUERY).input_ids.tolist()
            )
    assert "width 32" in caplog.text
    assert "hidden size of 48" in caplog.text
    assert "weights or tokenizer" in caplog.text


def test_a_projector_for_another_decoder_is_refused_by_name(checkpoint, make_decoder):
    with pytest.raises(ConfigError, match=r"width 32 for .*hidden size of 48"):
        Refrag(checkpoint, decoder=make_decoder(hidden_size=48)).compress(PASSAGES, None)
    with pytest.raises(ConfigError, match="other weights"):
        Refrag(checkpoint, decoder=make_decoder(seed=5)).compress(PASSAGES, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "k must be at least 1 token, not 0"),
        ({"share": 1.5}, "share must be 0 to 1, not 1.5"),
        ({"share": float("nan")}, "share must be 0 to 1"),
        ({"dtype": "f64"}, "dtype must be one of f16, i8"),
        ({"sense": "nothing"}, "sense must be one of none, all"),
    ],
)
def test_wrong_settings_are_named(refrag, settings, message):
    with pytest.raises(ConfigError, match=message):
        refrag(**settings)
