"""The built wheel holds the whole tree and works without the checkout."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parent.parent
ADAPTERS = ("cache_store", "compressors", "retrievers")
BUILD_NEEDS = ("pyproject.toml", "README.md", "LICENSE", "ragpack", *ADAPTERS)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources as a system without links has them: none in ragpack/."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in BUILD_NEEDS:
        source = ROOT / name
        if source.is_file():
            shutil.copy(source, copy)
        else:
            shutil.copytree(source, copy / name, ignore=_links_and_caches)
    return copy


def _links_and_caches(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__" or (Path(folder) / name).is_symlink()}


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*build, str(checkout)], check=True, capture_output=True, timeout=300)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, timeout=300)
    return target


def _tree() -> set[str]:
    """Every file of the library, as its wheel names it; the links in ragpack/ are not followed."""
    found = set()
    for folder in ("ragpack", *ADAPTERS):
        top = Path("ragpack") if folder == "ragpack" else Path("ragpack") / folder
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            linked = folder == "ragpack" and inside.parts[0] in ADAPTERS
            if path.is_file() and not linked and "__pycache__" not in inside.parts:
                found.add((top / inside).as_posix())
    return found


def test_the_wheel_holds_exactly_the_files_of_the_tree(wheel):
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert sorted(_tree() - held) == [], "list the package or its data in pyproject.toml"
    assert sorted(held - _tree()) == []


def test_the_wheel_carries_the_licence(wheel):
    names = ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def _python(code: str, installed: Path, cwd: Path) -> str:
    """Run ``code`` where only the installed wheel is ragpack."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOAD_EVERYTHING = """
import importlib, pkgutil, ragpack

for module in pkgutil.walk_packages(ragpack.__path__, "ragpack."):
    if not module.name.endswith("__main__"):
        print(module.name, importlib.import_module(module.name).__file__)
"""


def test_every_module_imports_from_the_wheel(installed, tmp_path):
    lines = _python(LOAD_EVERYTHING, installed, tmp_path).splitlines()
    loaded = dict(line.split(" ", 1) for line in lines)
    assert all(Path(file).is_relative_to(installed) for file in loaded.values())
    files = [Path(name) for name in _tree() if name.endswith(".py") and "__main__" not in name]
    modules = {".".join(file.with_suffix("").parts) for file in files}
    importable = {name.removesuffix(".__init__") for name in modules}
    assert set(loaded) | {"ragpack"} == importable


def test_every_entry_point_loads_from_the_wheel(installed, tmp_path):
    (metadata,) = installed.glob("ragpack_middleware-*.dist-info")
    points = PathDistribution(metadata).entry_points
    assert {point.group for point in points} >= {"ragpack.compressors", "ragpack.cache_stores"}
    values = [point.value for point in points]
    code = (
        "from importlib.metadata import EntryPoint\n"
        f"for value in {values!r}:\n"
        "    print(EntryPoint('x', value, 'y').load().__module__)\n"
    )
    assert len(_python(code, installed, tmp_path).splitlines()) == len(values)


PACK = """
import ragpack
from ragpack import ContextPacker, Passage

packer = ContextPacker("identity", store="memory://")
packed = packer.pack("Who built it?", [Passage(id="p1", text="Ada built it.")])
print(ragpack.__file__)
print(packed.text)
"""


def test_a_context_is_packed_without_the_checkout(installed, tmp_path):
    file, text = _python(PACK, installed, tmp_path).splitlines()
    assert Path(file).is_relative_to(installed)
    assert text == "Ada built it."
