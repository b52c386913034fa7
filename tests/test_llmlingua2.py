"""LLMLingua-2: equal to llmlingua 0.2.2 on the same classifiers, and free of its faults."""

import json
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForTokenClassification,
    BertTokenizer,
    PreTrainedTokenizerBase,
    XLMRobertaConfig,
    XLMRobertaForTokenClassification,
    XLMRobertaTokenizer,
)

from ragpack.cli.demo import handbook
from ragpack.codec import decode_frame, encode_frame
from ragpack.compressors import _llmlingua2_words as reading
from ragpack.compressors.llmlingua2 import LLMLingua2
from ragpack.errors import ConfigError, UnsupportedModel
from ragpack.keys import make_key
from ragpack.models import load_token_classifier
from ragpack.types import Passage

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.5,  # large, so that probabilities spread
}
FLAVOURS = ["tiny-bert-base-multilingual-cased", "tiny-xlm-roberta-large"]
ODD = [
    "",
    "x",
    "\x00",
    "\ud800 a",
    "😀 ok",
    "猫は魚。今日は雨です。",
    " \n\t ",
    "a" * 3000,
    "[SEP] [NEW3] </s> x",
]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    with handbook() as corpus:
        lines = corpus.read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def _bert(texts: list[str], folder: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = normalizers.BertNormalizer(lowercase=False)
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    learner.train_from_iterator([*texts, "[SEP] [PAD]"], trainer)
    tokenizer = BertTokenizer(vocab=learner.get_vocab(), do_lower_case=False)
    config = BertConfig(vocab_size=len(tokenizer) + 100, num_labels=2, **SMALL)
    BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _xlm_roberta(texts: list[str], folder: Path) -> None:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=900, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]["vocab"]
    tokenizer = XLMRobertaTokenizer(vocab=[*map(tuple, learned), ("<mask>", 0.0)])
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer) + 100,
        num_labels=2,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        **SMALL,
    )
    XLMRobertaForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, texts) -> dict[str, Path]:
    """Random classifiers with vocabularies of their own, under names that upstream accepts."""
    torch.manual_seed(0)
    made = {name: tmp_path_factory.mktemp("models") / name for name in FLAVOURS}
    _bert(texts, made[FLAVOURS[0]])
    _xlm_roberta(texts, made[FLAVOURS[1]])
    return made


class Encoding:
    """Stands in for tiktoken's vocabulary, which is not on this machine."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False) or [0]


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour(request, folders):
    """Our classifier's folder, and upstream's compressor on the same."""
    folder = folders[request.param]
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # upstream's own
        import llmlingua
        import tiktoken
        from transformers import AutoTokenizer

        encoding = Encoding(AutoTokenizer.from_pretrained(folder))
        patch.setattr(tiktoken, "encoding_for_model", lambda name: encoding)
        upstream = llmlingua.PromptCompressor(
            str(folder), device_map="cpu", model_config={"trust_remote_code": False},
            use_llmlingua2=True,
        )  # fmt: skip
    return folder, upstream


@pytest.fixture(scope="module")
def bert(folders):
    return load_token_classifier(str(folders[FLAVOURS[0]]), "cpu")


def kept(method: LLMLingua2, text: str, budget: int | None = None) -> list[str]:
    passage = Passage("1", text)
    (choice,) = method.select("", [passage], method.compress([passage], None), budget)
    return [text[start:end] for start, end in choice.spans]


def as_upstream_writes(method: LLMLingua2, text: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The words that ``method`` keeps, detokenised chunk by chunk as upstream does it."""
    passage = Passage("1", text)
    (stored,) = method.compress([passage], None)
    (choice,) = method.select("", [passage], [stored])
    chosen = set(choice.spans)
    (chunks,) = reading.chunks([text], method.vocabulary)
    words = [reading.strings(chunk, method.vocabulary) for chunk in chunks]
    spans = iter(stored.spans)
    return "".join(
        tokenizer.convert_tokens_to_string([word for word in own if next(spans) in chosen])
        for own in words
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"rate": 0.9},
        {"rate": 0.5, "force_reserve_digit": True},
        {"rate": 0.33, "force_tokens": ["\n", ".", "the", "New"]},
        {"rate": 0.33, "force_tokens": ["\n", ".", ","], "drop_consecutive": True},
        {"rate": 0.1, "force_tokens": ["s", "of the"], "force_reserve_digit": True},
    ],
    ids=str,
)
def test_equals_upstream_string_for_string(flavour, texts, settings) -> None:
    folder, upstream = flavour
    ours = LLMLingua2(str(folder), counter=str(folder), **settings)
    repeats = "So... open, at 9,, on 12.3.\n\n\n and. Or, so,.\n\n Yes.\n"
    for text in [*texts[:4], " ".join(texts[4:24]), repeats + texts[24]]:
        asked = upstream.compress_prompt_llmlingua2([text], return_word_label=True, **settings)
        written = as_upstream_writes(ours, text, upstream.tokenizer)
        assert written == asked["compressed_prompt"]
        labels = asked["fn_labeled_original_prompt"].split("\t\t|\t\t")
        words = [label[:-2].removeprefix("##") for label in labels if label.endswith(" 1")]
        assert kept(ours, text) == words


