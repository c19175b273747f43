"""Several configurations at once: a field's property, its marker and the metadata never disagree in an answer."""

from __future__ import annotations

import itertools
import json
import random
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import ALWAYS, Chunk, F
from vectoracl.engine.facets import summed
from vectoracl.errors import InvalidInputError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.semantics import getter, matches, tallied, values_of
from vectoracl.model.records import Tag
from vectoracl.testing import principal
from vectoracl_weaviate import compile as compiling
from vectoracl_weaviate.names import escape, known, present
from vectoracl_weaviate.requests import Merge

from weaviate_support.stores import made

E = np.eye(8, dtype=np.float32)
WHO = principal("u", "acme")
NOW = {"level": "keyword", "rank": "number", "tags": "keyword[]", "ok": "boolean"}
OLD = [
    {},
    {"rank": "number"},
    {"level": "keyword", "tags": "keyword[]"},
    {"level": "keyword[]", "rank": "keyword"},  # the same names as other types
    NOW,
    None,  # a version of this library that marked what is there, whether it was declared or not
]
VALUES = {"level": ["open", "secret", ""], "rank": [0, 1, 2.5], "tags": [["a"], ["a", "b"]], "ok": [True, False]}


def of(metadata: dict[str, Any], fields: dict[str, str]) -> dict[str, Any]:
    """Return *metadata* with what a process with *fields* could write: another type is another value."""
    made = dict(metadata)
    if fields.get("level") == "keyword[]" and "level" in made:
        made["level"] = [made["level"]]
    if fields.get("rank") == "keyword" and "rank" in made:
        made["rank"] = str(made["rank"])
    return made


def with_fields(store: Any, fields: dict[str, str]) -> dict[str, Any]:
    return store.with_(metadata=fields)


def unmarked(metadata: Any, _fields: Any) -> list[str]:
    return [escape(one) for one in present(metadata)]


@pytest.fixture(scope="module")
def mixed(server):
    """A collection with chunks of every configuration, and the metadata that each was given."""
    store = made(server, metadata=NOW, index="flat")
    for fields in OLD:  # every process's properties are there
        with v.VectorACL(with_fields(store, fields or {})) as acl:
            operator = acl.operator()
            operator.provision()
            operator.close()
    drawn = random.Random(5)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for number, fields in enumerate(OLD):
        chunks = []
        for index in range(16):
            metadata = {name: drawn.choice(some) for name, some in VALUES.items() if drawn.random() < 0.6}
            metadata = of(metadata, fields or {})
            rows[f"d{index % 3}", f"{number}-{index:02}"] = metadata
            chunks.append(Chunk(f"{number}-{index:02}", f"d{index % 3}", "word", E[0], index, metadata))
        with pytest.MonkeyPatch.context() as patch:
            if fields is None:
                patch.setattr(compiling, "_marked", unmarked)
            with v.connect(with_fields(store, NOW if fields is None else fields)) as acl:
                acl.scoped(WHO).upsert(chunks)
    with v.connect(with_fields(store, NOW)) as acl:
        yield acl.scoped(WHO), rows, store, acl
    store.http.delete(f"/v1/schema/{store.collection}")
    store.http.close()


leaves = st.one_of(
    st.sampled_from(VALUES["level"]).map(lambda one: F.level == one),
    st.sampled_from(VALUES["level"]).map(lambda one: F.level != one),
    st.lists(st.sampled_from(VALUES["level"]), min_size=1, max_size=2).map(F.level.not_in),
    st.sampled_from(VALUES["rank"]).map(lambda one: F.rank == one),
    st.sampled_from(VALUES["rank"]).map(lambda one: F.rank != one),
    st.sampled_from(VALUES["rank"]).map(lambda one: F.rank >= one),
    st.booleans().map(lambda one: F.ok == one),
    st.booleans().map(lambda one: F.ok != one),
    st.sampled_from(["a", "b"]).map(F.tags.contains),
    st.sampled_from(sorted(NOW)).map(lambda name: F[name].is_missing()),
    st.sampled_from(sorted(NOW)).map(lambda name: F[name].exists()),
    st.sampled_from(["d0", "d1"]).map(lambda one: F["@document"] == one),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        inner.map(lambda one: ~one),
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
    ),
    max_leaves=5,
)


def right(rows: dict[tuple[str, str], dict[str, Any]], where: Any) -> list[tuple[str, str]]:
    return sorted(key for key, metadata in rows.items() if matches(where, Tag("acme", *key), metadata))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters, filters, st.sampled_from([*sorted(NOW), "@document"]))
