"""The README says what is so: its example prints what it shows, its tables are complete."""

import re
from pathlib import Path

import pytest

from ragpack import config, registry

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def _first_column(heading: str) -> set[str]:
    """The code words in the first column of the table under a heading."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))


def test_the_example_prints_what_the_readme_shows(capsys):
    blocks = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
    assert blocks
    code, shown = blocks.groups()
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == shown


def test_every_method_has_its_row():
    assert _first_column("Methods") == set(registry.names("compressors"))


def test_every_store_has_its_row():
    schemes = {url.partition("://")[0] for url in _first_column("Stores")}
    assert schemes == set(registry.names("cache_stores"))


def test_the_environment_table_is_that_of_the_code():
    documented = set(re.findall(r"RAGPACK_[A-Z_]+", config.__doc__ or ""))
    read = set(re.findall(r'"(RAGPACK_[A-Z_]+)"', Path(config.__file__).read_text("utf-8")))
    assert _first_column("Environment") == documented == read


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
