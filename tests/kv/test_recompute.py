"""The dial: what is encoded again, and what it is worth."""

import pytest
import torch

from ragpack.errors import ConfigError
from ragpack.kv.compose import Row, compose_sequential
from ragpack.kv.encode import KVEncoder
from ragpack.kv.forward import first_logits
from ragpack.kv.recompute import SELECTIONS, choose


def _choose(encoder, row, selection, amount):
    return choose(selection, amount, encoder, row, compose_sequential(encoder, [row]))


@pytest.fixture
def encoder(tiny_model, make_request):
    return KVEncoder(tiny_model("llama-llama3"), make_request().prefix, torch.float64)


@pytest.fixture
def row(encoder, make_request):
    return Row(encoder.encode(make_request().passages), make_request().query)


def test_first_takes_the_beginning_of_every_passage_but_the_first(encoder, row):
    assert _choose(encoder, row, "first", 3) == (13, 14, 15, 22, 23, 24)
    assert _choose(encoder, row, "first", 4 / 39) == (13, 14, 22, 23)


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_dial_ends_at_nothing_and_everything(encoder, row, selection):
    assert _choose(encoder, row, selection, 0.0) == ()
    assert _choose(encoder, row, selection, 1.0) == tuple(range(39))
    some = _choose(encoder, row, selection, 0.25)
    assert len(some) == 10
    assert list(some) == sorted(set(some))
    assert min(some) >= 13  # the first passage is exact already


@pytest.mark.parametrize("selection", SELECTIONS)
def test_recomputing_all_is_the_plain_prompt(tiny_model, family, make_request, error_of, selection):
    """With the probe's buffers taken over, as the hand-off does it, and behind an anchor.

    The prompt is longer than a band of the attention and than every window.
    """
    request, model = make_request(lengths=(60, 25, 55)), tiny_model(family)
    encoder = KVEncoder(model, request.prefix, torch.float64, anchor_ids=make_request(9).context)
    row = Row(encoder.encode(request.passages), request.query)
    composed = compose_sequential(encoder, [row])
    SELECTIONS[selection](encoder, row, composed)
    everything = Row(row.passages, row.query_ids, range(140))
    again = compose_sequential(encoder, [everything], composed)
    wanted = model(torch.tensor([request.prompt])).logits[:, -1]
    assert error_of(first_logits(model, again)[:, -1], wanted) < 1e-5


def test_tokens_far_apart_are_attended_in_bands_no_wider_than_they_see(encoder, make_request):
    request = make_request(lengths=(100, 100, 100))
    row = Row(encoder.encode(request.passages), request.query, range(0, 300, 2))
    plan = compose_sequential(encoder, [row]).plan
    (everything,) = plan.segments(plan.first_length, 156, None)
    assert [band[:4] for band in everything.bands] == [
        (0, 64, 0, 7 + 2 * 63 + 1),
        (64, 128, 0, 7 + 2 * 127 + 1),
        (128, 156, 0, 313),
    ]
    (window,) = plan.segments(plan.first_length, 156, 8)
    assert [band.start for band in window.bands] == [0, 7 + 128 - 7, 7 + 256 - 7]


def test_behind_an_anchor_no_passage_is_exact(tiny_model, make_request):
    request = make_request()
    encoder = KVEncoder(tiny_model("llama"), request.prefix, torch.float64, anchor_ids=[5, 6, 7, 8])
    row = Row(encoder.encode(request.passages), request.query)
    assert row.passages[0].layout == "post-rope@11"
    assert 0 in _choose(encoder, row, "first", 3 / 39)


def test_deviation_finds_what_neighbours_change(tiny_model, make_request):
    """A passage that repeats in the prompt deviates; the exact first one does not."""
    request = make_request()
    encoder = KVEncoder(tiny_model("qwen2"), request.prefix, torch.float64)
    row = Row(encoder.encode(request.passages), request.query)
    scores = SELECTIONS["deviation"](encoder, row, compose_sequential(encoder, [row]))
    assert float(scores[:13].max()) < 1e-9
    assert float(scores[13:].min()) > 1e-6


def test_attended_finds_what_the_query_looks_at(encoder, row):
    """Against the eager attention weights of transformers."""
    model, prefix = encoder.model, len(encoder.prefix_ids)
    scores = SELECTIONS["attended"](encoder, row, compose_sequential(encoder, [row]))
    composed = compose_sequential(encoder, [row])
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    made = model(
        input_ids=composed.input_ids,
        position_ids=composed.position_ids,
        past_key_values=composed.cache,
        output_attentions=True,
    )
    model.set_attn_implementation(before)
    late = torch.stack([layer[0, :, -1].mean(0) for layer in made.attentions[2:]]).mean(0)
    late = late[prefix : prefix + 39]
    wanted = torch.stack([late[max(0, i - 2) : i + 3].mean() for i in range(39)])
    for seam in (0, 1, 13, 14, 22, 23):  # the first two tokens of each passage
        wanted[seam] += 1
    assert torch.allclose(scores.double(), wanted, atol=1e-6)


def test_an_unknown_rule_is_named(encoder, row):
    with pytest.raises(ConfigError, match="first, deviation, attended"):
        _choose(encoder, row, "luck", 0.5)
