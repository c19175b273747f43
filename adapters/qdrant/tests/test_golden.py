"""What is sent, for every shape of an operation: pinned as JSON, and the tenant in `must` at the root of all of it.

A change of a request shows as a diff of tests/golden/requests.json; `pytest --rewrite-golden` writes it anew.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from vectoracl.adapter_api.operations import Count, Facets
from vectoracl.errors import ScopeViolationError, StoreError
from vectoracl.filters.predicate import ALWAYS
from vectoracl_qdrant.conformance.harness import QdrantStore
from vectoracl_qdrant.names import HEADS, head_id
from vectoracl_qdrant.ports import call
from vectoracl_qdrant.requests import Describe, Points, Scroll, Tenants

from qdrant_support.shapes import ADAPTER, CONFIG, QUERY, TENANT, engine, flows, sent, stored

GOLDEN = Path(__file__).parent / "golden" / "requests.json"
SHAPES = {name: sent(flow) for name, flow in flows()}


class WireRecorder:
    """Stands for a client, sync or async: keeps each call as data."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def method(*args: Any, **given: Any) -> None:
            self.calls.append(
                {"method": name, "collection": args[0], **{key: plain(one) for key, one in given.items()}}
            )

        return method


def plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value


def calls() -> dict[str, list[dict[str, Any]]]:
    found = {}
    for name, requests in SHAPES.items():
        recorder = WireRecorder()
        for request in requests:
            call(recorder, CONFIG, request, 1.5)  # type: ignore[arg-type]
        found[name] = recorder.calls
    return found


