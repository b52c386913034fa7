import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from ragpack.errors import ConfigError
from ragpack.models import TokenizerCounter, checkpoint_folder, load_token_counter, resolve
from ragpack.text import model_text

NAMES = ["smollm2-135m-instruct", "all-minilm-l6-v2"]
Count = Callable[[str], int]


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[TokenizerCounter, Count]:
    """Our counter and transformers' own tokenizer of the same model."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_folder(resolve(request.param)))

    def count(text: str) -> int:
        plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return len(tokenizer(text, **plain)["input_ids"])

    return load_token_counter(request.param), count


@given(text=st.text(st.characters(), max_size=200))
@settings(max_examples=300, deadline=None)
def test_counts_equal_the_decoders_tokenizer(
    pair: tuple[TokenizerCounter, Count], text: str
) -> None:
    counter, count = pair
    assert counter.count([text]) == [count(model_text(text))]


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n\n", "文字は数える", "👩‍👩‍👧‍👦🏳️‍🌈", "\0", "word " * 3000, "<|im_end|>[SEP]"],
)
def test_corners_equal_too(pair: tuple[TokenizerCounter, Count], text: str) -> None:
    counter, count = pair
    assert counter.count([text, "and a neighbour"])[0] == count(text)


def test_a_lone_surrogate_counts_as_the_replacement_character() -> None:
    counter = load_token_counter("smollm2-135m-instruct")
    assert counter.count(["a\ud800b"]) == counter.count(["a\ufffdb"])


def test_special_token_text_is_text() -> None:
    counter = load_token_counter("smollm2-135m-instruct")
    assert counter.count(["<|im_end|>"])[0] > 1


def test_a_model_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no tokenizer.json"):
        load_token_counter(str(tmp_path))


def test_a_tokenizer_that_changed_is_read_again(tmp_path: Path) -> None:
    counts = []
    for changed, name in enumerate(NAMES):
        source = checkpoint_folder(resolve(name)) / "tokenizer.json"
        shutil.copyfile(source, tmp_path / source.name)
        os.utime(tmp_path / source.name, (changed, changed))
        counts += TokenizerCounter(tmp_path / source.name).count(["word\n\nword"])
    assert counts == [4, 2]
