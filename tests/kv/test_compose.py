"""Compositions: batches, threads, generate(), and the traps between them and transformers."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicCache

from ragpack.errors import CompressionError, HandoffError
from ragpack.kv.compose import Row, compose_parallel, compose_sequential
from ragpack.kv.encode import KVEncoder
from ragpack.kv.forward import first_logits, generate_inputs, next_logits
from ragpack.kv.tensors import to_array, to_tensor


@pytest.fixture
def encoder(tiny_model, make_request):
    return KVEncoder(tiny_model("qwen3"), make_request().prefix, torch.float64)


@pytest.fixture
def row(encoder, make_request):
    request = make_request()
    return Row(encoder.encode(request.passages), request.query)


def _plain_logits(model, request):
    return model(torch.tensor([request.prompt])).logits[:, -len(request.query) :]


def test_passages_do_not_depend_on_their_neighbours(encoder, make_request):
    passages = make_request().passages
    together = encoder.encode([*passages, []])
    for passage, artifact in zip(passages, together, strict=False):
        (alone,) = encoder.encode([passage])
        assert np.allclose(alone.keys, artifact.keys, atol=1e-9)
        assert artifact.layout == "post-rope@7"
        assert artifact.token_ids.tolist() == passage
    assert together[-1].keys.shape == (4, 2, 0, 16)


def test_any_order_and_any_subset(encoder, make_request, error_of):
    """Recomputing everything is the plain prompt of whatever order was asked for."""
    request = make_request()
    artifacts = encoder.encode(request.passages)
    for order in ([2, 0, 1], [1], [0, 0], []):
        ids = [token for i in order for token in request.passages[i]]
        wanted = encoder.model(torch.tensor([[*request.prefix, *ids, *request.query]])).logits
        row = Row([artifacts[i] for i in order], request.query, range(len(ids)))
        found = first_logits(encoder.model, compose_sequential(encoder, [row]))
        assert error_of(found[:, -1], wanted[:, -1]) < 1e-5


@pytest.mark.parametrize("name", ["llama-yarn", "gemma2", "gemma3", "gpt-oss", "mistral-window"])
@pytest.mark.parametrize("parallel", [False, True])
def test_a_batch_of_different_requests_equals_single_ones(
    tiny_model, make_request, error_of, name, parallel
):
    model = tiny_model(name)
    requests = [make_request(1), make_request(2, (5, 0, 21)), make_request(3, (4,))]
    encoder = KVEncoder(model, requests[0].prefix, torch.float64)
    rows = [
        Row(encoder.encode(r.passages), r.query[: 3 + i], () if parallel or i == 1 else (2, 3))
        for i, r in enumerate(requests)
    ]

    def logits(some):
        composed = (
            compose_parallel(encoder, some, temperature=0.9, scale=0.8)
            if parallel
            else compose_sequential(encoder, some)
        )
        first = first_logits(model, composed)
        tokens = torch.full((len(some), 2), 11)
        return torch.cat([first, next_logits(model, composed, tokens)], dim=1)

    together = logits(rows)
    for found, row in zip(together, rows, strict=True):
        assert error_of(found, logits([row])[0]) < 1e-5


def test_requests_side_by_side_do_not_touch_each_other(encoder, make_request):
    """Eight threads, two settings, one model: nothing is kept outside a request."""
    rows = [Row(encoder.encode(r.passages), r.query) for r in (make_request(s) for s in range(4))]
    jobs = [(row, heat) for row in rows for heat in (1.0, 0.5)] * 4

    def answer(job):
        row, heat = job
        with torch.inference_mode():
            composed = compose_parallel(encoder, [row], temperature=heat)
            first = first_logits(encoder.model, composed)
            return torch.cat([first, next_logits(encoder.model, composed, torch.tensor([[5]]))])

    alone = [answer(job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        for found, wanted in zip(pool.map(answer, jobs), alone, strict=True):
            assert torch.equal(found, wanted)


def test_plain_prompts_are_what_they_were(tiny_model, family, make_request, error_of):
    """The model object serves both, with the attention that it had or ours."""
    from ragpack.kv.attention import install

    model, request = tiny_model(family), make_request()
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    wanted = _plain_logits(model, request)
    model.set_attn_implementation(before)
    install(model)
    assert error_of(_plain_logits(model, request), wanted) < 1e-5


def test_a_long_answer_grows_the_buffers(encoder, row):
    model = encoder.model
    out = model.generate(
        **generate_inputs(model, compose_sequential(encoder, [row])),
        max_new_tokens=150,
        min_new_tokens=150,
        do_sample=False,
        pad_token_id=0,
    )
    composed = compose_sequential(encoder, [row])
    logits, loop = first_logits(model, composed), []
    for _ in range(150):
        scores = logits[:, -1].clone()
        scores[:, 2] = -torch.inf  # min_new_tokens forbids the end token
        loop.append(int(scores.argmax()))
        logits = next_logits(model, composed, torch.tensor([loop[-1:]]))
    assert out[0, -150:].tolist() == loop


# The five traps; each of these fails without the guard that it names.


def test_trap_missing_positions(encoder, row):
    """Guard: the attention compares the positions it is given with the plan's."""
    inputs = generate_inputs(encoder.model, compose_parallel(encoder, [row]))
    del inputs["position_ids"]
    with pytest.raises(HandoffError, match="position_ids"):
        encoder.model.generate(**inputs, max_new_tokens=1, pad_token_id=0)


