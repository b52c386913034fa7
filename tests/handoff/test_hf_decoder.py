from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
import torch
from transformers.cache_utils import DynamicCache

from ragpack import open_decoder
from ragpack.errors import ConfigError, HandoffError
from ragpack.handoff.decoding import ModelInputs, greedy, log_probabilities
from ragpack.handoff.hf import HFDecoder
from ragpack.report import PackedContext, PackReport
from ragpack.types import Passage, Segment

CONTEXT = "the lazy dog\n\nthe quick brown fox"
QUERY = "who jumps?"


def _ids(decoder: HFDecoder, context: str = CONTEXT, query: str = QUERY) -> torch.Tensor:
    return decoder.inputs(context, query).input_ids


def _reference(decoder: HFDecoder, ids: torch.Tensor, new: int) -> list[int]:
    mask = torch.ones_like(ids)
    out = decoder.model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False)
    return out[0, ids.shape[1] :].tolist()


def test_greedy_equals_transformers_generate(tiny: HFDecoder) -> None:
    ours = list(greedy(tiny.model, tiny.inputs(CONTEXT, QUERY), 40, stop=()))
    theirs = _reference(tiny, _ids(tiny), 40)
    assert ours[: len(theirs)] == theirs
    assert len(set(ours)) > 5, "a model that repeats itself proves nothing"


def test_answer_counts_tokens_and_times(tiny: HFDecoder) -> None:
    answer = tiny.generate(CONTEXT, QUERY, max_new_tokens=12)
    assert answer.usage.prompt_tokens == _ids(tiny).shape[1]
    assert answer.usage.completion_tokens == 12
    assert answer.usage.context_tokens_saved == 0
    assert 0 < answer.ttft_ms < answer.total_ms


def test_stream_gives_the_same_text_in_pieces(tiny: HFDecoder) -> None:
    pieces = list(tiny.stream(CONTEXT, QUERY, max_new_tokens=30))
    assert len(pieces) > 5
    assert all(pieces)
    assert "".join(pieces) == tiny.generate(CONTEXT, QUERY, max_new_tokens=30).text


def test_a_caller_who_stops_stops_the_model(tiny: HFDecoder) -> None:
    forwards: list[int] = []
    hook = tiny.model.register_forward_hook(lambda *_: forwards.append(1))
    try:
        pieces = tiny.stream(CONTEXT, QUERY, max_new_tokens=100)
        taken = list(islice(pieces, 2))
        before = len(forwards)
        pieces.close()
    finally:
        hook.remove()
    assert len(taken) == 2
    assert len(forwards) == before < 20


def test_inference_mode_does_not_leak_into_the_caller(tiny: HFDecoder) -> None:
    for _ in tiny.stream(CONTEXT, QUERY, max_new_tokens=8):
        assert not torch.is_inference_mode_enabled()


def test_the_end_token_ends_the_answer_and_is_not_counted(tiny: HFDecoder) -> None:
    inputs = tiny.inputs(CONTEXT, QUERY)
    tokens = list(greedy(tiny.model, inputs, 6, stop=()))
    again = greedy(tiny.model, tiny.inputs(CONTEXT, QUERY), 6, stop={tokens[3]})
    assert list(again) == tokens[: tokens.index(tokens[3])]
    assert tiny._stop == {2}


def test_threads_get_the_same_answer(tiny: HFDecoder) -> None:
    expected = tiny.generate(CONTEXT, QUERY, max_new_tokens=20).text
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(tiny.generate, CONTEXT, QUERY, max_new_tokens=20) for _ in range(8)]
        assert {job.result().text for job in jobs} == {expected}


def test_a_packed_context_reads_like_its_text_and_tells_what_it_saved(tiny: HFDecoder) -> None:
    passage = Passage(id="p", text="the lazy dog jumps", title="fox")
    report = PackReport(method="m", tokens_in=50, tokens_out=11)
    packed = PackedContext(QUERY, (Segment(passage, spans=((0, 12),)),), report)
    answer = tiny.generate(packed, QUERY, max_new_tokens=5)
    plain = tiny.generate("fox\nthe lazy dog", QUERY, max_new_tokens=5)
    assert answer.text == plain.text
    assert answer.usage.context_tokens_saved == 39


