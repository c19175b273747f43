"""Every operation against a real PostgreSQL, held against the memory store, which is the reference meaning itself."""

from __future__ import annotations

import math
import re
import threading
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, F, testing
from vectoracl.adapter_api.operations import Delete, Facets, Replace, Upsert
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.adapter_tests.operations import (  # noqa: F401 - tests that run here too
    test_a_narrowed_handle_cannot_overwrite_what_it_may_not_see,
    test_an_update_keeps_identity_and_replaces_content,
    test_readers_see_the_old_version_or_the_new_one,
)
from vectoracl_pgvector.compile import PgCompiler
from vectoracl_pgvector.requests import Transaction
from vectoracl_pgvector.schema import protection

FIELDS = {
    "year": "number",
    "lang": "keyword",
    "ok": "boolean",
    "when": "datetime",
    "tags": "keyword[]",
    "nums": "number[]",
}
ALICE = testing.principal("alice", "acme")
BOB = testing.principal("bob", "beta")
START = datetime(2024, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)


def unit(rng: np.random.Generator, dimension: int = 8) -> np.ndarray:
    return rng.normal(size=dimension).astype(np.float32)


def rows(count: int, seed: int = 1) -> list[Chunk]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        metadata: dict[str, Any] = {"free": {"nested": [1, None, {"a": "b"}]}}
        if i % 3:
            metadata["year"] = [2019, 2020.5, 2021, -0.0, 1e15][i % 5]
        if i % 4:
            metadata["lang"] = ["en", "fr", "EN", "é", "'; DROP TABLE chunks; --"][i % 5]
        if i % 5:
            metadata["ok"] = bool(i % 2)
        if i % 6:
            metadata["when"] = START + timedelta(microseconds=i % 4)
        if i % 7:
            metadata["tags"] = [["x"], ["x", "y"], ["%s", "z"], ["y"]][i % 4]
        if i % 2:
            metadata["nums"] = [[1, 2], [2.5], [3]][i % 3]
        made.append(Chunk(f"c{i:03}", f"d{i % 5}", f"text {i}", unit(rng), position=i, metadata=metadata))
    return made


