import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ragpack.errors import ConfigError, MissingExtraError
from ragpack.models import (
    TokenizerCounter,
    checkpoint,
    checkpoint_folder,
    load_causal_lm,
    load_token_counter,
    resolve,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path))
    return tmp_path


def test_the_converted_model_is_the_same_model(tiny_gguf: Path, home: Path) -> None:
    ours, tokenizer = load_causal_lm(str(tiny_gguf), device="cpu")
    where = {"gguf_file": tiny_gguf.name}
    direct = AutoModelForCausalLM.from_pretrained(tiny_gguf.parent, dtype=torch.float32, **where)
    theirs = AutoTokenizer.from_pretrained(tiny_gguf.parent, **where)
    ids = tokenizer("the other <|im_end|> 文", return_tensors="pt")["input_ids"]
    assert torch.equal(ids, theirs("the other <|im_end|> 文", return_tensors="pt")["input_ids"])
    assert tokenizer.chat_template == theirs.chat_template
    greedy = {"max_new_tokens": 20, "do_sample": False}
    assert torch.equal(ours.generate(ids, **greedy), direct.generate(ids, **greedy))


def test_conversion_happens_once_and_says_so(
    tiny_gguf: Path, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ragpack")
    folder = checkpoint_folder(resolve(str(tiny_gguf)))
    assert folder.parent == home / "models"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        file.name for file in folder.iterdir()
    }
    assert isinstance(load_token_counter(str(tiny_gguf)), TokenizerCounter)
    said = [(record.levelname, record.message.split()[0]) for record in caplog.records]
    assert said == [("INFO", "converting"), ("WARNING", "converting"), ("INFO", "converted")]


def test_counting_tokens_converts_the_tokenizer_alone(tiny_gguf: Path, home: Path) -> None:
    count = load_token_counter(str(tiny_gguf)).count
    assert list(home.rglob("*.safetensors")) == []
    assert len(list((home / "models").glob("*/tokenizer.json"))) == 1
    texts = ["the other", "the <|im_end|> 文", ""]
    before = count(texts)
    folder = checkpoint_folder(resolve(str(tiny_gguf)))
    assert load_token_counter(str(folder)).count(texts) == before


def test_leftovers_of_a_killed_conversion_do_no_harm(tiny_gguf: Path, home: Path) -> None:
    folder = checkpoint_folder(resolve(str(tiny_gguf)))
    whole = {file.name for file in folder.iterdir()}
    partial = folder.rename(folder.with_name(f"{folder.name}.partial"))
    (partial / "rubbish").touch()
    again = checkpoint_folder(resolve(str(tiny_gguf)))
    assert {file.name for file in again.iterdir()} == whole
    assert not partial.exists()


def test_two_processes_convert_at_once(tiny_gguf: Path, home: Path) -> None:
    code = (
        "import sys, logging; logging.basicConfig(level='INFO')\n"
        "from ragpack.models import checkpoint_folder, resolve\n"
        "print(checkpoint_folder(resolve(sys.argv[1])))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tiny_gguf)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    talk = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], talk
    assert talk[0][0] == talk[1][0] == f"{checkpoint_folder(resolve(str(tiny_gguf)))}\n"
    assert sum("converted tiny.gguf" in errors for _, errors in talk) == 1


def test_a_home_that_cannot_be_written_is_a_config_error(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="Set RAGPACK_HOME to a folder with room"):
        checkpoint_folder(resolve(str(tiny_gguf)))


def test_without_the_reader_the_message_has_the_command(
    tiny_gguf: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'ragpack-middleware\[demo\]'"):
        checkpoint_folder(resolve(str(tiny_gguf)))