def test_a_long_text_is_read_in_chunks_that_end_behind_a_full_stop(flavour, texts) -> None:
    folder, _ = flavour
    vocabulary = LLMLingua2(str(folder)).vocabulary
    text = " ".join(texts[:40])
    (chunks,) = reading.chunks([text], vocabulary)
    assert len(chunks) > 3
    for chunk in chunks[:-1]:
        assert len(chunk.ids) <= reading.WINDOW - 1
        assert text[chunk.spans[-1, 1] - 1] == "."
    for before, after in pairwise(chunks):
        assert not text[before.spans[-1, 1] : after.spans[0, 0]].strip()


def test_a_text_without_full_stops_loses_nothing(flavour, texts) -> None:
    folder, _ = flavour
    text = " ".join(texts).replace(".", " ")[:100_000]
    method = LLMLingua2(str(folder), rate=0.3)
    (stored,) = method.compress([Passage("1", text)], None)
    assert stored.spans[-1][1] == len(text.rstrip())
    assert all(a <= b <= c for (a, b), (c, _) in pairwise(stored.spans))
    share = sum(map(len, kept(method, text))) / len(text)
    assert 0.2 < share < 0.4


def test_upstreams_faults(flavour) -> None:
    """A rate of 1 rewrites nothing, tiny text stays, and so does text of unknown letters."""
    folder, upstream = flavour
    text = "The British-Irish  town\n(old)  ."
    assert kept(LLMLingua2(str(folder), rate=1.0), text) == [text]
    asked = upstream.compress_prompt_llmlingua2(["Hi"], rate=0.5)
    assert asked["compressed_prompt"] == ""
    assert kept(LLMLingua2(str(folder)), "to") == ["to"]
    assert kept(LLMLingua2(str(folder), rate=0.001), "the town of the sea") != []
    assert set(kept(LLMLingua2(str(folder)), "ჰჯ ჴჵ")) & {"ჰჯ ჴჵ", "ჰჯ", "ჴჵ"}


def test_text_that_reads_like_a_special_token_is_text(bert) -> None:
    (stored,) = LLMLingua2(bert).compress([Passage("1", "the [SEP] of [PAD] it")], None)
    assert [end - start for start, end in stored.spans] == [3, 1, 3, 1, 2, 1, 3, 1, 2]


def test_odd_texts_give_spans_in_order(flavour) -> None:
    folder, _ = flavour
    method = LLMLingua2(
        str(folder), force_tokens=["\n"], drop_consecutive=True, counter=str(folder)
    )
    assert len(method.compress([Passage("1", "")], None)) == 1
    passages = [Passage(str(number), text) for number, text in enumerate(ODD)]
    choices = method.select("", passages, method.compress(passages, None))
    for passage, choice in zip(passages, choices, strict=True):
        flat = [at for span in choice.spans for at in span]
        assert flat == sorted(flat)
        assert all(start < end <= len(passage.text) for start, end in choice.spans)
        assert bool(choice.spans) == bool(passage.text.strip())


def test_another_rate_takes_from_the_same_artifacts(bert, texts) -> None:
    passages = [Passage(str(number), text) for number, text in enumerate(texts[:6])]
    half, tenth = LLMLingua2(bert, rate=0.5), LLMLingua2(bert, rate=0.1)
    assert half.fingerprint == tenth.fingerprint
    stored = half.compress(passages, None)
    chosen = [method.select("", passages, stored) for method in (half, tenth)]
    for wide, narrow in zip(*chosen, strict=True):
        assert 0 < len(narrow.spans) < len(wide.spans)
        assert set(narrow.spans) < set(wide.spans)
        assert min(wide.scores) <= min(narrow.scores)