def test_rows_of_every_configuration_are_read_as_their_metadata_says(mixed, scope, where, field):
    handle, rows, _, _ = mixed
    handle = handle.narrow(scope)
    wanted = right(rows, scope & where)
    assert sorted((hit.document, hit.id) for hit in handle.search(E[0], 200, where=where)) == wanted
    assert handle.count(where) == len(wanted)
    assert [(hit.document, hit.id) for hit in handle.scan(where, size=5)] == wanted
    assert sorted((hit.document, hit.id) for hit in handle.fetch(list(rows))) == right(rows, scope)
    kind = FieldType(NOW[field]) if field in NOW else FieldType.KEYWORD
    held = (values_of(kind, getter(field)(Tag("acme", *key), rows[key])) for key in wanted)
    assert handle.facets(field, where=where) == summed(tallied(held, 1000), kind, "the reference")
    ranked = handle.search(E[0], 5, where=where)
    assert len(ranked) == min(5, len(wanted))
    assert ranked.complete


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters)
def test_a_delete_takes_what_the_metadata_says(mixed, where):
    handle, rows, store, acl = mixed
    other = acl.scoped(principal("u", "other"))
    for fields in OLD[:4]:
        with v.connect(with_fields(store, fields)) as old:
            some = [
                Chunk(*reversed(key), "w", E[0], 0, metadata)
                for key, metadata in rows.items()
                if fits(metadata, fields)
            ]
            old.scoped(principal("u", "other")).upsert(some[:20])
    before = {(hit.document, hit.id): hit.metadata for hit in other.scan(include={"metadata"})}
    wanted = right(before, where)
    assert other.narrow(where).delete(where=ALWAYS).count == len(wanted)
    assert sorted((hit.document, hit.id) for hit in other.scan()) == sorted(set(before) - set(wanted))
    assert handle.count() == len(rows)


def fits(metadata: dict[str, Any], fields: dict[str, str]) -> bool:
    types = {"keyword": str, "number": (int, float), "keyword[]": list, "boolean": bool}
    return all(isinstance(metadata[name], types[kind]) for name, kind in fields.items() if name in metadata)


def objects(store: Any) -> list[dict[str, Any]]:
    query = f"/v1/objects?class={store.collection}&tenant=t_acme&limit=1000"
    return [one["properties"] for one in store.ask("GET", query)["objects"]]


def agree(held: dict[str, Any], fields: dict[str, str]) -> bool:
    """Tell whether the property, the marker and the metadata of an object say the same of every field."""
    metadata = json.loads(held["metadata"])
    for name, kind in fields.items():
        there, absent = map(escape, known(name, FieldType(kind)))
        value = held.get(f"m_{ {'keyword': 'kw', 'number': 'num'}[kind] }_{name}")
        marks = held.get("present") or []
        if (there in marks, absent in marks) != (name in metadata, name not in metadata):
            return False
        if value != (escape(metadata[name]) if isinstance(metadata.get(name), str) else metadata.get(name)):
            return False
    return True


def test_provisioning_repairs_what_older_processes_wrote(stores):
    fields = {"level": "keyword", "rank": "number"}
    store = stores(metadata={})
    with v.connect(store.config) as old:
        chunks = [
            Chunk(f"{i:02}", "d", "", E[0], 0, {"level": ("open", "secret")[i % 2], **({"rank": i} if i % 3 else {})})
            for i in range(40)
        ]
        old.scoped(WHO).upsert([*chunks, Chunk("none", "d", "", E[0])])
        with store.operator(metadata=fields) as operator:
            assert any("41 chunks" in line for line in operator.provision())
            assert all(agree(one, fields) for one in objects(store))
            assert operator.provision() == ["everything is in place"]
            old.scoped(WHO).upsert([Chunk("late", "d", "", E[0], 0, {"level": "secret"}), chunks[1]])
            with v.connect(with_fields(store, fields)) as new:
                handle = new.scoped(WHO)
                assert handle.count(F.level == "secret") == 21, "without another provisioning"
                assert handle.count(F.rank.is_missing()) == 16
            assert any("2 chunks" in line for line in operator.provision())
            assert all(agree(one, fields) for one in objects(store))
        with store.operator(metadata={"level": "number"}) as operator, pytest.raises(InvalidInputError):
            operator.provision()