def test_what_is_sent_is_what_was_pinned(request: pytest.FixtureRequest) -> None:
    got = json.loads(json.dumps(calls()))
    if request.config.getoption("--rewrite-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(got, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    assert got == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SHAPES)
def test_the_tenant_is_a_condition_of_must_at_the_root(name: str) -> None:
    carries = QdrantStore.carries
    for request in SHAPES[name]:
        assert request.partition == TENANT
        assert carries(None, request, TENANT)  # type: ignore[arg-type]  # it needs nothing of a store
        assert not carries(None, request, "beta")  # type: ignore[arg-type]
    assert SHAPES[name] or name in ("search never", "lexical without a word")


def test_the_structural_check_notices_a_tenant_in_the_wrong_place() -> None:
    tenant = models.FieldCondition(key="group_id", match=models.MatchValue(value=TENANT))
    for where in (
        models.Filter(should=[tenant]),
        models.Filter(must_not=[tenant]),
        models.Filter(must=[models.Filter(should=[tenant, models.FieldCondition(key="x", is_empty=True)])]),
        models.Filter(must=[]),
    ):
        assert not QdrantStore.carries(None, Scroll(TENANT, where, 1), TENANT)  # type: ignore[arg-type]


def test_no_clause_is_empty_and_no_point_is_named_by_its_bare_id() -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for clause in ("must", "should", "must_not"):
                assert value.get(clause) != [], "an empty clause is everything"
            assert "points" not in value.get("delete", {})
            for change in ("set_payload", "delete_payload"):
                assert "points" not in value.get(change, {})
            assert "lookup_from" not in value
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(calls())


def test_requests_are_plain_data() -> None:
    again = {name: sent(flow) for name, flow in flows()}
    assert again == SHAPES
    for requests in SHAPES.values():
        for request in requests:
            assert dataclasses.is_dataclass(request)


def test_the_unscoped_search_asks_for_each_tenant_by_name() -> None:
    requests = sent(ADAPTER.unscoped(QUERY, 3))
    assert isinstance(requests[0], Tenants)
    for request, tenant in zip(requests[1:], (TENANT, "beta"), strict=True):
        assert request.partition is None
        assert QdrantStore.carries(None, request, tenant)  # type: ignore[arg-type]


def drive(flow: Any, *replies: Any) -> Any:
    reply = None
    waiting = list(replies)
    while True:
        try:
            flow.send(reply)
        except StopIteration as stop:
            return stop.value
        reply = waiting.pop(0)


def head(generation: int, version: str, intent: str = "") -> Points:
    payload = {"generation": generation, "version": version, "docgen": intent, "present": []}
    return Points([models.Record(id=head_id(TENANT, "d"), payload=payload)], None)


def version(generation: int, name: str, mark: str | None, lang: str = "en") -> list[models.Record]:
    """Two points of one version."""
    found = stored(2, mark)
    for one in found:
        payload = one.payload or {}
        payload.update(generation=generation, version=name, fields={"kw_lang": lang})
        if mark is None:
            payload.pop("pending", None)
    return found


def test_a_reader_in_the_middle_of_a_replacement_sees_one_version() -> None:
    """Two marked points of a new version: while it is not published they are hidden, then they are seen."""
    marked, nothing = Points(version(0, "r:new", "r:new"), None), Points([], None)
    claimed, published = head(-1, "", "r:new"), head(0, "r:new", "r:new")
    operation = Count(TENANT, ALWAYS, ALWAYS)
    assert drive(ADAPTER.count(operation), marked, published) == 2
    assert drive(ADAPTER.count(operation), marked, claimed, nothing, claimed) == 0
    facets = Facets(TENANT, ALWAYS, ALWAYS, "lang")
    assert drive(ADAPTER.facets(facets), marked, published) == [("en", 2)]
    assert drive(ADAPTER.facets(facets), marked, claimed, nothing, claimed) == []


def test_a_replacement_that_was_decided_while_its_version_was_hidden_is_not_lost() -> None:
    """Both versions are marked and the old one is published; then the new one is, and the old one goes."""
    old, new = version(0, "", "r:new"), version(1, "r:new", "r:new", "fr")
    claimed, published = head(0, "", "r:new"), head(1, "r:new", "r:new")
    done = Points(version(1, "r:new", None, "fr"), None)
    both, nothing = Points([*old, *new], None), Points([], None)
    count = drive(
        ADAPTER.count(Count(TENANT, ALWAYS, ALWAYS)),
        both, claimed,      # the new version is hidden
        nothing,            # the old one is gone meanwhile
        published,          # what was hidden is published now
        done,               # so it is asked for again
    )  # fmt: skip
    assert count == 2
    facets = Facets(TENANT, ALWAYS, ALWAYS, "lang")
    assert drive(ADAPTER.facets(facets), both, claimed, nothing, published, done) == [("fr", 2)], "not both versions"
    # And one that is still undecided behind the answer stays hidden.
    again = drive(ADAPTER.count(Count(TENANT, ALWAYS, ALWAYS)), both, claimed, Points(old, None), claimed, claimed)
    assert again == 2


def test_what_was_left_in_the_middle_before_there_were_heads_reads_right() -> None:
    """Marks of the older form name the deciding point; so it is as long as the document has no head."""
    mark = f"1:{stored(1)[0].id}"
    both = Points([*version(0, "", mark), *version(1, "0f" * 12, mark, "fr")], None)
    lead = models.Record(id=stored(1)[0].id, payload={"committed": True})
    none, decided = Points([], None), Points([lead], None)
    count = Count(TENANT, ALWAYS, ALWAYS)
    old, new = Points(both.points[:2], None), Points(both.points[2:], None)
    assert drive(ADAPTER.count(count), both, none, none, old, none, none, none, (old, new), none) == 2
    assert drive(ADAPTER.count(count), both, none, decided, new, none, decided, none, (new, new), decided) == 2
    facets = Facets(TENANT, ALWAYS, ALWAYS, "lang")
    got = drive(ADAPTER.facets(facets), both, none, decided, new, none, decided, none, (new, new), decided)
    assert got == [("fr", 2)]


def test_a_point_of_somebody_else_is_an_error_and_not_a_hit() -> None:
    strange = models.Record(id=7, payload={"group_id": TENANT})
    with pytest.raises(StoreError) as error:
        drive(ADAPTER.count(Count(TENANT, ALWAYS, ALWAYS)), Points([strange], None))
    assert error.value.code == "malformed"
    moved = stored(1)[0]
    moved.payload = {**(moved.payload or {}), "group_id": "beta"}
    with pytest.raises(ScopeViolationError):
        ADAPTER._decode.tag(moved)


def test_a_short_answer_of_the_vector_index_is_said() -> None:
    from vectoracl.adapter_api.operations import Search

    from qdrant_support.shapes import TEXT

    operation = Search(TENANT, ALWAYS, ALWAYS, QUERY, 3, TEXT)
    ranked = engine()(SHAPES["search where always"][0])[:2]
    more = [models.Record(id=str(i), payload={"document": "d", "generation": 0}) for i in range(3)]
    found = drive(ADAPTER.search(operation), *(ranked, Points(more, None)) * 3)
    assert (found.complete, found.shortfall) == (False, "the vector index returned fewer hits than the scope has")
    assert drive(ADAPTER.search(operation), ranked, Points(more[:2], None)).complete


def test_every_write_keeps_its_filter_over_grpc() -> None:
    for requests in SHAPES.values():
        for request in requests:
            for step in getattr(request, "operations", ()):
                made = RestToGrpc.convert_update_operation(step)
                text = str(made)
                assert text.count("group_id") >= 1
                if isinstance(step, models.UpsertOperation):
                    first, second, *_ = [*made.upsert.update_filter.must, None]
                    assert first.field.key == "group_id"
                    owner = second if first.field.match.keyword == HEADS else first
                    assert owner.field.match.keyword == TENANT


def test_describing_and_listing_touch_no_rows() -> None:
    recorder = WireRecorder()
    for request in (Describe(), Tenants(10)):
        call(recorder, CONFIG, request, None)  # type: ignore[arg-type]
        assert request.partition is None
    assert [one["method"] for one in recorder.calls] == ["get_collection", "facet"]


def test_both_clients_have_the_calls() -> None:
    from qdrant_client import AsyncQdrantClient, QdrantClient

    for name in {one["method"] for some in calls().values() for one in some} | {"get_collection", "facet"}:
        assert asyncio.iscoroutinefunction(getattr(AsyncQdrantClient, name))
        assert callable(getattr(QdrantClient, name))