def test_a_budget_without_a_rate_sees_every_word(bert, texts) -> None:
    passage = Passage("1", texts[0])
    method = LLMLingua2(bert)
    (stored,) = method.compress([passage], None)
    (ranked,) = method.select("", [passage], [stored], budget=10)
    assert ranked.spans == stored.spans
    assert ranked.scores == tuple(stored.vectors[:, 0].tolist())
    limited = LLMLingua2(bert, rate=0.2).select("", [passage], [stored], budget=10)
    assert len(limited[0].spans) < len(stored.spans) / 3


def test_a_batch_gives_what_single_calls_give(bert, texts) -> None:
    passages = [Passage(str(number), text) for number, text in enumerate(texts[:8])]
    method = LLMLingua2(bert)
    for passage, artifact in zip(passages, method.compress(passages, None), strict=True):
        (alone,) = method.compress([passage], None)
        assert artifact.spans == alone.spans
        np.testing.assert_allclose(artifact.vectors, alone.vectors, rtol=0, atol=1e-5)
    assert method.compress([], None) == method.select("", [], []) == []


def test_artifacts_survive_the_store(bert, texts) -> None:
    method = LLMLingua2(bert, force_tokens=["\n"])
    passages = [Passage("1", texts[0]), Passage("2", "")]
    for passage, artifact in zip(passages, method.compress(passages, None), strict=True):
        key = make_key("default", method.kind, method.fingerprint, passage)
        back = decode_frame(key, bytes(encode_frame(key, artifact)))
        assert back.spans == artifact.spans
        np.testing.assert_array_equal(back.vectors, artifact.vectors)
        assert method.select("", [passage], [back]) == method.select("", [passage], [artifact])


def test_the_fingerprint_holds_what_changes_the_words(bert, folders) -> None:
    def digest(**settings) -> str:
        return LLMLingua2(bert, **settings).fingerprint.digest

    others = [
        {"force_tokens": ["\n"]},
        {"force_reserve_digit": True},
        {"counter": str(folders[FLAVOURS[1]])},
    ]
    assert len({digest(), *(digest(**other) for other in others)}) == 4
    assert digest(rate=0.2, drop_consecutive=True) == digest()
    assert LLMLingua2(str(folders[FLAVOURS[1]])).fingerprint.digest != digest()


@pytest.mark.parametrize(
    "settings",
    [{"rate": 0.0}, {"rate": 1.5}, {"force_tokens": [""]}, {"force_tokens": ["x"] * 101}],
    ids=str,
)
def test_wrong_settings_are_refused(settings) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        LLMLingua2("unused", **settings)


def _variant(folders: dict[str, Path], folder: Path, **changes) -> str:
    """The BERT flavour with another configuration."""
    source = folders[FLAVOURS[0]]
    config = BertConfig.from_pretrained(source, **changes)
    BertForTokenClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    return str(folder)


def test_three_labels_are_refused(folders, tmp_path) -> None:
    method = LLMLingua2(_variant(folders, tmp_path, num_labels=3))
    with pytest.raises(ConfigError, match="has 3 labels"):
        method.compress([Passage("1", "a")], None)


def test_a_window_that_is_too_small_is_refused(folders, tmp_path) -> None:
    method = LLMLingua2(_variant(folders, tmp_path, max_position_embeddings=128))
    with pytest.raises(UnsupportedModel, match="reads 128 tokens"):
        method.compress([Passage("1", "a")], None)


def test_a_force_token_without_an_embedding_is_refused(folders, tmp_path, bert) -> None:
    plain = _variant(folders, tmp_path, vocab_size=bert.embeddings - 100)
    LLMLingua2(plain, force_tokens=["."]).compress([Passage("1", "a.")], None)
    with pytest.raises(ConfigError, match=r"force token '\\n'"):
        LLMLingua2(plain, force_tokens=["\n"]).compress([Passage("1", "a")], None)


def test_a_model_without_a_classifier_is_refused(folders, tmp_path) -> None:
    source = folders[FLAVOURS[0]]
    BertForTokenClassification.from_pretrained(source).bert.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    with pytest.raises(ConfigError, match="no token classifier"):
        load_token_classifier(str(tmp_path))


def test_pickle_weights_are_refused(folders, tmp_path) -> None:
    source = folders[FLAVOURS[0]]
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="Pickle weights"):
        load_token_classifier(str(tmp_path))
