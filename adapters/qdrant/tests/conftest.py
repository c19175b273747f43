"""Makes `support/` importable as `qdrant_support`: under --import-mode=importlib no folder is on `sys.path`."""

from __future__ import annotations

import sys

from vectoracl_conformance.adapter_tests.support import add_rewrite_option, load_support

if "qdrant_support" not in sys.modules:
    load_support("qdrant_support", __file__)

from qdrant_support.stores import provisioned, store

__all__ = ["provisioned", "store"]


def pytest_addoption(parser):
    add_rewrite_option(parser)
