"""A folder `support/` of tests as a package: under --import-mode=importlib no folder is on `sys.path`."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

import pytest


def load_support(name: str, conftest: str) -> None:
    """Import the folder `support/` next to *conftest*, its `__file__`, as the package *name*."""
    folder = Path(conftest).parent / "support"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    spec.loader.exec_module(package)


def add_rewrite_option(parser: pytest.Parser) -> None:
    """Add --rewrite-golden, unless another adapter of the same run has added it."""
    with contextlib.suppress(ValueError):
        parser.addoption("--rewrite-golden", action="store_true", help="write the golden requests of the adapter")
