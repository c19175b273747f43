"""Makes `support/` importable as `weaviate_support`: under --import-mode=importlib no folder is on `sys.path`."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from pathlib import Path

if "weaviate_support" not in sys.modules:
    _folder = Path(__file__).parent / "support"
    _spec = importlib.util.spec_from_file_location(
        "weaviate_support", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None
    assert _spec.loader is not None
    _package = importlib.util.module_from_spec(_spec)
    sys.modules["weaviate_support"] = _package
    _spec.loader.exec_module(_package)

from weaviate_support.stores import keyed_server, keyed_store, own_server, server, store, stores

__all__ = ["keyed_server", "keyed_store", "own_server", "server", "store", "stores"]


def pytest_addoption(parser):
    with contextlib.suppress(ValueError):  # another adapter of the same run has added it
        parser.addoption("--rewrite-golden", action="store_true", help="write the golden requests of the adapter")
