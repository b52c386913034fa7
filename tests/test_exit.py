"""EXIT on a tiny random Gemma with a random LoRA, both saved and loaded as the real ones are."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    PreTrainedTokenizerFast,
)

from ragpack.compressors.exit import Exit, prompt
from ragpack.errors import CompressionError, ConfigError, UnsupportedModel
from ragpack.types import Passage, TextArtifact

QUERY = "When does the office open?"
TOWN = Passage(
    "town", "The office opens at six. Dogs are welcome! Is parking free? It is.", title="Harbour"
)
PLAIN = Passage("plain", "A tower stands on the pier. It is red.")
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]


def train_tokenizer(size: int = 400) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [prompt(QUERY, TOWN.full_text, PLAIN.text), "Yes No Yes No Yes No"]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def save_gemma(folder, tokenizer) -> None:
    torch.manual_seed(3)
    config = GemmaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    GemmaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_adapter(folder, **changes) -> None:
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"} | changes
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    torch.manual_seed(4)
    path = "base_model.model.model.layers.1.self_attn.q_proj"
    save_file(
        {
            f"{path}.lora_A.weight": torch.randn(4, 32),
            f"{path}.lora_B.weight": torch.randn(32, 4),
        },
        folder / "adapter_model.safetensors",
    )


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma")
    save_gemma(folder, train_tokenizer())
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    save_adapter(folder)
    return folder


@pytest.fixture(scope="module")
def method(gemma, adapter):
    return Exit(str(gemma), str(adapter), device="cpu")


@pytest.fixture(scope="module")
def reference(gemma, adapter):
    """P(Yes) by one full forward pass for each sentence, the update added to the layer's output."""
    model = AutoModelForCausalLM.from_pretrained(gemma).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(gemma)
    torch.manual_seed(4)
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    layer = model.model.layers[1].self_attn.q_proj
    layer.register_forward_hook(lambda _, args, out: out + 2.0 * (args[0] @ down.T @ up.T))
    answers = [tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No")]

    def score(passage: Passage, sentence: str) -> float:
        text = prompt(QUERY, passage.full_text, sentence)
        with torch.inference_mode():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1, answers]
        return logits.softmax(-1)[0].item()

    return score


def test_template_bytes() -> None:
    assert prompt("Q {x}?", "T\nC.", "S.") == (
        "<start_of_turn>user\nQuery:\nQ {x}?\nFull context:\nT\nC.\nSentence:\nS.\n"
        'Is this sentence useful in answering the query? Answer only "Yes" or "No".<end_of_turn>\n'
        "<start_of_turn>model\n"
    )


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_scores_equal_a_full_forward_for_each_sentence(gemma, adapter, reference, batch) -> None:
    method = Exit(str(gemma), str(adapter), batch=batch, device="cpu")
    for passage, artifact in zip([TOWN, PLAIN], method.compress([TOWN, PLAIN], QUERY), strict=True):
        expected = [reference(passage, passage.text[start:end]) for start, end in artifact.spans]
        assert len(expected) > 1
        assert artifact.scores == pytest.approx(expected, abs=1e-5)


def test_adapter_changes_scores(gemma, method) -> None:
    bare = Exit(str(gemma), None, device="cpu")
    assert bare.compress([TOWN], QUERY)[0].scores != method.compress([TOWN], QUERY)[0].scores
    assert bare.fingerprint.digest != method.fingerprint.digest


def test_context_is_the_sentences_own_passage(method) -> None:
    alone = method.compress([PLAIN], QUERY)
    beside = method.compress([TOWN, PLAIN], QUERY)
    assert alone[0] == beside[1]


def test_the_beginning_is_encoded_once(method, monkeypatch) -> None:
    network = method._loaded.judge._model
    seen = []
    forward = network.forward
    monkeypatch.setattr(
        network,
        "forward",
        lambda *args, **kw: seen.append(kw["input_ids"].numel()) or forward(*args, **kw),
    )
    artifact = method.compress([TOWN], QUERY)[0]
    full = [method._tokens(TOWN, QUERY, span) for span in artifact.spans]
    assert sum(seen) < 0.7 * sum(map(len, full))


def test_selects_from_tau_up_in_source_order(method) -> None:
    artifact = TextArtifact(((0, 24), (25, 42), (43, 59)), (0.5, 0.49, 0.9))
    (chosen,) = method.select(QUERY, [TOWN], [artifact])
    assert chosen == TextArtifact(((0, 24), (43, 59)), (0.5, 0.9))
    assert method.select(QUERY, [TOWN], [artifact], budget=5) == [artifact]


def test_too_long_a_prompt_is_refused_with_the_passages_name(method) -> None:
    with pytest.raises(
        CompressionError, match=r"'long' makes a prompt of \d+ tokens, the model reads 512"
    ):
        method.compress([Passage("long", "harbour " * 600)], QUERY)


def test_empty_passage_has_no_sentences(method) -> None:
    assert method.compress([Passage("none", "")], QUERY) == [TextArtifact((), ())]


def test_indexing_without_a_query_is_refused(method) -> None:
    with pytest.raises(CompressionError, match="reads the query"):
        method.compress([TOWN], None)


@pytest.mark.parametrize("settings", [{"tau": 1.1}, {"tau": float("nan")}, {"batch": 0}])
def test_bad_settings(settings) -> None:
    with pytest.raises(ConfigError):
        Exit(**settings)


def test_answers_that_are_not_single_tokens(tmp_path) -> None:
    save_gemma(tmp_path, train_tokenizer(size=len(SPECIAL) + 256))
    with pytest.raises(UnsupportedModel, match=r"'(Yes|No)' is not one token"):
        Exit(str(tmp_path), None, device="cpu").compress([TOWN], QUERY)


def test_pickle_weights_are_refused(gemma, adapter, tmp_path) -> None:
    (tmp_path / "config.json").write_text((gemma / "config.json").read_text())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="refused"):
        Exit(str(tmp_path), None, device="cpu").compress([TOWN], QUERY)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_text((adapter / "adapter_config.json").read_text())
    torch.save({}, pickled / "adapter_model.bin")
    with pytest.raises(ConfigError, match="refused"):
        Exit(str(gemma), str(pickled), device="cpu").compress([TOWN], QUERY)


@pytest.mark.parametrize("change", [{"use_dora": True}, {"bias": "all"}, {"peft_type": "IA3"}])
def test_other_adapters_are_refused(gemma, tmp_path, change) -> None:
    save_adapter(tmp_path / "odd", **change)
    with pytest.raises(UnsupportedModel, match="plain LoRA"):
        Exit(str(gemma), str(tmp_path / "odd"), device="cpu").compress([TOWN], QUERY)
