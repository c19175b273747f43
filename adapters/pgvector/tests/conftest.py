"""Makes `support/` importable as `pgvector_support`: under --import-mode=importlib no folder is on `sys.path`."""

from __future__ import annotations

import os
import signal
import sys
import tempfile

import pytest

# A job in the background ignores Ctrl-C, and its children inherit that; tests of Ctrl-C send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests keep no posture in the home of whoever runs them, and none of an earlier run is found.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="vectoracl-state-")

from vectoracl_conformance.adapter_tests.support import add_rewrite_option, load_support

if "pgvector_support" not in sys.modules:
    load_support("pgvector_support", __file__)

from pgvector_support.fixtures import database, pgbouncer, server
from pgvector_support.stores import provisioned, store
from pgvector_support.textsearch import textsearch, word_stores

__all__ = ["database", "pgbouncer", "provisioned", "server", "store", "textsearch", "word_stores"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of test_golden.py; another adapter's tests of the same run may have added it."""
    add_rewrite_option(parser)
