"""The house of docs/architecture.md, held up by tests."""

import ast
import functools
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ADAPTERS = ("cache_store", "compressors", "retrievers")

# Top to bottom; a module imports from its own floor and from those below it.
FLOORS = (
    {"", "bench", "cli", "client", "index", "service", "train"},
    {"account", "cache", "deadline", "flight", "handoff", "pipeline", "planner", "reader"}
    | {"selection"},
    {"budget", "codec", "corpus", "kv", "models", "ranking", "registry", "sentences"}
    | {"soft", "tracing"},
    {"keys", "protocols"},
    {"config", "digest", "errors", "report", "text", "types"},
)
ADAPTERS_MAY_IMPORT = (
    FLOORS[3] | FLOORS[4] | {"codec", "kv", "models", "ranking", "sentences", "soft", "tracing"}
)

HEAVY = {"faiss", "langchain_core", "numpy", "redis", "torch", "transformers", "typer"}
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
FORBIDDEN_CALLS = {"__import__", "eval", "exec", "print", "torch.load"}


def _module_files() -> dict[str, Path]:
    """Every module of the library, by name; the links in ragpack/ are not followed."""
    found = {}
    for folder in ("ragpack", *ADAPTERS):
        package = folder if folder == "ragpack" else f"ragpack.{folder}"
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT / folder)
            if not (folder == "ragpack" and inside.parts[0] in ADAPTERS):
                parts = inside.with_suffix("").parts
                found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


MODULES = _module_files()
NAMES = sorted(MODULES)


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def _package(module: str) -> str:
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def _targets(module: str, node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = _package(module).split(".")[: -(node.level - 1) or None] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            yield inner if inner in MODULES else base


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _imports(module: str, *, with_type_checking: bool) -> set[str]:
    found: set[str] = set()
    todo: list[ast.AST] = [_tree(module)]
    while todo:
        node = todo.pop()
        found.update(_targets(module, node))
        if with_type_checking or not _is_type_checking(node):
            todo.extend(ast.iter_child_nodes(node))
    return found


def _room(module: str) -> str:
    """The part of the house a module is in: "codec" for ragpack.codec.frame, "" for ragpack."""
    return module.split(".")[1] if "." in module else ""


def _ours(module: str) -> set[str]:
    return {m for m in _imports(module, with_type_checking=True) if m.split(".")[0] == "ragpack"}


@pytest.mark.parametrize("module", [m for m in NAMES if _room(m) not in ADAPTERS])
def test_floors_and_no_static_import_of_an_adapter(module):
    level = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    assert _room(module) in level, "a new part of ragpack/ must be given a floor in FLOORS"
    for target in _ours(module):
        assert _room(target) not in ADAPTERS, f"{target}: adapters load by entry point only"
        assert level[_room(target)] >= level[_room(module)], f"{target} is on a higher floor"


@pytest.mark.parametrize("module", [m for m in NAMES if _room(m) in ADAPTERS])
def test_an_adapter_imports_its_own_package_and_the_allowed_rooms(module):
    for target in _ours(module):
        assert _room(target) in ADAPTERS_MAY_IMPORT | {_room(module)}, target


def test_no_circles():
    graph = {m: _imports(m, with_type_checking=False) & set(MODULES) for m in MODULES}
    assert list(TopologicalSorter(graph).static_order())  # CycleError names the circle


def _run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("folder", ADAPTERS)
def test_an_adapter_folder_refuses_its_bare_name(folder):
    refused = _run(f"import {folder}", ROOT)
    assert refused.returncode == 1
    assert f"ImportError: import ragpack.{folder}, not {folder}" in refused.stderr
    assert _run(f"import ragpack.{folder}", ROOT).returncode == 0


def test_import_ragpack_is_light(tmp_path):
    done = _run("import json, sys, ragpack; print(json.dumps(list(sys.modules)))", tmp_path)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "ragpack" in loaded
    assert not loaded & HEAVY


def _public_names(module: str) -> set[str]:
    """Functions and classes at the top level of a module without a leading underscore."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    names = {node.name for node in _tree(module).body if isinstance(node, kinds)}
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("module", [m for m in NAMES if not m.endswith("__main__")])
def test_all_lists_what_the_module_offers(module):
    imported = importlib.import_module(module)
    offered = getattr(imported, "__all__", [])
    assert len(set(offered)) == len(offered)
    assert [name for name in offered if not hasattr(imported, name)] == []
    assert _public_names(module) - set(offered) == set(), "missing in __all__, or give them a _"


@pytest.mark.parametrize("module", NAMES)
def test_no_pickle_no_eval_no_print(module):
    roots = {name.split(".")[0] for name in _imports(module, with_type_checking=True)}
    assert not roots & PICKLES
    calls = [node for node in ast.walk(_tree(module)) if isinstance(node, ast.Call)]
    assert not {ast.unparse(call.func) for call in calls} & FORBIDDEN_CALLS
    settings = {f"{k.arg}={ast.unparse(k.value)}" for call in calls for k in call.keywords}
    assert not settings & {"trust_remote_code=True", "allow_pickle=True", "weights_only=False"}


SOURCES = [*MODULES.values(), *(ROOT / "benchmarks").rglob("*.py"), *ROOT.glob("examples/**/*.py")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300
