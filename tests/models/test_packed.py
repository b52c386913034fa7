"""Texts of many lengths in one run, against each text in a run of its own."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel, PreTrainedModel, RobertaConfig, RobertaModel

from ragpack.models.batches import filled, packed_batches
from ragpack.models.packed import allow_packing, packed_states

SHAPE = {
    "vocab_size": 200,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}


def bert() -> PreTrainedModel:
    torch.manual_seed(5)
    return BertModel(BertConfig(**SHAPE)).eval()


def ids(length: int, seed: int) -> list[int]:
    return torch.randint(200, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


PLAIN, PACKED = bert(), bert()
assert allow_packing(PACKED)


@pytest.fixture(params=[1, 2, 16])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12))
def test_states_have_the_bits_of_a_run_of_their_own(lengths: list[int]) -> None:
    texts = filled([ids(length, seed) for seed, length in enumerate(sorted(lengths))])
    with torch.inference_mode():
        states = [row for group in packed_states(PACKED, texts) for row in group]
        for text, ours in zip(texts, states, strict=True):
            alone = torch.tensor(filled([text]))
            assert torch.equal(ours, PLAIN(input_ids=alone).last_hidden_state[0])


def test_neighbours_of_one_length_come_back_together() -> None:
    with torch.inference_mode():
        groups = packed_states(PACKED, [ids(length, length) for length in (9, 9, 4, 9)])
    assert [group.shape for group in groups] == [(2, 9, 64), (1, 4, 64), (1, 9, 64)]


def test_other_uses_of_the_model_stay_as_they_are() -> None:
    tokens = torch.tensor([ids(20, 1), ids(20, 2)])
    mask = torch.ones_like(tokens)
    mask[1, 12:] = 0
    with torch.inference_mode():
        ours = PACKED(input_ids=tokens, attention_mask=mask).last_hidden_state
        theirs = PLAIN(input_ids=tokens, attention_mask=mask).last_hidden_state
    assert torch.equal(ours, theirs)


def test_an_architecture_that_counts_positions_otherwise_is_left_alone() -> None:
    model = RobertaModel(RobertaConfig(**SHAPE))
    before = model.config._attn_implementation
    assert not allow_packing(model)
    assert model.config._attn_implementation == before


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 64))
def test_batches_hold_every_row_once_and_as_many_tokens_as_they_may(
    lengths: list[int], limit: int
) -> None:
    batches = list(packed_batches(lengths, limit))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    sizes = [[lengths[row] for row in batch] for batch in batches]
    assert all(sum(batch) <= limit or len(batch) == 1 for batch in sizes)
    assert all(sum(one) + two[0] > limit for one, two in pairwise(sizes))
    flat = [length for batch in sizes for length in batch]
    assert flat == sorted(flat, reverse=True)