class Overtaking:
    """The port of a repair, in front of which *rewrite* is called between each merge and the look that follows it."""

    parallel = 8

    def __init__(self, port: Any, rewrite: Any) -> None:
        self.port, self.rewrite, self.merged = port, rewrite, False

    def execute(self, request: Any, timeout: float | None) -> Any:
        if isinstance(request, Merge):
            self.merged = True
        elif self.merged:
            self.merged = False
            self.rewrite()
        return self.port.execute(request, timeout)

    def close(self) -> None:
        self.port.close()


def repaired_by(operator: Any, rewrite: Any) -> list[str]:
    inner = operator._raw
    port, inner._port = inner._port, Overtaking(inner._port, rewrite)
    try:
        return operator.provision()
    finally:
        inner._port = port


def test_a_repair_that_is_overtaken_by_the_same_metadata_repairs_again(stores):
    fields = {"level": "keyword", "rank": "number"}
    store = stores(metadata={})
    chunks = [Chunk(f"{i}", "d", "", E[0], 0, {"level": "a", "rank": i}) for i in range(5)]
    turns = []

    def rewrite() -> None:
        if len(turns) < 2:
            turns.append(old.scoped(WHO).upsert(chunks))

    with v.connect(store.config) as old, store.operator(metadata=fields) as operator:
        old.scoped(WHO).upsert(chunks)
        repaired_by(operator, rewrite)
        assert len(turns) == 2
        assert all(agree(one, fields) for one in objects(store))


def test_a_repair_that_gives_up_leaves_objects_that_are_judged_by_their_metadata(stores):
    fields = {"level": "keyword", "rank": "number"}
    store = stores(metadata={})
    turns = itertools.count()

    def rewrite() -> None:
        turn = next(turns)
        old.scoped(WHO).upsert([Chunk(f"{i}", "d", "", E[0], 0, {"level": f"v{turn}"}) for i in range(5)])

    with v.connect(store.config) as old, store.operator(metadata=fields) as operator:
        rewrite()
        with pytest.raises(v.errors.StoreError) as caught:
            repaired_by(operator, rewrite)
        assert caught.value.code == "replacing"
        assert not any(one.get("present") for one in objects(store))
        with v.connect(with_fields(store, fields)) as new:
            assert new.scoped(WHO).count(F.level == f"v{next(turns) - 1}") == 5
        operator.provision()
        assert all(agree(one, fields) for one in objects(store))


# The server writes an object under a lock, but updates its inverted index after it. Where a merge meets a batch, the
# index may keep the terms of the write that was overtaken: then an object that `objects` shows as it should be is found
# by the terms of its previous content (Weaviate 1.39.0; seen under load, in 9 of 30 runs).
@pytest.mark.xfail(strict=False, reason="the server's index may keep the terms of a write that was overtaken")
def test_a_repair_beside_a_writer_leaves_nothing_that_disagrees(stores):
    fields = {"level": "keyword", "rank": "number"}
    store = stores(metadata={})
    stop, failed = threading.Event(), []
    with v.connect(store.config) as old, store.operator(metadata=fields) as operator:
        old.scoped(WHO).upsert([Chunk(f"{i}", "d", "", E[0], 0, {"level": "a", "rank": i}) for i in range(30)])
        operator.provision()

        def rewrites() -> None:
            try:
                for turn in itertools.count():
                    if stop.is_set():
                        return
                    metadata = [{"level": f"v{turn}"}, {"rank": turn}, {}][turn % 3]
                    old.scoped(WHO).upsert([Chunk(f"{i}", "d", "", E[0], 0, metadata) for i in range(30)])
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=rewrites)
        thread.start()
        try:
            for _ in range(6):
                try:
                    operator.provision()
                except v.errors.StoreError as error:
                    if error.code != "replacing":
                        raise
        finally:
            stop.set()
            thread.join()
        assert not failed, failed
        operator.provision()
        assert all(agree(one, fields) for one in objects(store))


def test_a_tenant_at_rest_is_read_rightly_when_it_is_woken(stores):
    store = stores(metadata={})
    with v.connect(store.config) as old:
        old.scoped(WHO).upsert(
            [Chunk(f"{i}", "d", "", E[0], 0, {"level": ("open", "secret")[i % 2]}) for i in range(4)]
        )
    with store.operator(metadata={"level": "keyword"}) as operator:
        operator.deactivate("acme")
        assert any("1 tenants are not active" in line for line in operator.provision())
        operator.activate("acme")
        with v.connect(with_fields(store, {"level": "keyword"})) as new:
            assert [hit.id for hit in new.scoped(WHO).narrow(F.level != "secret").scan()] == ["0", "2"]
        assert any("4 chunks" in line for line in operator.provision())
