"""Makes `support/` importable as `weaviate_support`: under --import-mode=importlib no folder is on `sys.path`."""

from __future__ import annotations

import sys

from vectoracl_conformance.adapter_tests.support import add_rewrite_option, load_support

if "weaviate_support" not in sys.modules:
    load_support("weaviate_support", __file__)

from weaviate_support.stores import keyed_server, keyed_store, own_server, server, store, stores

__all__ = ["keyed_server", "keyed_store", "own_server", "server", "store", "stores"]


def pytest_addoption(parser):
    add_rewrite_option(parser)
