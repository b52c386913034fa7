"""Prompts of tokens and soft tokens: batches, caches, and what a checkpoint may hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers.cache_utils import DynamicCache

from ragpack.errors import ConfigError, HandoffError
from ragpack.handoff.hf import HFDecoder
from ragpack.soft.checkpoint import load_checkpoint
from ragpack.soft.compose import embed, generate_arguments, pad_left
from ragpack.soft.sense import POLICIES, Scene, policy_named
from ragpack.soft.spend import affordable, best


@pytest.fixture(scope="module")
def model(decoder_folder):
    return HFDecoder(decoder_folder, device="cpu").model


def prompt(model, seed: int, tokens: int, soft: int) -> torch.Tensor:
    """A random prompt [tokens, h] of which some places are soft."""
    torch.manual_seed(seed)
    ids = torch.randint(3, 1000, (tokens,))
    ids[torch.randperm(tokens)[:soft]] = -1
    return embed(ids, torch.randn(soft, 32), model.get_input_embeddings())


def generated(model, batch, past=None, new: int = 8) -> list[list[int]]:
    arguments = generate_arguments(batch, past)
    with torch.no_grad():
        found = model.generate(**arguments, max_new_tokens=new, do_sample=False, pad_token_id=2)
    return found.tolist()


def test_a_padded_batch_answers_as_each_prompt_alone(model):
    prompts = [prompt(model, seed, tokens, 5) for seed, tokens in enumerate((23, 9, 40))]
    with torch.no_grad():
        batch = pad_left(prompts)
        together = model(
            inputs_embeds=batch.embeds, attention_mask=batch.mask, position_ids=batch.positions
        ).logits
        for row, one in enumerate(prompts):
            alone = model(inputs_embeds=one[None]).logits[0]
            torch.testing.assert_close(together[row, -len(one) :], alone, atol=1e-5, rtol=0)
    answers = generated(model, batch)
    assert answers == [generated(model, pad_left([one]))[0] for one in prompts]
    assert len({tuple(answer) for answer in answers}) == 3


def test_generate_continues_a_cache_without_dropping_rows(model):
    begin, rest = prompt(model, 1, 30, 0), prompt(model, 2, 17, 6)
    whole = generated(model, pad_left([torch.cat([begin, rest])]))

    def cache() -> DynamicCache:
        past = DynamicCache(config=model.config)
        with torch.no_grad():
            model(inputs_embeds=begin[None], past_key_values=past)
        return past

    assert generated(model, pad_left([rest]), cache()) == whole
    seen: list[int] = []
    first, second = cache(), cache()

    def count(_module: object, _arguments: object, kwargs: dict) -> None:
        seen.append(kwargs["inputs_embeds"].shape[1])

    hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        generated(model, pad_left([rest]), first, new=1)
        trap = {"inputs_embeds": rest[None], "attention_mask": torch.ones(1, 47).long()}
        model.generate(**trap, past_key_values=second, max_new_tokens=1, do_sample=False)
    finally:
        hook.remove()
    assert seen[0] == 17
    assert seen[1] < 17, "transformers no longer drops rows: the guard can go"


def test_rows_of_another_number_or_width_are_refused(model):
    table = model.get_input_embeddings()
    ids = torch.tensor([4, -1, 5, -1])
    for rows in (torch.zeros(1, 32), torch.zeros(3, 32), torch.zeros(2, 31)):
        with pytest.raises(HandoffError, match=r"prompt that takes \[2, 32\]"):
            embed(ids, rows, table)


@given(
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(1, 16)), max_size=30),
    st.floats(0, 1),
    st.none() | st.integers(0, 200),
)
def test_spelling_out_keeps_its_bounds(chunks, share, rows):
    scores = np.array([score for score, _ in chunks], np.float32)
    sizes = np.array([size for _, size in chunks], np.int64)
    chosen = best(scores, sizes, share, rows)
    assert chosen.sum() <= round(share * len(chunks))
    added = int((sizes - 1)[chosen].sum())
    assert rows is None or added <= rows
    left = round(share * len(chunks)) - int(chosen.sum())
    for chunk in np.flatnonzero(~chosen):  # what is left out did not fit, or is no better
        fits = rows is None or added + int(sizes[chunk]) - 1 <= rows
        assert left == 0 or not fits
        if rows is None:
            assert not chosen.any() or scores[chunk] <= scores[chosen].min()


@given(st.lists(st.integers(0, 20), max_size=12), st.integers(0, 60))
def test_passages_are_taken_in_order_while_they_fit(chunks, rows):
    kept = affordable(chunks, rows)
    assert sum(np.array(chunks, int)[kept]) <= rows
    left = rows
    for count, keep in zip(chunks, kept, strict=True):
        assert keep == (count <= left)
        left -= count if keep else 0


def test_policies_rank_as_their_names_say():
    vectors = np.array([[1, 0], [0, 2], [1, 1], [0, 0]], np.float32)
    losses = np.array([0.5, 3.0, 1.0, 2.0], np.float32)
    scene = Scene(vectors, np.array([0, 5], np.float32), losses)
    ranks = {name: np.argsort(-make(0).scores(scene)).tolist() for name, make in POLICIES.items()}
    assert ranks["query-cosine"][:2] == [1, 2]
    assert ranks["ppl-desc"] == ranks["reconstruction-loss"] == [1, 3, 2, 0]
    assert ranks["ppl-asc"] == [0, 2, 3, 1]
    assert not best(policy_named("none").scores(scene), np.ones(4, int), 1.0).any()
    assert best(policy_named("all").scores(scene), np.ones(4, int), 1.0).all()
    one, same, other = (policy_named("random", seed).scores(scene) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_a_checkpoint_comes_back_as_it_was_saved(make_checkpoint, decoder_folder):
    folder = make_checkpoint(decoder_folder, seed=9)
    checkpoint, digest = load_checkpoint(folder)
    again = folder.parent / f"{folder.name}-again"
    checkpoint.save(again)
    assert load_checkpoint(again)[1] == digest
    vectors = torch.randn(3, checkpoint.config.chunk_width)
    assert torch.equal(checkpoint.projector(vectors), load_checkpoint(again)[0].projector(vectors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda parts: parts | {"projector.bonus": torch.zeros(1)},
            r"unknown keys projector\.bonus",
        ),
        (lambda parts: {n: p for n, p in parts.items() if n != "rarity"}, "no keys rarity"),
        (
            lambda parts: parts | {"projector.shortcut.bias": torch.zeros(7)},
            r"projector\.shortcut\.bias has the shape \[7\], not \[32\]",
        ),
    ],
)
def test_weights_of_another_make_are_named(make_checkpoint, decoder_folder, change, message):
    folder = make_checkpoint(decoder_folder)
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights)
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(folder)


def test_pickle_weights_are_refused_with_the_command(make_checkpoint, decoder_folder):
    folder = make_checkpoint(decoder_folder)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "model.pt")
    with pytest.raises(ConfigError, match=r"model\.pt is a pickle.*save_file.*weights_only=True"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bonus": 1}, "must have exactly the keys"),
        ({"inner": "24"}, "inner must be of type int"),
    ],
)
def test_configurations_of_another_make_are_named(make_checkpoint, decoder_folder, change, message):
    path = make_checkpoint(decoder_folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ConfigError, match=message):
        load_checkpoint(path.parent)


def test_a_folder_without_a_checkpoint_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="ragpack train refrag"):
        load_checkpoint(tmp_path)
