"""Constructed mutants: they are many, each is a program, and each loss shows in a situation made for it."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from vectoracl import (
    ALWAYS,
    Chunk,
    Decision,
    F,
    Grant,
    Hybrid,
    Lexical,
    Like,
    Principal,
    Scope,
    VectorACL,
    VectorACLError,
)
from vectoracl.adapter_api.operations import OPERATIONS, Count
from vectoracl.filters.predicate import NODES, Always, Never
from vectoracl.filters.semantics import compile_test
from vectoracl.memory.ports import shelf_of
from vectoracl.model.records import Tag
from vectoracl_conformance.mutants import altered
from vectoracl_conformance.mutants.constructed import Constructed, constructed, drawn
from vectoracl_conformance.mutants.losses import LOSSES
from vectoracl_conformance.mutants.triggers import FIELDS, triggers

DIMENSION = 4
FIELDS_OF_ROWS = {"team": "keyword", "year": "number", "tags": "keyword[]", "note": "keyword"}
TENANTS = ("north", "south")
TEAM = F.team == "a"
SCOPES = {
    "reader": ALWAYS,
    "a": TEAM,
    "or": (F.team == "b") | (F.year >= 2003) | F.note.is_missing(),
    "and": F.team.in_(["a", "b", "B"]) & (F.year > 2001) & (F.year <= 2006),
    "not": ~(F.team == "a") & ~F.tags.contains_any(["y", "z"]),
    "starts": F.note.starts_with("no") | (F.team == "A"),
    "many": F.team.in_([*(f"t{number}" for number in range(120)), "a", "b"]),
    "document": F["@document"].in_(["d1", "d2"]),
}


WHERES = (
    ALWAYS,
    F.year > 2002,
    F.team == "a",
    (F.year >= 2004) & ~(F.team == "b"),
    F.note.starts_with("n"),
    F.note.starts_with("no"),
    F.tags.contains_any(["x", "w"]) | F.team.in_(["c", "a", "b"]),
    F.team.in_([*(f"t{number}" for number in range(120)), "a", "b"]),
    F.note.is_missing(),
    F.year < 2004,
    (F.year > 2001) & (F.year < 2005),
    ~F.note.starts_with("n"),
    F.note.is_missing() | (F.note.starts_with("no") & (F.year < 2003)),
)


class Policy:
    """Gives each principal both the rights of its name, in the partitions that it lists."""

    version = "1"

    def decide(self, principal: Principal, action: str) -> Decision:
        name = principal.id.partition("-")[0]
        tenants = (
            TENANTS
            if principal.id.endswith("-both") and action in ("search", "scan", "count", "fetch")
            else (principal.tenant,)
        )
        scope = Scope.of(Grant(one, SCOPES[name]) for one in tenants)
        return Decision(permit=True, scope=scope, reasons=(), policy_version=self.version)


def chunks(tenant: str) -> Iterator[Chunk]:
    turn = np.random.default_rng(len(tenant) + ord(tenant[0]))
    for number in range(24 if tenant != "south" else 19):
        metadata: dict[str, Any] = {
            "team": ("a", "b", "A", "B")[number % 4],
            "year": 2000 + number % 9,
            "Deep": {"x": [1]},
        }
        if number % 3:
            metadata["note"] = ("note", "No", "nay", "nothing", "no")[number % 5]
        if number % 2:
            metadata["tags"] = [("x", "y", "z")[number % 3], "w"]
        chunk = ("Ä", "B" * 99 + "1x", "B" * 99 + "1y", "c-1", "ﬁ", "b")[number % 6]
        text = f"Word {number} of {tenant[0]}\n {'long ' * (500 if number == 5 else 1)} {('red', 'blue')[number % 2]}"
        document = ("d1", "d2", "D1", "d" * 120)[number // 6]
        vector = turn.normal(size=DIMENSION).astype(np.float32)
        yield Chunk(chunk, document, text, vector, position=number, metadata=metadata)


def calls() -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
    """Yield a principal, a tenant and a call on its handle."""
    vector = [1.0, 0.5, -0.2, 0.1]
    queries = (vector, Lexical("red word long"), Hybrid("blue word", vector))
    for name in SCOPES:
        for number, where in enumerate(WHERES):
            tenant = TENANTS[number % 2]
            for query in queries:
                yield (
                    name,
                    tenant,
                    lambda h, q=query, w=where: h.search(q, 5, where=w, include=("text", "metadata", "vector")),
                )
            yield name, tenant, lambda h, w=where: h.count(w)
            yield name, tenant, lambda h, w=where: h.facets("team", where=w)
            yield name, tenant, lambda h, w=where: h.page(w, 5, include=("text", "metadata", "vector")).hits
            yield name, tenant, lambda h, w=where: list(h.scan(w, size=3))
        for tenant in TENANTS:
            yield name, tenant, lambda h: h.search(vector, 30, group_by="document", per_group=2)
            yield name, tenant, lambda h: h.search(vector, 30, group_by="document")
            yield name, tenant, lambda h: h.search(vector, 30, min_score=0.3, include=())
            yield name, tenant, lambda h: h.search(Like("b", "d1"), 3)
            yield name, tenant, lambda h: h.facets("@document")
            yield (
                name,
                tenant,
                lambda h: h.fetch(["Ä", ("d1", "B" * 99 + "1x"), ("d1", "b")], include=("text", "metadata", "vector")),
            )
            yield name, tenant, lambda h: h.fetch([("d2", "c-1"), ("d1", "ﬁ")])


def changes() -> Iterator[tuple[str, str, Callable[[Any], Any]]]:
    """Yield writes; each begins with the rows of `chunks`."""
    many = list(chunks("third"))
    for name, scope in SCOPES.items():
        test = compile_test(scope)
        for tenant in TENANTS:
            for shift in (1, 2, 3, 5):  # chunks that may be written over some that may not
                pairs = zip(many, many[shift:], strict=False)
                moved = [dataclasses.replace(one, metadata=other.metadata) for one, other in pairs]
                moved = [one for one in moved if test(Tag(tenant, one.document, one.id), one.metadata)]
                yield name, tenant, lambda h, m=moved: h.upsert(m)
                yield name, tenant, lambda h, m=moved: h.upsert(m[::-1])
                yield name, tenant, lambda h, m=moved: h.upsert(m[-1:])
                for one in ("d1", "D1"):
                    own = [chunk for chunk in moved if chunk.document == one]
                    yield name, tenant, lambda h, d=one, m=own: h.replace(d, m)
            yield name, tenant, lambda h: h.upsert(many)
            yield name, tenant, lambda h: h.replace("d1", many[:6])
            yield name, tenant, lambda h: h.delete(ids=[("d1", "Ä"), ("d2", "b")])
            yield name, tenant, lambda h: h.delete(ids=["c-1", ("d1", "b")])
            yield name, tenant, lambda h: h.delete(document="d1")
            for where in WHERES:
                yield name, tenant, lambda h, w=where: h.delete(where=w)


def client(name: str, source: str = "") -> VectorACL:
    """Return a client whose adapter is altered by *source*."""
    scope: dict[str, Any] = {"__name__": "adapter"}
    exec(compile(source, "<adapter>", "exec"), scope)
    dress = scope.get("dress", lambda opened: opened)

    class Dressed(VectorACL):
        def _named(self, name: str) -> Any:
            known = name in self._stores
            named = super()._named(name)
            if not known:
                named.opened = dress(named.opened)
                named.store = dataclasses.replace(named.store, adapter=named.opened.adapter)
            return named

    store = {"adapter": "memory", "dimension": DIMENSION, "metric": "cosine", "name": name, "metadata": FIELDS_OF_ROWS}
    return Dressed({"version": 1, "stores": {"main": store}}, policy=Policy())  # type: ignore[arg-type]


def shown(value: Any) -> Any:
    """Return an answer as something that compares equal, without times and ids of decisions."""
    if isinstance(value, VectorACLError):
        return type(value).__name__
    if hasattr(value, "tag"):
        vector = None if value.vector is None else value.vector.tolist()
        tag = value.tag._replace(time=value.tag.time > 0)
        return tag, value.position, round(value.score, 6), value.text, value.metadata, vector
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(shown, value))
    if isinstance(value, list) or hasattr(value, "hits"):
        return tuple(map(shown, value))
    return getattr(value, "count", value) if not isinstance(value, int | tuple) else value


def outcome(acl: VectorACL, name: str, tenant: str, call: Callable[[Any], Any]) -> Any:
    """Return what comes of a call."""
    try:
        return shown(call(acl.scoped(Principal(id=name, tenant=tenant, authenticated_by="test"))))
    except VectorACLError as error:
        return shown(error)


def rows(shelf: Any) -> Any:
    """Return every row of both tenants."""
    held = [(key, row) for one in TENANTS for key, row in sorted(shelf.partitions.get(one, {}).items())]
    return [
        (key, row.tag._replace(time=row.tag.time > 0), row.text, row.metadata, row.vector.tolist()) for key, row in held
    ]


@cache
def expected(name: str) -> tuple[Any, list[Any], list[Any]]:
    """Return the rows that all calls begin with, the outcomes of all reads, and of all writes with the rows then."""
    shelf = shelf_of("cosine", DIMENSION, name)
    with client(name) as acl:
        for one in TENANTS:
            acl.scoped(Principal(id="reader", tenant=one, authenticated_by="test")).upsert(chunks(one))
        first = {one: dict(part) for one, part in shelf.partitions.items()}
        reads = [outcome(acl, *call) for call in calls()]
        writes = []
        for call in changes():
            writes.append((outcome(acl, *call), rows(shelf)))
            shelf.partitions = {one: dict(part) for one, part in first.items()}
    return first, reads, writes


def differs(mutant: Constructed) -> bool:
    """Return whether *mutant* does anything else than the memory adapter in the situations of this file."""
    first, reads, writes = expected("right")
    shelf = shelf_of("cosine", DIMENSION, "wrong")
    shelf.partitions = {one: dict(part) for one, part in first.items()}
    with client("wrong", mutant.source) as broken:
        for one in TENANTS:  # so that it has seen both
            outcome(broken, "reader", one, lambda handle: handle.count())
        if mutant.operation not in WRITES:
            return any(outcome(broken, *call) != one for call, one in zip(calls(), reads, strict=True))
        for call, result in zip(changes(), writes, strict=True):
            if (outcome(broken, *call), rows(shelf)) != result:
                return True
            shelf.partitions = {one: dict(part) for one, part in first.items()}
    return False


WRITES = {kind.method for kind in OPERATIONS.values() if kind.writes}
ALWAYS_WRONG = {
    one.name: one
    for one in constructed()
    if one.trigger == "always" and ("changed" not in one.lines or one.operation in ("search", "delete"))
}


@pytest.mark.parametrize("name", ALWAYS_WRONG)
def test_what_is_lost_shows(name: str) -> None:
    assert differs(ALWAYS_WRONG[name])


def test_an_alteration_without_a_loss_does_not_show() -> None:
    for operation, kind in OPERATIONS.items():
        lines = f"OPERATION = {operation.__name__!r}\nDUE = lambda s, o: True\n"
        assert not differs(Constructed(kind.method, "", "", lines))


def test_there_are_several_thousand_each_with_one_name() -> None:
    everything = constructed()
    assert len(everything) > 5_000
    assert {one.operation for one in everything} == {kind.method for kind in OPERATIONS.values()}
    assert {one.name for one in everything} == {one.name for one in constructed.__wrapped__()}


def test_each_loss_and_each_change_is_used() -> None:
    used = {(one.operation, one.loss) for one in constructed()}
    assert used >= {(OPERATIONS[kind].method, loss.name) for kind, losses in LOSSES.items() for loss in losses}
    nodes = {name.partition("-")[0] for name in altered.CHANGES}
    assert nodes == {node.__name__ for node in NODES} - {Always.__name__, Never.__name__}


def test_each_is_a_program() -> None:
    for one in constructed():
        ast.parse(one.lines)
    for one in drawn(1, 10):
        compile(one.source, one.name, "exec")
        assert "conformance" not in one.source


def test_a_draw_repeats_by_its_seed() -> None:
    assert drawn(7, 100) == drawn(7, 100)
    assert drawn(7, 100) != drawn(8, 100)


def test_each_field_of_an_operation_has_triggers_or_a_reason() -> None:
    names = {field.name for operation in OPERATIONS for field in dataclasses.fields(operation)}
    assert names == set(FIELDS)


def test_a_new_argument_has_to_be_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    larger: Any = dataclasses.make_dataclass("Count", [("sample", float, 0.0)], bases=(Count,), frozen=True)
    monkeypatch.setitem(OPERATIONS, larger, OPERATIONS[Count])  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="sample"):
        triggers(larger)
