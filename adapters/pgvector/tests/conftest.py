"""Makes `support/` importable as `pgvector_support`: under --import-mode=importlib no folder is on `sys.path`."""

from __future__ import annotations

import importlib.util
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

# A job in the background ignores Ctrl-C, and its children inherit that; tests of Ctrl-C send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "pgvector_support" not in sys.modules:
    _folder = Path(__file__).parent / "support"
    _spec = importlib.util.spec_from_file_location(
        "pgvector_support", _folder / "__init__.py", submodule_search_locations=[str(_folder)]
    )
    assert _spec is not None
    assert _spec.loader is not None
    _package = importlib.util.module_from_spec(_spec)
    sys.modules["pgvector_support"] = _package
    _spec.loader.exec_module(_package)

from pgvector_support.fixtures import database, pgbouncer, server
from pgvector_support.stores import provisioned, store

__all__ = ["database", "pgbouncer", "provisioned", "server", "store"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of test_golden.py; another adapter's tests of the same run may have added it."""
    with suppress(ValueError):
        parser.addoption("--rewrite-golden", action="store_true", help="write the golden requests of the adapter")