def test_trap_short_mask(encoder, row):
    """Guard: generate_inputs hands over ids and mask of the whole prompt, never the query's."""
    inputs = generate_inputs(encoder.model, compose_parallel(encoder, [row]))
    whole = len(encoder.prefix_ids) + sum(row.lengths) + len(row.query_ids)
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape == (1, whole)
    short = dict(inputs, input_ids=torch.tensor([row.query_ids]))
    short["attention_mask"] = torch.ones_like(short["input_ids"])
    with pytest.raises(RuntimeError):  # what transformers makes of the query's own mask
        encoder.model.generate(**short, max_new_tokens=1, pad_token_id=0)


def test_trap_packed_sequences(encoder, row, make_request):
    """Guard: a cache always goes along; without it repeated positions read as packed rows."""
    request, model = make_request(), encoder.model
    start = len(request.prefix)
    places = [range(start), *(range(start, start + len(p)) for p in request.passages)]
    places.append(range(start + 17, start + 17 + len(request.query)))
    positions = torch.tensor([[p for place in places for p in place]])
    ids = torch.tensor([request.prompt])
    packed = model(ids, position_ids=positions, use_cache=False).logits[:, -1]
    cached = model(ids, position_ids=positions, past_key_values=DynamicCache()).logits[:, -1]
    assert float((packed - cached).abs().max()) > 0.1  # the trap is there
    composed = compose_parallel(encoder, [row])
    assert composed.cache.get_seq_length() > 0
    assert first_logits(model, composed).shape[1] == 1


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "gpt-oss", "mistral-window"])
def test_trap_cropped_windows(tiny_model, make_request, name):
    """Guard: layers keep every token, and the plan windows by position instead of by index."""
    request = make_request()
    encoder = KVEncoder(tiny_model(name), request.prefix, torch.float64)
    composed = compose_parallel(encoder, [Row(encoder.encode(request.passages), request.query)])
    first_logits(encoder.model, composed)
    lengths = {layer.get_seq_length() for layer in composed.cache.layers}
    assert lengths == {len(request.prompt)}
    assert {layer.keys.shape[2] for layer in composed.cache.layers} == lengths


def test_trap_mutated_cache(encoder, row):
    """Guard: a composition is good for one forward; composing again starts from clean KV."""
    composed = compose_parallel(encoder, [row])
    first = first_logits(encoder.model, composed)
    with pytest.raises(HandoffError, match="used before"):
        first_logits(encoder.model, composed)
    with pytest.raises(HandoffError, match="used before"):
        generate_inputs(encoder.model, composed)
    assert torch.equal(first_logits(encoder.model, compose_parallel(encoder, [row])), first)


def test_tokens_before_the_query_are_refused(encoder, row):
    with pytest.raises(HandoffError, match="first_logits"):
        next_logits(encoder.model, compose_parallel(encoder, [row]), torch.tensor([[5]]))


def test_generate_wants_prompts_of_one_length(encoder, row):
    longer = Row(row.passages, [*row.query_ids, 5])
    with pytest.raises(HandoffError, match="one length"):
        generate_inputs(encoder.model, compose_parallel(encoder, [row, longer]))


def test_bad_input_is_refused_in_words(encoder, row, tiny_model, make_request):
    with pytest.raises(HandoffError, match="query has no tokens"):
        compose_parallel(encoder, [Row(row.passages, [])])
    with pytest.raises(CompressionError, match="room for 505"):
        encoder.encode([[5] * 506])
    with pytest.raises(HandoffError, match="window 512"):
        compose_sequential(encoder, [Row(row.passages * 20, row.query_ids)])
    with pytest.raises(CompressionError, match="prefix is empty"):
        KVEncoder(encoder.model, [])
    wide = replace(row.passages[0], keys=np.zeros((2, 4, 13, 16)))
    with pytest.raises(HandoffError, match="2 layers and 4 heads"):
        compose_parallel(encoder, [Row([wide], row.query_ids)])
    other = KVEncoder(encoder.model, make_request().prefix[:4], torch.float64)
    with pytest.raises(HandoffError, match="post-rope@7"):
        compose_parallel(other, [row])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
def test_stored_precision_moves_logits_by_its_rounding_alone(
    tiny_model, make_request, error_of, dtype
):
    request, model = make_request(), tiny_model("llama")
    exact = KVEncoder(model, request.prefix, torch.float64)
    rough = KVEncoder(model, request.prefix, dtype)
    answers = []
    for encoder in (exact, rough):
        artifacts = encoder.encode(request.passages)
        for artifact in artifacts:  # as a store hands them out
            artifact.keys.flags.writeable = artifact.values.flags.writeable = False
        composed = compose_sequential(encoder, [Row(artifacts, request.query)])
        answers.append(first_logits(model, composed))
    bound = {torch.float32: 1e-5, torch.float16: 1e-2}.get(dtype, 0.1)
    assert 0 < error_of(answers[1], answers[0]) < bound


def test_int8_keeps_every_row_to_half_a_step_of_its_largest_number():
    rows = torch.randn(2, 3, 5, 8) * torch.logspace(-2, 3, 5)[:, None]
    rows[0, 0, 0] = 0
    packed = to_array(rows, torch.int8)
    assert packed.shape == (2, 3, 5, 10)
    assert packed.dtype == np.int8
    worst = (to_tensor(packed, "i8") - rows).abs() / rows.abs().amax(-1, keepdim=True).clamp(1e-9)
    assert float(worst.max()) < 0.51 / 127 + 1e-3
    assert bool((to_tensor(packed, "i8")[0, 0, 0] == 0).all())
