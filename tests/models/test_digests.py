import json
import os
import shutil
from pathlib import Path

import pytest

from ragpack.errors import ConfigError
from ragpack.models import tokenizer_digest, weights_digest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def copy(plain_bert: Path, tmp_path: Path, home: Path) -> Path:
    return Path(shutil.copytree(plain_bert, tmp_path / "other-name"))


def test_digest_is_of_the_content_not_of_the_place(plain_bert: Path, copy: Path) -> None:
    assert weights_digest(copy) == weights_digest(plain_bert)
    assert tokenizer_digest(copy) == tokenizer_digest(plain_bert)


def test_one_flipped_bit_changes_the_digest(copy: Path) -> None:
    before = weights_digest(copy)
    file = copy / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(0, 1))  # a clock too coarse to see two writes must not fool this test
    assert weights_digest(copy) != before


def test_configuration_counts_but_not_the_version_that_wrote_it(copy: Path) -> None:
    before = weights_digest(copy)
    file = copy / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"transformers_version": "0"}))
    assert weights_digest(copy) == before
    file.write_text(json.dumps(config | {"hidden_act": "relu"}))
    assert weights_digest(copy) != before


def test_a_second_digest_does_not_read_the_file(copy: Path, home: Path) -> None:
    weights_digest(copy)
    remembered = list((home / "digests").iterdir())
    assert len(remembered) == 1
    remembered[0].write_text("remembered")
    other = weights_digest(copy)
    remembered[0].unlink()
    assert weights_digest(copy) != other


def test_a_home_that_cannot_be_written_costs_only_time(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = weights_digest(copy)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAGPACK_HOME", str(tmp_path / "file"))
    assert weights_digest(copy) == expected


def test_pickle_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"Pickle weights .* refused; convert them once"):
        weights_digest(copy)


def test_vocabulary_files_stand_in_for_a_missing_tokenizer_json(copy: Path) -> None:
    whole = tokenizer_digest(copy)
    (copy / "tokenizer.json").rename(copy / "vocab.txt")
    assert tokenizer_digest(copy) != whole
    (copy / "vocab.txt").unlink()
    with pytest.raises(ConfigError, match="holds no tokenizer"):
        tokenizer_digest(copy)
