"""What goes past the PgBouncer of the harness is counted; `nox -s "conformance(pgvector-pgbouncer)"` certifies it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from vectoracl_conformance.context.corpus import DIMENSION, FIELDS
from vectoracl_conformance.harness import Needs
from vectoracl_pgvector.conformance.pgbouncer import PooledHarness

from pgvector_support.pgbouncer import binary

pytestmark = pytest.mark.server


@pytest.fixture
def harness(server: Any) -> Iterator[PooledHarness]:
    binary()  # not run, and said so, where there is none
    made = PooledHarness()
    yield made
    made.close()


def test_clients_of_the_pooler_and_sessions_past_it_are_counted(harness: PooledHarness) -> None:
    store: Any = harness.fresh(Needs(DIMENSION, FIELDS))
    try:
        count = store.wire().served
        before = count()
        for _ in range(3):  # on the same connection of the server
            with psycopg.connect(store.config["dsn"], prepare_threshold=None) as client:
                client.execute("SELECT 1")
        assert count() - before == 3
        with store.superuser() as past:
            past.execute("SELECT 1")
        assert count() - before == 4
    finally:
        store.close()


def test_where_it_is_missing_nothing_was_measured(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *a, **k: None if name == "pgbouncer" else found(name, *a, **k))
    harness = PooledHarness()
    try:
        with pytest.raises(Exception, match="apt-get install pgbouncer"):
            harness.server()
    finally:
        harness.close()
