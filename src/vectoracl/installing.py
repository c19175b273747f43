"""How a missing package is installed: said in one place, since it depends on where vectoracl itself came from."""

from __future__ import annotations

import json
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

# Nothing of ours is on a package index yet: a line that names it there would install what a stranger registers.
_PARTS = {
    "vectoracl-pgvector": "adapters/pgvector",
    "vectoracl-qdrant": "adapters/qdrant",
    "vectoracl-weaviate": "adapters/weaviate",
    "vectoracl-pinecone": "adapters/pinecone",
    "vectoracl-conformance": "conformance",
}
OURS = frozenset({"vectoracl", *_PARTS})


def checkout() -> Path | None:
    """Return the folder of the checkout that vectoracl runs from, None where it was installed from a wheel."""
    try:
        found = distribution("vectoracl")
    except PackageNotFoundError:
        return None
    root = _direct(found)
    if root is not None and all((root / part / "pyproject.toml").is_file() for part in _PARTS.values()):
        return root
    return None


def _direct(found: Distribution) -> Path | None:
    """Return the folder that the distribution was installed from, by its `direct_url.json` (PEP 610)."""
    try:
        url = urlparse(json.loads(found.read_text("direct_url.json") or "{}").get("url", ""))
    except (ValueError, AttributeError):
        return None
    return Path(unquote(url.path)) if url.scheme == "file" else None


def cure(package: str, extra: str = "") -> str:
    """Return how to install *package*, one of ours, with *extra*: a line for a checkout, or where wheels come from.

    An adapter's own extra, such as `embedded`, is passed as `cure("vectoracl-pgvector", "embedded")`.
    """
    bracket = f"[{extra}]" if extra else ""
    root = checkout()
    if root is not None:
        where = root / _PARTS.get(package, "")
        return f'pip install -e "{where}{bracket}" (in a project of uv: uv sync --all-packages --all-extras)'
    wheel = f"{package.replace('-', '_')}-….whl"
    return (
        f'pip install "./{wheel}{bracket}", a wheel that you build in a checkout of vectoracl with '
        "`uv build --all-packages` (the packages are not published yet)"
    )
