"""RECOMP abstractive: upstream's prompt, greedy, empty summaries legal, nothing cut silently."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from ragpack import ContextPacker
from ragpack.cli.demo import handbook
from ragpack.codec import decode_frame, encode_frame
from ragpack.compressors.recomp_abstractive import RecompAbstractive
from ragpack.errors import CompressionError, ConfigError
from ragpack.keys import make_key
from ragpack.models import load_seq2seq
from ragpack.types import Passage, TextArtifact

QUERY = "When does the office open?"
ODD = ["x", "\x00 a", "\ud800", "😀", "猫は魚。", "a" * 500, "</s> <extra_id_0> end"]


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    with handbook() as corpus:
        rows = [json.loads(line) for line in corpus.read_text("utf-8").splitlines()[:5]]
    return [Passage(row["id"], row["text"], row.get("title", "")) for row in rows]


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    learner.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=learner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, passages) -> Path:
    """A random T5 with a vocabulary of its own, large enough in its weights to say something."""
    folder = tmp_path_factory.mktemp("models") / "tiny-t5"
    tokenizer = _tokenizer([passage.text for passage in passages])
    torch.manual_seed(3)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        initializer_factor=2.0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def method(folder) -> RecompAbstractive:
    return RecompAbstractive(str(folder), max_summary=12)


def summaries(method: RecompAbstractive, passages: list[Passage], query: str = QUERY) -> list[str]:
    return [artifact.text for artifact in method.compress(passages, query)]


def test_equals_transformers_own_greedy_generation(method, folder, passages) -> None:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model = T5ForConditionalGeneration.from_pretrained(folder)
    for passage, ours in zip(passages, summaries(method, passages), strict=True):
        prompt = f"Question: {QUERY}\n Document: {passage.title}\n{passage.text}\n Summary: "
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        output = model.generate(**inputs, max_new_tokens=12, num_beams=1, do_sample=False)
        assert ours == tokenizer.decode(output[0], skip_special_tokens=True).strip()
        assert ours


def test_a_batch_gives_what_single_calls_give(method, passages) -> None:
    alone = [summaries(method, [passage])[0] for passage in passages]
    assert summaries(method, passages) == alone
    assert len(set(alone)) > 1
    assert method.compress([], QUERY) == []


def test_the_query_is_read(method, passages) -> None:
    assert summaries(method, passages) != summaries(method, passages, "Who pays the train?")


def test_a_summary_is_never_longer_than_its_source(method, passages) -> None:
    """The short passage stops at its own length, its neighbour in the batch goes on."""
    short = Passage("1", "the day")
    model = method.model
    prompts = model.tokens([f"Question: {QUERY}\n Document: the day\n Summary: "])
    tokens = len(model.tokens(["the day"])[0]) - 1  # without the end token
    cut, _ = summaries(method, [short, passages[0]])
    assert [cut] == model.generate(prompts, [tokens])
    (free,) = model.generate(prompts, [12])
    assert free.startswith(cut)
    assert len(free) > len(cut)


def test_odd_texts_give_a_summary_and_none_is_written_of_nothing(method) -> None:
    odd = [Passage(str(number), text) for number, text in enumerate(ODD)]
    assert all(isinstance(text, str) for text in summaries(method, odd))
    assert summaries(method, [Passage("1", ""), Passage("2", " \n")]) == ["", ""]


def test_an_empty_summary_is_a_result(folder, tmp_path, passages) -> None:
    """A model that ends at once: the paper's selective augmentation."""
    model = T5ForConditionalGeneration.from_pretrained(folder)
    torch.nn.init.zeros_(model.shared.weight)  # equal logits: the first id, padding, wins
    model.generation_config.eos_token_id = 0
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    silent = RecompAbstractive(str(tmp_path), max_source=4096)
    assert silent.compress(passages[:2], QUERY) == [TextArtifact(text="")] * 2
    with ContextPacker(silent, store="memory://", strict=True) as packer:
        packed = packer.pack(QUERY, passages)
    assert packed.segments == ()
    assert packed.report.fallbacks == {}
    assert {row.reason for row in packed.report.passages} == {"nothing relevant"}


def test_one_summary_stands_for_the_ordered_set(method, passages) -> None:
    whole = "\n".join(passage.full_text for passage in passages[:2])
    with ContextPacker(method, store="memory://", strict=True) as packer:
        first = packer.pack(QUERY, passages[:2])
        packer.flush()
        again = packer.pack(QUERY, passages[:2])
        turned = packer.pack(QUERY, passages[1::-1])
    assert summaries(method, [Passage("all", whole)])[0] in first.text
    assert again.text == first.text
    assert again.report.misses == 0
    assert turned.report.hits == 0


def test_each_passage_may_have_a_summary_of_its_own(folder, passages) -> None:
    each = RecompAbstractive(str(folder), max_summary=12, together=False)
    with ContextPacker(each, store="memory://", strict=True) as packer:
        first = packer.pack(QUERY, passages[:2])
        packer.flush()
        turned = packer.pack(QUERY, passages[2::-1])
    assert [segment.kept_text for segment in first.segments] == summaries(each, passages[:2])
    assert [segment.passage for segment in turned.segments] == passages[2::-1]
    assert [row.cache for row in turned.report.passages] == ["miss", "hit", "hit"]


def test_a_prompt_that_is_too_long_is_refused_with_both_numbers(folder) -> None:
    method = RecompAbstractive(str(folder), max_source=60)
    (tokens,) = method.model.tokens([f"Question: {QUERY}\n Document: {'word ' * 90}\n Summary: "])
    with pytest.raises(CompressionError, match=rf"make {len(tokens)} tokens, more than the 60"):
        method.compress([Passage("1", "word " * 90)], QUERY)


def test_indexing_without_a_query_is_refused(method) -> None:
    with pytest.raises(CompressionError, match="needs the query"):
        method.compress([Passage("1", "a")], None)


def test_artifacts_survive_the_store(method, passages) -> None:
    (artifact,) = method.compress(passages[:1], QUERY)
    key = make_key("default", method.kind, method.fingerprint, passages[0], QUERY)
    assert decode_frame(key, bytes(encode_frame(key, artifact))) == artifact


def test_the_fingerprint_holds_the_model_and_the_length(method, folder, tmp_path) -> None:
    torch.manual_seed(4)
    config = T5Config.from_pretrained(folder)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    others = [
        RecompAbstractive(str(folder), max_summary=13),
        RecompAbstractive(str(tmp_path), max_summary=12),
    ]
    digests = {method.fingerprint.digest, *(other.fingerprint.digest for other in others)}
    assert len(digests) == 3
    roomy = RecompAbstractive(str(folder), max_summary=12, max_source=9)
    assert roomy.fingerprint == method.fingerprint


@pytest.mark.parametrize("settings", [{"max_source": 0}, {"max_summary": 0}], ids=str)
def test_wrong_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        RecompAbstractive("unused", **settings)


def test_pickle_weights_and_other_models_are_refused(folder, tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="Pickle weights"):
        load_seq2seq(str(tmp_path))
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ConfigError, match="no encoder-decoder model"):
        load_seq2seq(str(tmp_path))