@pytest.mark.parametrize("continuation", ["the fox", "x", "<|im_end|>", "文字 👩‍👩‍👧", "\ud800"])
def test_scores_equal_a_forward_without_cache(tiny: HFDecoder, continuation: str) -> None:
    ids, tokens = _ids(tiny), tiny.prompts.encode(continuation)
    whole = torch.cat([ids, torch.tensor([tokens])], dim=1)
    with torch.inference_mode():
        logs = tiny.model(whole).logits[0].log_softmax(-1)
    expected = [float(logs[ids.shape[1] - 1 + i, token]) for i, token in enumerate(tokens)]
    assert tiny.score(CONTEXT, QUERY, continuation) == pytest.approx(expected, abs=1e-5)


def test_an_empty_continuation_has_no_scores(tiny: HFDecoder) -> None:
    assert tiny.score(CONTEXT, QUERY, "") == []


def _from_filled_cache(decoder: HFDecoder, split: int) -> ModelInputs:
    ids = _ids(decoder)
    cache = DynamicCache(config=decoder.model.config)
    with torch.inference_mode():
        decoder.model(ids[:, :split], past_key_values=cache, use_cache=True)
    positions = torch.arange(split, ids.shape[1])[None]
    return ModelInputs(ids[:, split:], positions, cache, prompt_tokens=ids.shape[1])


def test_decoding_starts_from_a_filled_cache_as_well(tiny: HFDecoder) -> None:
    plain = list(greedy(tiny.model, tiny.inputs(CONTEXT, QUERY), 20, stop=()))
    assert list(greedy(tiny.model, _from_filled_cache(tiny, 17), 20, stop=())) == plain
    scores = log_probabilities(tiny.model, tiny.inputs(CONTEXT, QUERY), plain)
    again = log_probabilities(tiny.model, _from_filled_cache(tiny, 17), plain)
    assert again == pytest.approx(scores, abs=1e-5)


def test_positions_need_not_follow_from_the_cache(tiny: HFDecoder) -> None:
    inputs = _from_filled_cache(tiny, 17)
    moved = ModelInputs(
        inputs.input_ids, inputs.position_ids + 60, inputs.cache, inputs.prompt_tokens
    )
    seen: list[int] = []
    hook = tiny.model.model.rotary_emb.register_forward_pre_hook(
        lambda _, arguments, kwargs: seen.append(int(kwargs["position_ids"][0, -1])),
        with_kwargs=True,
    )
    try:
        list(greedy(tiny.model, moved, 3, stop=()))
    finally:
        hook.remove()
    last = inputs.prompt_tokens + 59
    assert seen == [last, last + 1, last + 2]


def test_a_prompt_beyond_the_window_names_both_numbers(tiny: HFDecoder) -> None:
    tokens = len(tiny.prompts.prompt("dog " * 300, QUERY).ids)
    for ask in (tiny.generate, tiny.stream):
        with pytest.raises(HandoffError, match=f"has {tokens} tokens and the model's window 256"):
            ask("dog " * 300, QUERY)


def test_an_answer_stops_where_the_window_ends(tiny: HFDecoder) -> None:
    room = 256 - len(tiny.prompts.prompt("", "a").ids)
    context = "a" * (room - 20)
    answer = tiny.generate(context, "a", max_new_tokens=10_000)
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == 257
    with pytest.raises(HandoffError, match="window 256"):
        tiny.score(context, "a", "a" * 200)


def test_no_new_tokens_is_refused(tiny: HFDecoder) -> None:
    with pytest.raises(ConfigError, match="max_new_tokens must be at least 1, not 0"):
        tiny.generate(CONTEXT, QUERY, max_new_tokens=0)


@pytest.mark.parametrize("text", ["\0", "\ud800", "👩‍👩‍👧", "文字", " ", "\n\n\n"])
def test_any_text_is_answered(tiny: HFDecoder, text: str) -> None:
    assert tiny.generate(text, text, max_new_tokens=2).usage.completion_tokens == 2


def test_a_model_without_template_answers_too(
    with_template: Callable[[str | None], HFDecoder],
) -> None:
    assert with_template(None).generate(CONTEXT, QUERY, max_new_tokens=4).text


def test_smollm2_answers_from_the_context() -> None:
    decoder = open_decoder("smollm2-135m-instruct", device="cpu")
    context = "The lighthouse of Alma was built in 1873 by the engineer Rosa Quint."
    query = "Who built the lighthouse of Alma?"
    answer = decoder.generate(context, query, max_new_tokens=24)
    assert "Rosa Quint" in answer.text
    right = sum(decoder.score(context, query, "Rosa Quint"))
    assert right > sum(decoder.score("", query, "Rosa Quint"))
