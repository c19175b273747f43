"""Makes `support/` importable as `pinecone_support`: under --import-mode=importlib no folder is on `sys.path`."""

from __future__ import annotations

import sys

from vectoracl_conformance.adapter_tests.support import add_rewrite_option, load_support

if "pinecone_support" not in sys.modules:
    load_support("pinecone_support", __file__)

from pinecone_support.stores import needle, store

__all__ = ["needle", "store"]


def pytest_addoption(parser):
    add_rewrite_option(parser)
