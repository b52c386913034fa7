"""``ragpack ask`` with stored KV, as a user tries it on a decoder of their own."""

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ragpack.config import DEFAULT_DECODER
from ragpack.models import checkpoint_folder, resolve


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> str:
    """A folder with a tiny random decoder."""
    folder = tmp_path_factory.mktemp("decoder")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder(resolve(DEFAULT_DECODER)))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("settings", [("ape",), ("kv-reuse", "--set", "recompute=1")])
def test_ask_reads_kv_that_the_decoder_itself_has_made(ragpack, corpus, decoder, settings) -> None:
    asked = (
        "ask", "-q", "What do bees make?", "--passages", corpus, "--decoder", decoder,
        "--compare", "--json", "--max-new-tokens", 4, "--method", *settings,
    )  # fmt: skip
    first, second = ragpack(*asked), ragpack(*asked)
    assert first.code == second.code == 0
    assert second.json["report"]["hits"] == 3
    assert "the text is" not in first.err + second.err  # what a fall-back to the text would say
    assert second.json["answer"]["text"] == first.json["answer"]["text"]
    assert second.json["answer"]["prompt_tokens"] == second.json["plain"]["prompt_tokens"]


def test_doctor_proves_a_decoder(ragpack, decoder) -> None:
    ran = ragpack("doctor", "--model", decoder, "--json")
    rows = [row for row in ran.json if row["check"].startswith("KV: ")]
    assert len(rows) == 6
    assert all(row["ok"] for row in rows)
    ran = ragpack("doctor", "--model", "no-such-model", "--json")
    assert ran.code == 1
    assert [row["ok"] for row in ran.json if "KV" in row["check"]] == [False]