@pytest.fixture(scope="module", params=["vector-cosine", "halfvec-l2", "vector-inner"])
def pair(request: pytest.FixtureRequest, provisioned: Any) -> Any:
    """The same rows in PostgreSQL and in memory, for two tenants."""
    kind, metric = request.param.split("-")
    store = provisioned(dimension=8, metric=metric, type=kind, metadata=FIELDS)
    here = v.connect(store.config)
    memory = v.connect(
        {"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 8, "metric": metric, "metadata": FIELDS}}}
    )
    for acl in (here, memory):
        acl.scoped(ALICE).upsert(rows(120))
        acl.scoped(BOB).upsert(rows(40, seed=1))  # the same ids, and the same vectors, as another tenant
    yield here, memory, 2e-3 if kind == "halfvec" else 1e-5
    here.close()


values = {
    "year": st.sampled_from([2019, 2020.5, 2021, 0, 1e15, 7]),
    "lang": st.sampled_from(["en", "fr", "EN", "é", "e\u0301", "'; DROP TABLE chunks; --", "%s", ""]),
    "ok": st.booleans(),
    "when": st.integers(0, 4).map(lambda micro: START + timedelta(microseconds=micro)),
}
leaf = st.one_of(
    *(
        st.one_of(
            value.map(lambda one, name=name: F[name] == one),
            value.map(lambda one, name=name: F[name] != one),
            st.lists(value, max_size=3).map(lambda some, name=name: F[name].in_(some)),
            st.lists(value, max_size=3).map(lambda some, name=name: F[name].not_in(some)),
            st.just(F[name].is_missing()),
        )
        for name, value in values.items()
    ),
    st.sampled_from(["e", "E", "é", "e\u0301", "'", "%", "_", "\\"]).map(F.lang.starts_with),
    st.sampled_from(["d", "d1", "D", "%"]).map(F["@document"].starts_with),
    values["year"].map(lambda one: F.year >= one),
    values["year"].map(lambda one: F.year < one),
    values["when"].map(lambda one: F.when > one),
    values["when"].map(lambda one: F.when <= one),
    st.lists(st.sampled_from(["x", "y", "z", "%s", "q"]), min_size=1, max_size=2).map(F.tags.contains_any),
    st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=2).map(F.tags.contains_all),
    st.lists(st.sampled_from([1, 2, 2.5, 9]), min_size=1, max_size=2).map(F.nums.contains_any),
    st.sampled_from(["d0", "d1", "nowhere"]).map(lambda one: F["@document"] == one),
    st.integers(0, 120).map(lambda one: F["@position"] >= one),
)
predicate = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: two[0] & two[1]),
        st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
        inner.map(lambda one: ~one),
    ),
    max_leaves=5,
)
# Hypothesis reads the lambdas' source now, before other threads run: CPython gh-106905 (SystemError in ast.parse).
predicate.validate()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=predicate, k=st.integers(1, 12), grouped=st.booleans(), exact=st.booleans(), seed=st.integers(0, 5))
def test_every_filter_means_what_the_reference_means(
    pair: Any, where: v.Predicate, k: int, grouped: bool, exact: bool, seed: int
) -> None:
    here, memory, close = pair
    query = unit(np.random.default_rng(seed))
    more: dict[str, Any] = {"group_by": "document", "per_group": 2} if grouped else {}
    got, wanted = (
        acl.scoped(ALICE).search(query, k, where=where, include={"text", "metadata", "vector"}, exact=exact, **more)
        for acl in (here, memory)
    )
    assert got.complete
    assert len(got) == len(wanted)
    assert {hit.tenant for hit in got} <= {"acme"}
    for one, two in zip(got, wanted, strict=True):
        # Half precision may swap neighbours of nearly equal score; the score at a place may not differ.
        assert math.isclose(one.score, two.score, abs_tol=close * 10)
        if close < 1e-4:
            assert (one.document, one.id) == (two.document, two.id)
            assert one.text == two.text
            assert one.metadata == two.metadata
            assert np.allclose(one.vector, two.vector)
    assert here.scoped(ALICE).count(where) == memory.scoped(ALICE).count(where)
    scans = [[(hit.document, hit.id) for hit in acl.scoped(ALICE).scan(where, size=11)] for acl in (here, memory)]
    assert scans[0] == scans[1]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=predicate, inside=predicate, field=st.sampled_from(["year", "lang", "ok", "tags", "nums", "@document"]))
def test_facets_are_the_references(pair: Any, where: v.Predicate, inside: v.Predicate, field: str) -> None:
    here, memory, _ = pair
    for principal in (ALICE, BOB):
        got, wanted = (acl.scoped(principal).narrow(inside).facets(field, where=where) for acl in (here, memory))
        assert got == wanted
        assert [type(one.value) for one in got] == [type(one.value) for one in wanted]


