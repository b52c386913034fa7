from concurrent.futures import ThreadPoolExecutor

import torch

from ragpack.models import load_causal_lm


def test_two_callers_share_one_model() -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(load_causal_lm, ["smollm2-135m-instruct"] * 2)
    assert first[0] is second[0]
    assert first[1] is second[1]


def test_smollm2_is_ready_to_answer() -> None:
    model, tokenizer = load_causal_lm("smollm2-135m-instruct", device="cpu")
    assert not model.training
    assert model.dtype == torch.float32
    # KV methods put their own in its place, which leaves plain forwards to sdpa.
    assert model.config._attn_implementation in {"sdpa", "ragpack"}
    assert tokenizer.chat_template
    assert tokenizer.eos_token == "<|im_end|>"
