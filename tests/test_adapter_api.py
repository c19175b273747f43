"""Helpers of `vectoracl.adapter_api` for authors of adapters."""

from __future__ import annotations

import sqlite3
import time

import numpy as np
import pytest

from vectoracl import F
from vectoracl.adapter_api import (
    ALWAYS,
    NEVER,
    ChunkRef,
    Count,
    Delete,
    Eq,
    Facets,
    Fetch,
    Record,
    Replace,
    Scan,
    Search,
    Tag,
    Upsert,
    VectorQuery,
    interrupted_after,
    selected_by,
)

WHERE = F.year >= 2020
REFS = (ChunkRef("c1"), ChunkRef("c2", "d2"))
RECORDS = (Record(Tag("acme", "d1", "c1"), "", np.ones(2, np.float32), {}),)
QUERY = VectorQuery(np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("operation", "selector"),
    [
        (Search("acme", ALWAYS, WHERE, QUERY, 3, frozenset()), WHERE),
        (Count("acme", ALWAYS, WHERE), WHERE),
        (Facets("acme", ALWAYS, WHERE, "year"), WHERE),
        (Scan("acme", ALWAYS, WHERE, 10, None, frozenset()), WHERE),
        (Fetch("acme", ALWAYS, REFS, frozenset()), REFS),
        (Upsert("acme", ALWAYS, RECORDS), (ChunkRef("c1", "d1"),)),
        (Replace("acme", ALWAYS, "d1", RECORDS), Eq("@document", "d1")),
        (Delete("acme", ALWAYS, refs=REFS), REFS),
        (Delete("acme", ALWAYS, document="d1"), Eq("@document", "d1")),
        (Delete("acme", ALWAYS, where=WHERE), WHERE),
        # What no handle makes selects nothing: an empty selector never means everything.
        (Delete("acme", ALWAYS), NEVER),
        (Delete("acme", ALWAYS, refs=(), where=ALWAYS), NEVER),
        (Delete("acme", ALWAYS, refs=()), ()),
    ],
)
def test_the_selector_of_an_operation(operation, selector):
    assert selected_by(operation) == selector


def test_a_statement_is_interrupted_when_the_time_is_up():
    database = sqlite3.connect(":memory:", check_same_thread=False)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with interrupted_after(0.05, database.interrupt) as late, pytest.raises(sqlite3.OperationalError):
        database.execute(endless).fetchone()
    assert late.is_set()


@pytest.mark.parametrize("timeout", [None, 0.05])
def test_nothing_is_interrupted_after_the_block(timeout):
    calls = []
    with interrupted_after(timeout, lambda: calls.append(1)) as late:
        assert not late.is_set()
    time.sleep(0.1)
    assert calls == []
    assert not late.is_set()


def test_the_time_that_was_up_before_the_block_ended_is_reported():
    with interrupted_after(0, lambda: None) as late:
        assert late.wait(10)


def test_an_error_of_the_block_comes_through():
    with pytest.raises(ZeroDivisionError), interrupted_after(None, lambda: None):
        raise ZeroDivisionError
