"""Hints on how to install vectoracl's own distributions, which are not on a package index yet.

A command that names one on an index would install whatever a stranger registers under that name.
"""

from __future__ import annotations

import contextlib
import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

FOLDERS = {
    "vectoracl-pgvector": "adapters/pgvector",
    "vectoracl-qdrant": "adapters/qdrant",
    "vectoracl-weaviate": "adapters/weaviate",
    "vectoracl-pinecone": "adapters/pinecone",
    "vectoracl-conformance": "conformance",
}


def checkout() -> Path | None:
    """Return the folder of the checkout that vectoracl was installed from; None if it came from a wheel."""
    place = None
    with contextlib.suppress(PackageNotFoundError, ValueError, AttributeError):
        # PEP 610
        url = urlparse(json.loads(distribution("vectoracl").read_text("direct_url.json") or "{}").get("url", ""))
        if url.scheme == "file" and re.search(r"\.(whl|tar\.gz)$", url.path) is None:
            place = Path(unquote(url.path))
    if place is not None and all((place / folder / "pyproject.toml").is_file() for folder in FOLDERS.values()):
        return place
    return None


def line(package: str) -> str:
    """Return the command that installs *package*, a distribution of vectoracl."""
    root = checkout()
    if root is not None:
        return f'pip install -e "{root / FOLDERS[package]}"'
    return f"pip install ./{package.replace('-', '_')}-0.1.0-py3-none-any.whl"


def cure(package: str) -> str:
    """Return the hint for a missing *package*, a distribution of vectoracl."""
    if checkout() is not None:
        return f"{line(package)} (with uv, in the checkout: uv sync)"
    return f"{line(package)}, a wheel that `uv build --all-packages` builds in a checkout of vectoracl"