def test_facets_of_a_table_whose_columns_have_the_names_that_the_query_uses(provisioned: Any) -> None:
    columns = {"metadata": "stored", "document": "item", "label": "found", "path": "items", "chunk": "listed"}
    store = provisioned(dimension=8, metadata=FIELDS, columns=columns)
    memory = {"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 8, "metadata": FIELDS}}}
    with v.connect(store.config) as here, v.connect(memory) as reference:
        for acl in (here, reference):
            acl.scoped(ALICE).upsert(rows(30))
        for field in ("year", "lang", "ok", "tags", "nums", "@document"):
            for where in (ALWAYS, F.tags.contains("x") & ~(F["@document"] == "d0")):
                got, wanted = (acl.scoped(ALICE).facets(field, where=where) for acl in (here, reference))
                assert got == wanted != []


def test_facets_are_one_request_and_no_more_values_than_fit(pair: Any) -> None:
    here, _, _ = pair
    adapter = here._named("main").store.adapter
    flow = adapter.facets(Facets("acme", ALWAYS, ALWAYS, "lang", 2))
    reply = here._named("main").port.execute(next(flow), None)
    with pytest.raises(StopIteration) as stop:
        flow.send(reply)
    assert len(stop.value.value) == 3, "one more than the most, which the core refuses"


def test_a_narrowed_handle_deletes_what_the_filter_names_and_nothing_else(pair: Any) -> None:
    here, memory, _ = pair
    for acl in (here, memory):
        acl.scoped(BOB).upsert(rows(40, seed=1))
    where = (F.lang == "en") | F.tags.contains("z")
    counts = [acl.scoped(BOB).narrow(F.year.exists()).delete(where=where).count for acl in (here, memory)]
    assert counts[0] == counts[1] > 0
    left = [[(hit.document, hit.id) for hit in acl.scoped(BOB).scan()] for acl in (here, memory)]
    assert left[0] == left[1]
    assert here.scoped(ALICE).count() == 120


@pytest.fixture
def acl(store: Any) -> Any:
    with v.connect(store.config) as opened:
        yield opened


def test_metadata_comes_back_as_it_was_written(acl: v.VectorACL) -> None:
    docs = acl.scoped(ALICE)
    docs.upsert(rows(12))
    back = {hit.id: hit for hit in docs.scan(include={"text", "metadata", "vector"})}
    for chunk in rows(12):
        hit = back[chunk.id]
        assert hit.metadata == chunk.metadata
        assert (hit.text, hit.position, hit.document) == (chunk.text, chunk.position, chunk.document)
        assert np.array_equal(hit.vector, chunk.vector)


def test_a_date_that_was_written_by_hand_is_refused_by_name(store: Any, acl: v.VectorACL) -> None:
    from vectoracl.adapter_api.chunk_validation import STORED_MOMENT
    from vectoracl_pgvector.names import Names

    names, docs = Names.of(store.pg), acl.scoped(ALICE)
    docs.upsert(rows(12))
    with psycopg.connect(store.owner, autocommit=True) as owner, owner.transaction():
        owner.execute("SELECT set_config('vectoracl.tenant', %s, true)", (ALICE.tenant,))
        done = owner.execute(
            f"UPDATE {names.table} SET {names.c.metadata} = jsonb_set({names.c.metadata}, '{{when}}', "
            f"'\"2024-03-01 canary\"') WHERE {names.c.chunk} = %s",
            (rows(12)[0].id,),
        )
        assert done.rowcount == 1
        found = owner.execute(  # as the message says
            f"SELECT {names.c.chunk} FROM {names.table} WHERE {names.c.metadata} ->> 'when' !~ %s", (STORED_MOMENT,)
        ).fetchall()
    assert [row[0] for row in found] == [rows(12)[0].id]
    for read in (
        lambda: docs.search(np.ones(8), k=12),
        lambda: docs.fetch([rows(12)[0].id]),
        lambda: list(docs.scan()),
    ):
        with pytest.raises(
            v.StoreError, match="The store 'main' holds text in the declared datetime field 'when'"
        ) as no:
            read()
        assert (no.value.code, no.value.adapter) == ("stored_form", "pgvector")
        assert "canary" not in str(no.value)
    docs.upsert(rows(1))  # written again through a handle
    assert len(docs.search(np.ones(8), k=12)) == 12


def test_a_setting_that_the_extension_lacks(acl: v.VectorACL, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older pgvector lacks `hnsw.iterative_scan`; this one lacks another, and the server answers the same."""
    docs = acl.scoped(ALICE)
    docs.upsert(rows(12))
    assert len(docs.search(np.ones(8))) == 10  # the extension is loaded into the connection, its prefix reserved
    later = (("hnsw.of_later", "strict_order"),)
    monkeypatch.setattr("vectoracl_pgvector.compile_ranking.effort_settings", lambda *_: later)
    with pytest.raises(v.StoreError, match=r"pgvector 0\.8\.0 or later .* ALTER EXTENSION vector UPDATE") as caught:
        docs.search(np.ones(8))
    assert (caught.value.code, caught.value.sent) == ("pgvector_version", "no")


def test_concurrent_writers_of_one_document_never_mix_generations(acl: v.VectorACL) -> None:
    docs = acl.scoped(ALICE)

    def work(name: str) -> None:
        for turn in range(15):
            docs.replace("d", [Chunk(f"{name}{turn}-{i}", "d", name, np.ones(8)) for i in range(4)])
            docs.upsert([Chunk("added", "d", name, np.ones(8))])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hits = list(docs.scan())
    assert len({hit.tag.generation for hit in hits}) == 1
    assert len({hit.text for hit in hits if hit.id != "added"}) == 1


def test_a_replacement_waits_for_writers_and_writers_for_it(store: Any, acl: v.VectorACL) -> None:
    """Each writer's lock is held in a transaction of the test's own: as a race the fault shows only now and then."""
    docs = acl.scoped(ALICE)
    docs.upsert([Chunk("c", "d", "", np.ones(8))])  # the tenant is known, and nothing else is waited for
    new = [Chunk("c", "new", "", np.ones(8))]
    record = Record(Tag("acme", "new", "c"), "", np.ones(8, np.float32), {})
    compiler = PgCompiler(store.pg, {})
    writers: list[tuple[Transaction, bool, bool]] = [
        (compiler.replace(Replace("acme", ALWAYS, "new", (record,))), False, False),
        (compiler.replace(Replace("acme", ALWAYS, "new", ())), False, False),
        (compiler.upsert(Upsert("acme", ALWAYS, (record,))), True, False),
        (compiler.delete(Delete("acme", ALWAYS, document="new")), True, False),
    ]
    for writer, others_write, others_replace in writers:
        lock = writer.statements[0]
        with psycopg.connect(store.runtime) as held:
            held.execute(lock.sql, lock.params)  # type: ignore[arg-type]
            assert docs.count() >= 1, "reads go on"
            for allowed, write in (
                (others_write, lambda limit: docs.upsert(new, timeout=limit)),
                (others_write, lambda limit: docs.delete(document="new", timeout=limit)),
                (others_replace, lambda limit: docs.replace("new", new, timeout=limit)),
                (others_replace, lambda limit: docs.replace("new", [], timeout=limit)),
            ):
                if allowed:
                    write(None)
                    continue
                with pytest.raises(v.StoreError) as waited:
                    write(0.3)
                assert waited.value.code == "timeout"
            acl.scoped(BOB).replace("new", new)  # another tenant is not held up
    assert docs.replace("new", new).count == 1


def promote_by_hand(store: Any, tenant: str) -> None:
    """Give a tenant a partition with HNSW, without the code that moves tenants: the planner has to meet one here."""
    from vectoracl_pgvector import schema
    from vectoracl_pgvector.names import Names

    names = Names.of(store.pg)
    with psycopg.connect(store.owner, autocommit=True) as owner, owner.transaction():
        owner.execute("SELECT set_config('vectoracl.tenant', %s, true)", (tenant,))
        part = names.partition(tenant)
        owner.execute(f"CREATE TABLE {part} (LIKE {names.table} INCLUDING ALL)")
        written = ", ".join(names.written)
        owner.execute(
            f"INSERT INTO {part} ({written}) SELECT {written} FROM {names.default} WHERE tenant_id = %s", (tenant,)
        )
        owner.execute(f"DELETE FROM {names.default} WHERE tenant_id = %s", (tenant,))
        for statement in schema.protection(store.pg, part):
            owner.execute(statement)
        owner.execute(schema.vector_index(store.pg, part, "by_vector"))
        owner.execute(f"ALTER TABLE {names.table} ATTACH PARTITION {part} FOR VALUES IN ('{tenant}')")
        owner.execute(f"ANALYZE {part}")


@pytest.mark.parametrize("where", [None, F.year < 400, F["@document"] == "d3"])
def test_a_partition_that_was_divided_further_gives_the_nearest_rows_of_all_parts(
    store: Any, where: v.Predicate | None
) -> None:
    """Rows of two parts have the same places (ctid), by which the narrow search names them."""
    names, rng = store.names, np.random.default_rng(5)
    parts = [f"{names.schema}.parts", *(f"{names.schema}.parts_{part}" for part in range(3))]
    with psycopg.connect(store.owner, autocommit=True) as owner:
        owner.execute(
            f"CREATE TABLE {parts[0]} PARTITION OF {names.table} FOR VALUES IN ('acme') "
            f"PARTITION BY HASH ({names.c.document})"
        )
        for place, part in enumerate(parts[1:]):
            owner.execute(f"CREATE TABLE {part} PARTITION OF {parts[0]} FOR VALUES WITH (MODULUS 3, REMAINDER {place})")
        for statement in chain.from_iterable(protection(store.pg, part) for part in parts):
            owner.execute(statement)
    chunks = [Chunk(f"c{n}", f"d{n % 9}", "", unit(rng), metadata={"year": n}) for n in range(900)]
    with v.connect(store.config) as acl:
        acl.scoped(ALICE).upsert(chunks)
        docs = acl.scoped(ALICE) if where is None else acl.scoped(ALICE).narrow(where)
        everything = docs.search(query := unit(rng), 1_000, exact=True)
        assert len(everything) == docs.count() > 50
        for k in (1, 7, 50):
            found = docs.search(query, k)
            assert [hit.id for hit in found] == [hit.id for hit in everything[:k]]
            assert found.complete


def test_k_hits_whenever_the_scope_holds_k_also_through_the_vector_index(store: Any) -> None:
    rng = np.random.default_rng(3)
    with v.connect(store.config) as acl:
        docs = acl.scoped(ALICE)
        docs.load(
            (Chunk(f"c{i}", f"d{i % 50}", "", unit(rng), metadata={"year": i % 997}) for i in range(3000)),
            batch=1000,
        )
        promote_by_hand(store, "acme")
        query = unit(rng)
        with psycopg.connect(store.runtime, autocommit=True) as runtime, runtime.transaction():
            runtime.execute(
                "SELECT set_config('vectoracl.tenant', 'acme', true), set_config('enable_sort', 'off', true)"
            )
            plan = runtime.execute(
                f"EXPLAIN SELECT 1 FROM {store.names.table} WHERE tenant_id = 'acme' "
                f"ORDER BY embedding <=> '{query.tolist()}' LIMIT 10"
            ).fetchall()
        assert "by_vector" in str(plan), "the control: an index search has to be possible here"
        rare = F.year == 5  # three or four rows of 3,000
        owned = docs.count(rare)
        assert 3 <= owned <= 4
        for k in (1, 2, 10):
            result = docs.search(query, k, where=rare)
            assert len(result) == min(k, owned)
            assert result.complete
        everything = docs.search(query, 10)
        exact = docs.search(query, 10, exact=True)
        assert len(everything) == 10
        assert len({hit.id for hit in everything} & {hit.id for hit in exact}) >= 9
        assert docs.search(query, 10, tuning={"ef_search": 1000}).complete
        many = docs.search(query, 1500)
        assert len(many) == 1500


def test_a_small_tenant_gets_all_its_k_after_a_large_one_on_the_same_connection(store: Any) -> None:
    config = {**store.config, "stores": {"main": {**store.config["stores"]["main"], "pool_min": 1, "pool_max": 1}}}
    rng = np.random.default_rng(4)
    with v.connect(config) as acl:
        acl.scoped(ALICE).load((Chunk(f"c{i}", "d", "", unit(rng)) for i in range(2000)), batch=1000)
        acl.scoped(BOB).upsert([Chunk(f"c{i}", "d", "", unit(rng)) for i in range(10)])
        for _ in range(15):
            assert len(acl.scoped(ALICE).search(unit(rng), 10)) == 10
        small = acl.scoped(BOB).search(unit(rng), 10)
        assert len(small) == 10
        assert {hit.tenant for hit in small} == {"beta"}


RAW = (
    "INSERT INTO {table} (tenant_id, document, generation, chunk_id, label, rev, expires, producer, path, written_at, "
    "position, content, metadata, embedding) VALUES (%s, 'd', 0, 'raw', 'default', 0, 1, '', '', 0, 0, '', '{{}}', %s)"
)
VECTOR = str([1.0] * 8)


@pytest.mark.parametrize(
    ("scope", "tenant", "state"),
    [
        (None, None, "42501"),
        ("acme", None, "42501"),
        ("acme", "", "42501"),
        (None, "acme", "42501"),
        ("acme", "beta", "42501"),
    ],
)
def test_the_database_itself_refuses_a_wrong_tag(store: Any, scope: str | None, tenant: str | None, state: str) -> None:
    statement = RAW.format(table=store.names.table)
    with psycopg.connect(store.runtime, autocommit=True) as connection:
        with connection.transaction():  # the control: with its own tag it is written
            connection.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
            connection.execute(statement, ("acme", VECTOR))
        with pytest.raises(psycopg.Error) as refused, connection.transaction():
            if scope is not None:
                connection.execute("SELECT set_config('vectoracl.tenant', %s, true)", (scope,))
            connection.execute(statement, (tenant, VECTOR))
    assert refused.value.sqlstate in (state, "23502", "23514")


def test_without_a_scope_there_are_no_rows_and_partitions_are_closed(store: Any) -> None:
    with v.connect(store.config) as acl:
        acl.scoped(ALICE).upsert(rows(5))
    with psycopg.connect(store.runtime, autocommit=True) as connection:
        for _ in range(2):  # fresh, and after a scope was set and ended: NULL and ''
            assert connection.execute(f"SELECT count(*) FROM {store.names.table}").fetchone() == (0,)
            with connection.transaction():
                connection.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
                assert connection.execute(f"SELECT count(*) FROM {store.names.table}").fetchone() == (5,)
        for table in (store.names.default, store.names.versions):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT count(*) FROM {table}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"TRUNCATE {store.names.table}")
    with psycopg.connect(store.owner, autocommit=True) as owner:  # FORCE binds the owner too
        assert owner.execute(f"SELECT count(*) FROM {store.names.table}").fetchone() == (0,)


def test_unknown_tenants_read_nothing_and_leave_nothing(store: Any) -> None:
    with v.connect(store.config) as acl:
        nobody = acl.scoped(testing.principal("x", "never-seen"))
        assert len(nobody.search(np.ones(8))) == 0
        assert nobody.count() == 0
        assert nobody.fetch(["c"]) == []
        assert nobody.delete(document="d").count == 0
        operator = acl.operator()
        assert [one.tenant for one in operator.tenants()] in ([], ["never-seen"])
        operator.close()


def test_half_precision_refuses_what_it_cannot_hold(provisioned: Any) -> None:
    store = provisioned(dimension=2, type="halfvec")
    with v.connect(store.config) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert([Chunk("a", "d", "", [1.0, 0.0])])
        for vector in ([70000.0, 1.0], [1e-9, 1e-9]):
            with pytest.raises(v.InvalidInputError):
                docs.upsert([Chunk("b", "d", "", [1.0, 0.0]), Chunk("c", "d", "", vector)])
            with pytest.raises(v.InvalidInputError):
                docs.search(vector)
        assert docs.count() == 1


def test_an_unprovisioned_database_says_what_to_do(database: Any) -> None:
    fresh = database()
    config = {"version": 1, "stores": {"main": {"adapter": "pgvector", "dsn": fresh.runtime, "dimension": 8}}}
    with pytest.raises(v.RefusedError, match="provision"):
        v.connect(config)


def test_wrong_connections_are_one_clear_error_without_the_password(store: Any) -> None:
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    canary = "c4n4ry-s3cret"
    parts = conninfo_to_dict(store.runtime)
    said = ("refused the login", "refused the login", "server listens at this address")
    wrongs = ({"password": canary}, {"dbname": "nowhere", "password": canary}, {"port": "1", "password": canary})
    for wrong, words in zip(wrongs, said, strict=True):
        dsn = make_conninfo(**{**parts, **wrong})
        main = {**store.config["stores"]["main"], "dsn": dsn, "connect_timeout": 2}
        with pytest.raises(v.StoreError) as failed:
            v.connect({**store.config, "stores": {"main": main}})
        shown = f"{failed.value} {failed.value!r} {failed.value.__cause__} {failed.value.__dict__}"
        assert canary not in shown
        assert failed.value.sent == "no"
        assert re.search(words, str(failed.value)), str(failed.value)
    with pytest.raises(v.StoreError, match="connection string"):
        v.connect({**store.config, "stores": {"main": {**main, "dsn": "no dsn at all"}}})
