"""Every package that pyproject.toml asks for has an exact version in constraints.txt."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent


def test_every_requirement_is_pinned_to_a_version_it_allows():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {}
    for pin in pins:
        assert re.fullmatch(r"==[^*,]+", str(pin.specifier)), f"{pin} is not exact"
        versions[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    groups = project["dependency-groups"].values()
    for wanted in (project["project"]["dependencies"], *extras, *groups):
        for requirement in map(Requirement, wanted):
            version = versions.get(canonicalize_name(requirement.name))
            assert version, f"{requirement.name} has no line in constraints.txt"
            assert requirement.specifier.contains(version), f"{requirement} excludes {version}"
