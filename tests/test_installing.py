"""Nobody is told to install a name of ours from an index: it is not published, so it would be a stranger's."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from vectoracl._util import install_hints
from vectoracl.adapter_api import loading
from vectoracl.errors import AdapterNotFoundError

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"""(?:pip3?|uv|pipx|uvx)\s+(?:pip\s+)?(?:install|add|sync|tool install|run --with)\b[^`\n&]*""")
OURS = re.compile(r"(?<![\w./-])vectoracl(?:-[a-z]+)*(?![\w/.-]|\.whl)")


def test_no_line_anywhere_installs_one_of_ours_by_name():
    tops = ("src", "adapters", "conformance", "docs", "examples", "README.md", "SECURITY.md", "mkdocs.yml")
    files = [path for top in tops for path in ((ROOT / top).rglob("*") if (ROOT / top).is_dir() else [ROOT / top])]
    found = []
    for path in files:
        if path.suffix in (".py", ".md", ".toml", ".yml") and "tests" not in path.parts and path.is_file():
            for line in LINE.findall(path.read_text(encoding="utf-8")):
                if OURS.search(line):
                    found.append(f"{path.relative_to(ROOT)}: {line}")
    assert found == []


@pytest.mark.parametrize("package", sorted(install_hints.FOLDERS))
def test_in_a_checkout_the_line_names_its_folder(package):
    root = install_hints.checkout()
    if root is None:
        pytest.skip("installed from a wheel")
    line = install_hints.line(package)
    folder = Path(line.split('"')[1])
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] == package
    assert line in install_hints.cure(package)


@pytest.mark.parametrize(
    "direct",
    [None, "{", "[]", "{}", '{"url": "file:///x/vectoracl-0.1.0-py3-none-any.whl"}', '{"url": "https://x/y"}',
     '{"url": "file:///nowhere"}'],
)  # fmt: skip
def test_from_a_wheel_the_line_names_a_wheel(monkeypatch, direct):
    class Found:
        def read_text(self, _):
            return direct

    monkeypatch.setattr(install_hints, "distribution", lambda _: Found())
    assert install_hints.checkout() is None
    for package in install_hints.FOLDERS:
        assert re.search(r"pip install \./[a-z_]+-0\.1\.0-py3-none-any\.whl", install_hints.cure(package))


def test_a_missing_adapter_of_ours_has_a_line_and_a_strangers_has_none(monkeypatch):
    monkeypatch.setattr(loading, "entry_points", lambda **_: ())
    for adapter in ("pgvector", "qdrant", "weaviate", "pinecone"):
        with pytest.raises(AdapterNotFoundError) as caught:
            loading.load(adapter)
        assert caught.value.install in str(caught.value)
        assert not OURS.search(caught.value.install)
    with pytest.raises(AdapterNotFoundError) as caught:
        loading.load("milvus")
    assert (caught.value.install, "pip" in str(caught.value)) == ("", False)
