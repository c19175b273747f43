"""The choice of the way of a search by words, driven without a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vectoracl import Lexical
from vectoracl.adapter_api.operations import Found, Search
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS, Eq
from vectoracl_pgvector.adapter import PgvectorAdapter
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.word_index import FIND


def search(*, k: int = 10, **changes: Any) -> Search:
    return replace(Search("acme", ALWAYS, ALWAYS, Lexical("w1"), k, frozenset()), **changes)


FOUND = ("public", "1.0.0", True, False)
ROW = (False, "acme", "d", 0, "c", "l", 0, 0.0, "", "", 0.0, 0, None, None, None, -1.0)


def answers(adapter: PgvectorAdapter, operation: Search, *replies: Any) -> tuple[Found, list[str]]:
    """Drive the flow with *replies*, of which an error is thrown in; return its result and the ways of its requests."""
    flow, ways = adapter.search(operation), []
    step: Any = next(flow)
    for reply in replies:
        sql = step.statements[0].sql
        names = {"find": FIND}
        ways.append(next((name for name, text in names.items() if sql == text), way_of(sql)))
        try:
            step = flow.throw(reply) if isinstance(reply, Exception) else flow.send((reply,))
        except StopIteration as stop:
            return stop.value, ways
    raise AssertionError("the flow asks for more")


def way_of(sql: str) -> str:
    if "tenant_rows" in sql:
        return "linear"
    return "by_index" if "leg_distance < 0" in sql else "filtered"


def fresh() -> PgvectorAdapter:
    return PgvectorAdapter(PgvectorConfig(dsn="-", dimension=8, words="bm25"), {})  # type: ignore[arg-type]  # a Secret reads text


def test_few_rows_of_the_index_are_searched_for_once_more() -> None:
    in_part = search(where=Eq("@document", "d"))
    for operation, replies, way in (
        (search(k=1), ([FOUND], [ROW]), ["find", "by_index"]),
        (search(), ([FOUND], [ROW], [ROW]), ["find", "by_index", "filtered"]),
        (in_part, ([FOUND], [ROW], [ROW]), ["find", "by_index", "filtered"]),
        (search(exact=True), ([FOUND], [ROW]), ["find", "filtered"]),
        (search(k=1001), ([FOUND], [ROW]), ["find", "filtered"]),
        (search(group_by="document"), ([FOUND], [ROW]), ["find", "filtered"]),
        (search(), ([], [ROW]), ["find", "linear"]),
        (search(), ([("public", "1.4.0", True, False)], [ROW]), ["find", "linear"]),
        (search(), ([("public", "1.4.0", True, True)], [ROW] * 10), ["find", "by_index"]),
        (search(), ([("public", "1.0.0", False, True)], [ROW]), ["find", "linear"]),
    ):
        found, gone = answers(fresh(), operation, *replies)
        assert (gone, found.complete) == (way, True)


def test_a_time_limit_of_the_second_search_is_a_shortfall() -> None:
    late = StoreError("late", code="timeout", adapter="pgvector", sent="no")
    found, _ = answers(fresh(), search(), [FOUND], [ROW], late)
    assert not found.complete
    assert found.shortfall == "the index of words gave fewer hits, and the exact search reached the time limit"
    with pytest.raises(StoreError, match="late"):
        answers(fresh(), search(), [FOUND], late)


@pytest.mark.parametrize("code", ["not_provisioned", "rejected", "internal", "sqlstate:22023"])
def test_an_index_that_fails_is_passed_by_and_forgotten(code: str) -> None:
    adapter, broken = fresh(), StoreError("broken", code=code, adapter="pgvector", sent="no")
    assert answers(adapter, search(), [FOUND], broken, [ROW])[1] == ["find", "by_index", "linear"]
    assert answers(adapter, search(), [FOUND], [ROW] * 10)[1] == ["find", "by_index"]
    assert answers(adapter, search(), [ROW] * 10)[1] == ["by_index"], "remembered"
    with pytest.raises(StoreError, match="away"):
        answers(adapter, search(), StoreError("away", code="unavailable", adapter="pgvector", sent="no"))


def test_what_is_remembered_of_a_tenant_follows_its_rows() -> None:
    adapter, shared = fresh(), (True, *ROW[1:])
    assert answers(adapter, search(), [], [shared])[1] == ["find", "linear"]
    assert answers(adapter, search(), [shared])[1] == ["linear"]
    assert answers(adapter, search(), [ROW])[1] == ["linear"], "its rows have moved"
    assert answers(adapter, search(), [FOUND], [ROW] * 10)[1] == ["find", "by_index"]
