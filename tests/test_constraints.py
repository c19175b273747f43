"""`constraints.txt` pins what CI installs: plain versions without addresses, one for every declared dependency."""

from __future__ import annotations

import re
import tomllib
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LINES = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
DISTRIBUTIONS = [ROOT, ROOT / "conformance", *sorted((ROOT / "adapters").iterdir())]
INSTALLED_EXTRAS = {"embedded", "hypothesis"}
INSTALLED_GROUPS = ("dev", "test", "lint", "docs", "audit", "pinned")
PLATFORMS = list(product(("3.11", "3.12", "3.13", "3.14"), ("linux", "darwin", "win32")))


def declared() -> list[Requirement]:
    """Return what the distributions and the groups of dependencies that CI installs declare."""
    texts: list[str] = []
    for folder in DISTRIBUTIONS:
        tables = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        project = tables["project"]
        texts += project["dependencies"]
        for extra, names in project.get("optional-dependencies", {}).items():
            texts += names if extra in INSTALLED_EXTRAS else []
        groups = tables.get("dependency-groups", {})
        texts += [one for name in INSTALLED_GROUPS for one in groups.get(name, []) if isinstance(one, str)]
    return [one for one in map(Requirement, texts) if not one.name.startswith("vectoracl")]


def environment(python: str, platform: str) -> dict[str, str]:
    system = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[platform]
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": platform,
        "platform_system": system,
        "os_name": "nt" if platform == "win32" else "posix",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def applies(pin: Requirement, where: dict[str, str]) -> bool:
    return pin.marker is None or pin.marker.evaluate(where)


def test_each_line_is_a_name_and_one_version_without_addresses_options_and_hashes():
    assert [one for one in LINES if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.+!]*( ; [^@:]+)?", one)] == []
    assert len(LINES) > 50


@pytest.mark.parametrize(("python", "platform"), PLATFORMS)
def test_every_declared_dependency_has_one_version_that_fits(python, platform):
    where = environment(python, platform)
    versions: dict[str, list[str]] = {}
    for pin in map(Requirement, LINES):
        if applies(pin, where):
            versions.setdefault(pin.name, []).append(next(iter(pin.specifier)).version)
    assert {name: found for name, found in versions.items() if len(found) != 1} == {}
    wrong = [
        f"{one} but constraints.txt has {versions.get(canonicalize_name(one.name))}: run nox -s constraints"
        for one in declared()
        if applies(one, where) and not one.specifier.contains(versions.get(canonicalize_name(one.name), ["0"])[0])
    ]
    assert wrong == []
