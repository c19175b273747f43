"""An existing table is taken over: found out, checked row by row, copied under each tenant's scope, never changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, F, hazmat, testing
from vectoracl.audit.sinks import MemorySink
from vectoracl.errors import RefusedError, StoreError
from vectoracl.filters.validation import check_fields
from vectoracl.model.identifiers import skeleton
from vectoracl_pgvector.adoption import adopt as adoption
from vectoracl_pgvector.adoption import source_rows
from vectoracl_pgvector.config import PgvectorConfig

pytestmark = pytest.mark.server
FIELDS = {"year": "number", "lang": "keyword", "seen": "datetime", "tags": "keyword[]"}
RNG = np.random.default_rng(3)


def vec(values: Any = None) -> str:
    numbers = RNG.normal(size=3).astype(np.float32) if values is None else np.asarray(values, np.float32)
    return "[" + ",".join(repr(float(one)) for one in numbers) + "]"


class Old:
    """A provisioned store, and an application's own schema beside it."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.fields = check_fields(FIELDS)
        self.app = psycopg.connect(store.bootstrap, autocommit=True)
        self.owner = psycopg.connect(store.owner, autocommit=True, prepare_threshold=None)
        self.app.execute("GRANT USAGE ON SCHEMA public TO vectoracl_owner")
        self.app.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO vectoracl_owner")

    def table(self, columns: str, name: str = "docs") -> None:
        self.app.execute(f"DROP TABLE IF EXISTS {name} CASCADE")
        self.app.execute(f"CREATE TABLE {name} ({columns})")

    def add(self, name: str = "docs", **values: Any) -> None:
        columns = ", ".join(f'"{one}"' for one in values)
        marks = ", ".join(["%s"] * len(values))
        given = [json.dumps(one) if isinstance(one, dict) else one for one in values.values()]
        self.app.execute(f"INSERT INTO {name} ({columns}) VALUES ({marks})", given)

    def plan(self, source: str = "docs", **adopt: Any) -> str:
        return adoption.plan(self.owner, self._config(adopt), source, self.fields)

    def adopt(self, source: str = "docs", **adopt: Any) -> list[str]:
        return adoption.adopt(self.owner, self._config(adopt), self.fields, source, None)

    def _config(self, adopt: dict[str, Any]) -> PgvectorConfig:
        given = self.store.config["stores"]["main"]
        own = {key: value for key, value in given.items() if key not in ("adapter", "metadata")}
        return PgvectorConfig(**own, adopt=adopt)

    def dump(self, name: str = "docs") -> list[Any]:
        return self.app.execute(f"SELECT one::text FROM {name} AS one ORDER BY 1").fetchall()

    def rows(self) -> int:
        (count,) = self.app.execute("SELECT count(*) FROM vectoracl.chunks").fetchone() or (0,)
        return int(count)


@pytest.fixture(scope="module")
def database(provisioned: Any) -> Iterator[Old]:
    old = Old(provisioned(metadata=FIELDS, dimension=3))
    yield old
    old.app.close()
    old.owner.close()


@pytest.fixture
def old(database: Old) -> Old:
    database.app.execute("TRUNCATE vectoracl.chunks, vectoracl.chunks_tenants")
    database.app.execute("DROP TABLE IF EXISTS docs CASCADE")
    return database


USUAL = (
    "id bigint PRIMARY KEY, tenant_id text, doc_id text, content text, embedding vector(3), metadata jsonb, "
    "year integer, seen timestamptz, price numeric, note text, raw bytea, search tsvector, ratio double precision"
)


def usual(old: Old, count: int = 30, tenants: tuple[str, ...] = ("acme", "beta", "o'brien")) -> None:
    old.table(USUAL)
    for i in range(count):
        old.add(
            id=i,
            tenant_id=tenants[i % len(tenants)],
            doc_id=f"d{i % 4}",
            content=f"text {i}",
            embedding=vec(),
            metadata={"lang": "en", "nested": {"a": [1, None]}},
            year=2000 + i if i % 2 else None,
            seen=datetime(2024, 5, 1, 12, 0, i % 60, tzinfo=UTC),
            price="0.1",
            raw=b"\x00",
        )


def test_a_usual_table(old: Old) -> None:
    usual(old)
    before = old.dump()
    plan = old.plan()
    for line in (
        "-- tenant      tenant_id",
        "-- document    doc_id",
        "-- chunk id    id",
        "-- text        content",
        "-- vector      embedding",
        "-- metadata    all of metadata, year, seen, price, note, ratio",
        "-- left out    raw (bytea)",
        "-- left out    search (tsvector)",
        "-- 30 rows of 3 tenants; the largest:",
        "--           10  'acme'",
    ):
        assert line in plan.splitlines()
    assert "text 1" not in plan
    assert old.rows() == 0
    steps: list[tuple[str, int, int | None]] = []
    done = adoption.adopt(old.owner, old._config({}), old.fields, "public.docs", lambda *step: steps.append(step))
    assert "30 rows copied, 0 were there already" in done[0]
    assert {step[0] for step in steps} == {"checking rows", "copying", "verifying"}
    assert old.dump() == before
    with v.connect(old.store.config) as acl:
        handle = acl.scoped(testing.principal("ann", "acme"))
        assert handle.count() == 10
        (hit,) = handle.fetch(["3"], include={"text", "metadata", "vector"})
        assert (hit.document, hit.text, hit.tag.path, hit.tag.generation) == (
            "d3",
            "text 3",
            'adopt:"public"."docs"',
            0,
        )
        assert hit.metadata == {
            "lang": "en",
            "nested": {"a": [1, None]},
            "year": 2003,
            "price": 0.1,
            "seen": datetime(2024, 5, 1, 12, 0, 3, tzinfo=UTC),
        }
        assert handle.count(where=F.seen == datetime(2024, 5, 1, 12, 0, 3, tzinfo=UTC)) == 1
        assert handle.search(hit.vector, k=1)[0].id == "3"
        # What is written again by the ordinary way is the same bytes.
        stored = "SELECT metadata::text FROM vectoracl.chunks WHERE chunk_id = '3'"
        adopted = old.app.execute(stored).fetchone()
        handle.upsert([Chunk("3", "d3", "text 3", hit.vector, metadata=hit.metadata)])
        assert old.app.execute(stored).fetchone() == adopted


def test_an_adoption_leaves_a_record_with_its_numbers(old: Old) -> None:
    sink = MemorySink()
    with v.VectorACL(old.store.config, sink=sink) as acl:
        operator = acl.operator()
        usual(old)
        hazmat.adopt(acl, "docs", operator=operator, reason="a test of its record")
        old.add(id=99, tenant_id="acme", doc_id="d", content="new", embedding=vec())
        hazmat.adopt(acl, "docs", operator=operator, reason="a test of its record")
        old.add(id=100, tenant_id=None, doc_id="d", content="whose?", embedding=vec())
        with pytest.raises(RefusedError):
            hazmat.adopt(acl, "docs", operator=operator, reason="a test of its record")
        operator.close()
    assert [one["action"] for one in sink.records] == ["hazmat.adopt"] * 3
    numbers = [tuple(one[key] for key in ("returned", "there", "tenants", "refused")) for one in sink.outcomes]
    assert numbers == [(30, 0, 3, 0), (1, 30, 3, 0), (0, 0, 3, 1)]


def test_again_and_after_an_interruption(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_rows, "_BATCH", 10)
    usual(old, 25)
    calls = 0

    class _StopError(Exception):
        pass

    def stop(what: str, done: int, total: int | None) -> None:
        nonlocal calls
        if what == "copying":
            calls += 1
            if calls == 2:
                raise _StopError

    with pytest.raises(_StopError):
        adoption.adopt(old.owner, old._config({}), old.fields, "docs", stop)
    assert old.rows() == 20
    assert "5 rows copied, 20 were there already" in old.adopt()[0]
    assert "0 rows copied, 25 were there already" in old.adopt()[0]
    assert old.rows() == 25


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("no tenant", {"tenant_id": None}, "No tenant."),
    ("blank tenant", {"tenant_id": "  "}, "No tenant."),
    ("trailing blank", {"tenant_id": "acme "}, "blank"),
    ("zero width", {"tenant_id": "ac\u200bme"}, "invisible"),
    ("decomposed", {"tenant_id": "e\u0301"}, "normal form C"),
    ("wildcard", {"tenant_id": "*"}, "wildcard"),
    ("case", {"tenant_id": "ACME"}, "look alike: 'ACME', 'acme'"),
    ("width", {"tenant_id": "\uff41cme"}, "UTS 39"),
    ("no vector", {"embedding": None}, "No vector."),
    ("zero vector", {"embedding": "[0,0,0]"}, "zero"),
    ("no document", {"doc_id": None}, "No document."),
    ("blank document", {"doc_id": " d"}, "blank"),
    ("renamed twice", {"metadata": {"Tenant_ID": "x", "adopted_Tenant_ID": "y"}}, "is there already"),
    ("type", {"metadata": {"lang": 3}}, "'lang'"),
    ("no object", {"metadata": "[1]"}, "not a JSON object"),
    ("both", {"metadata": {"price": 1}, "price": "2"}, "both a column and a metadata key"),
    ("long number", {"price": "0.12345678901234567890123"}, "more digits"),
    ("large integer", {"metadata": {"n": 2**60}}, "2**53"),
]


@pytest.mark.parametrize(("values", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_refused_rows(old: Old, values: dict[str, Any], reason: str) -> None:
    usual(old, 6)
    given = {"id": 4711, "tenant_id": "acme", "doc_id": "d", "content": "SECRET", "embedding": vec()} | values
    old.add(**given)
    before = old.dump()
    plan = old.plan()
    assert any("4711" in line and reason in line for line in plan.splitlines())
    assert "SECRET" not in plan
    with pytest.raises(RefusedError) as caught:
        old.adopt()
    assert reason in caught.value.message
    assert "4711" in caught.value.message
    assert "SECRET" not in caught.value.message
    assert old.rows() == 0
    assert old.dump() == before
    old.app.execute("DELETE FROM docs WHERE id = 4711")
    assert "6 rows copied" in old.adopt()[0]


def test_a_look_alike_of_a_tenant_that_is_in_the_store(old: Old) -> None:
    with v.connect(old.store.config) as acl:
        acl.scoped(testing.principal("ann", "Beta")).upsert([Chunk("c", "d", "t", [1.0, 0, 0])])
    usual(old, 6)
    with pytest.raises(RefusedError, match="look alike: 'Beta', 'beta'"):
        old.adopt()
    assert old.rows() == 1


def test_duplicates(old: Old) -> None:
    old.table("n serial PRIMARY KEY, tenant_id text, chunk_id text, embedding vector(3)")
    for tenant, chunk in (("a", "c"), ("b", "c"), ("a", "c")):
        old.add(tenant_id=tenant, chunk_id=chunk, embedding=vec())
    with pytest.raises(RefusedError, match=r"2 rows: The same tenant, .* Keys: 1, 3"):
        old.adopt(chunk="chunk_id")
    assert old.rows() == 0
    assert "3 rows copied" in old.adopt()[0]  # by the primary key


def test_langchain(old: Old) -> None:
    old.table("id varchar PRIMARY KEY, collection_id uuid, embedding vector, document varchar, cmetadata jsonb")
    for i in range(5):
        cmetadata = {"tenant_id": f"t{i % 2}", "source": f"s{i}", "page": i}
        old.add(id=f"u{i}", embedding=vec(), document=f"text {i}", cmetadata=cmetadata)
    plan = old.plan()
    assert "-- tenant      cmetadata->>tenant_id" in plan
    assert "-- text        document" in plan
    assert "5 rows copied" in old.adopt(document="cmetadata->>source")[0]
    with v.connect(old.store.config) as acl:
        (hit,) = acl.scoped(testing.principal("ann", "t1")).fetch(["u3"])
        assert (hit.document, hit.text, hit.metadata) == ("s3", "text 3", {"page": 3})
    old.add(id="u9", embedding=vec([1, 2]), document="x", cmetadata={"tenant_id": ["t0"]})
    old.add(id="u8", embedding=vec([1, 2]), document="x", cmetadata={"tenant_id": "t0"})
    with pytest.raises(RefusedError) as caught:
        old.adopt()
    assert "No tenant. Keys: u9" in caught.value.message
    assert "Keys: u8" in caught.value.message


@pytest.mark.parametrize(
    ("columns", "said", "reason"),
    [
        ("id int PRIMARY KEY, tenant_id text, org_id text, embedding vector(3)", {}, "could be tenant_id or org_id"),
        ("id int PRIMARY KEY, text text, content text, tenant_id text, embedding vector(3)", {}, "text could be"),
        ("id int PRIMARY KEY, tenant_id text, a vector(3), b vector(3)", {}, "vector could be a or b"),
        ("id int PRIMARY KEY, tenant_id text, embedding vector(4)", {}, "vectors with 4 dimensions"),
        ("id int PRIMARY KEY, tenant_id text", {}, "no column of type vector"),
        ("id int PRIMARY KEY, owner text, embedding vector(3)", {}, "There is no default"),
        ("a int, tenant_id text, embedding vector(3)", {}, "id of a chunk"),
        ("id int PRIMARY KEY, tenant_id text, embedding vector(3)", {"tenant": "nope"}, "no such column"),
        ("id int PRIMARY KEY, tenant_id text, embedding vector(3)", {"tenant": "tenant_id->>x"}, "not of type json"),
        ("id int PRIMARY KEY, tenant_id text, embedding vector(3), \"50%\" text", {}, "% in a name"),
    ],
)  # fmt: skip
def test_unclear_tables(old: Old, columns: str, said: dict[str, str], reason: str) -> None:
    old.table(columns)
    for call in (old.plan, old.adopt):
        with pytest.raises(RefusedError) as caught:
            call(**said)
        assert reason in caught.value.message


def test_unclear_tables_are_said(old: Old) -> None:
    old.table(
        "pk int PRIMARY KEY, tenant_id text, org_id text, text text, content text, a vector(3), b halfvec(3), "
        '"My Doc" text, namespace text'
    )
    old.add(pk=1, tenant_id="wrong", org_id="acme", text="wrong", content="right", a=vec([1, 0, 0]), b=vec([0, 1, 0]),
            namespace="n", **{"My Doc": "d"})  # fmt: skip
    said = {"tenant": "org_id", "text": "content", "vector": "b", "document": "My Doc",
            "leave_out": ("namespace", "tenant_id", "text")}  # fmt: skip
    old.adopt(**said)
    with v.connect(old.store.config) as acl:
        (hit,) = acl.scoped(testing.principal("ann", "acme")).fetch(["1"], include={"text", "metadata", "vector"})
        assert (hit.document, hit.text, hit.metadata, hit.vector.tolist()) == ("d", "right", {}, [0, 1, 0])


def test_hidden_rows_are_said(old: Old) -> None:
    usual(old, 3)
    old.app.execute("REVOKE SELECT ON docs FROM vectoracl_owner")
    with pytest.raises(RefusedError, match="GRANT SELECT"):
        old.plan()
    old.app.execute("GRANT SELECT ON docs TO vectoracl_owner")
    old.app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    with pytest.raises(RefusedError, match="may hide rows"):
        old.adopt()
    old.app.execute("CREATE POLICY vectoracl_adopt ON docs FOR SELECT TO vectoracl_owner USING (true)")
    assert "3 rows copied" in old.adopt()[0]
    old.app.execute("CREATE POLICY narrow ON docs AS RESTRICTIVE FOR SELECT USING (tenant_id = 'acme')")
    with pytest.raises(RefusedError, match="restrictive"):
        old.adopt()


def test_parts_of_a_partitioned_table(old: Old) -> None:
    old.table("id int, tenant_id text, embedding vector(3), PRIMARY KEY (tenant_id, id)) PARTITION BY HASH (tenant_id")
    for part in range(2):
        old.app.execute(f"CREATE TABLE docs_{part} PARTITION OF docs FOR VALUES WITH (MODULUS 2, REMAINDER {part})")
    for i in range(40):
        old.add(id=i // 4, tenant_id=f"t{i % 4}", embedding=vec())
    assert "40 rows copied" in old.adopt()[0]
    with v.connect(old.store.config) as acl:
        assert acl.scoped(testing.principal("ann", "t3")).count() == 10


def test_no_such_table_and_our_own(old: Old) -> None:
    for name in ("nothing", "public.nothing", "a.b.c.d.e", "'; DROP TABLE docs; --"):
        with pytest.raises(RefusedError, match="can see no table"):
            old.plan(name)
    for name in ("vectoracl.chunks", "vectoracl.chunks_default", "vectoracl.chunks_tenants"):
        with pytest.raises(RefusedError, match="belongs to vectoracl"):
            old.plan(name)
    old.app.execute("CREATE OR REPLACE VIEW seen AS SELECT 1 AS one")
    with pytest.raises(RefusedError, match="is not a table"):
        old.plan("seen")


def test_a_table_of_any_name(old: Old) -> None:
    name = 'My "docs"\n; DROP TABLE x; --'
    quoted = '"' + name.replace('"', '""') + '"'
    old.table("id text PRIMARY KEY, tenant_id text, embedding vector(3)", quoted)
    old.add(quoted, id="k\n1; DROP TABLE docs;", tenant_id=None, embedding=vec())
    plan = old.plan(name)
    assert all(line.startswith(("--", "SELECT", "INSERT", "UPDATE")) for line in plan.splitlines())
    old.app.execute(f"DROP TABLE {quoted}")


def test_a_document_that_was_replaced_since_is_kept(old: Old) -> None:
    usual(old, 12)
    old.adopt()
    with v.connect(old.store.config) as acl:
        handle = acl.scoped(testing.principal("ann", "beta"))
        handle.replace("d1", [Chunk("new", "d1", "t", [1.0, 0, 0])])
    assert "0 rows copied" in old.adopt()[0]
    with v.connect(old.store.config) as acl:
        hits = acl.scoped(testing.principal("ann", "beta")).page(size=100).hits
        assert [hit.id for hit in hits if hit.document == "d1"] == ["new"]


@pytest.mark.parametrize("column", ["chunk_text", "metadata", "embedding", None])
def test_a_difference_is_told(old: Old, monkeypatch: pytest.MonkeyPatch, column: str | None) -> None:
    """A copy that lost a row, or of which one part is another, does not pass for whole."""
    usual(old, 12)
    write = adoption._Adoption._write

    def broken(self: Any, rows: Any) -> tuple[int, int]:
        written = write(self, rows)
        c = self._names.c
        change = {"chunk_text": f"SET {c.text} = 'x'", "metadata": f"SET {c.metadata} = '{{}}'",
                  "embedding": f"SET {c.vector} = '[9,1,1]'"}  # fmt: skip
        sql = f"DELETE FROM {self._names.table}" if column is None else f"UPDATE {self._names.table} {change[column]}"
        with self._connection.transaction():
            self._connection.execute(adoption.SCOPE, ("beta",))
            self._connection.execute(f"{sql} WHERE {c.tenant} = 'beta' AND {c.chunk} = '1'")
        return written

    monkeypatch.setattr(adoption._Adoption, "_write", broken)
    with pytest.raises(StoreError, match=r"1 rows of 1 tenants differ.*'beta'"):
        old.adopt()


def test_rows_that_changed_since_are_brought_up_to_date(old: Old) -> None:
    """Adopt, go on writing the old table, adopt again: what this store's users wrote meanwhile is kept."""
    usual(old, 24)
    old.adopt()
    config = old.store.config
    with v.connect(config) as acl:
        acl.scoped(testing.principal("ann", "acme")).upsert([Chunk("0", "d0", "ours", [1.0, 0, 0])])
    old.app.execute("UPDATE docs SET content = 'theirs' WHERE id IN (0, 3)")
    old.app.execute("UPDATE docs SET embedding = '[0,1,0]' WHERE id = 4")
    old.app.execute('UPDATE docs SET metadata = \'{"lang": "fr"}\' WHERE id = 5')
    old.app.execute("UPDATE docs SET year = 1 WHERE id = 8")
    old.app.execute("DELETE FROM docs WHERE id IN (6, 9)")
    old.add(id=100, tenant_id="acme", doc_id="d1", content="late", embedding=vec(), metadata={})
    done = old.adopt()
    assert "1 rows copied, 4 brought up to date, 18 were there already" in done[0]
    assert any("2 chunks of 'acme' were adopted" in line for line in done)
    assert "0 rows copied, 23 were there already" in old.adopt()[0].replace(", 0 brought up to date", "")
    with v.connect(config) as acl:
        acme = acl.scoped(testing.principal("ann", "acme"))
        assert [hit.text for hit in acme.fetch(["0", "3", "100"])] == ["ours", "theirs", "late"]
        beta = acl.scoped(testing.principal("ann", "beta"))
        (hit,) = beta.fetch(["4"], include={"vector"})
        assert list(hit.vector) == [0.0, 1.0, 0.0]
        brien = acl.scoped(testing.principal("ann", "o'brien"))
        assert [hit.metadata.get("lang") for hit in brien.fetch(["5"])] == ["fr"]
        assert [hit.metadata["year"] for hit in brien.fetch(["8"])] == [1]


@pytest.mark.parametrize(
    ("columns", "row", "said", "shown", "left"),
    [
        # mem0
        ("id uuid PRIMARY KEY, vector vector(3), payload jsonb",
         {"payload": {"data": "THE TEXT", "user_id": "acme", "hash": "h"}}, {"tenant": "payload->>user_id"},
         "payload->>data", {"hash": "h"}),
        # LlamaIndex, where the text is in the node alone
        ("id uuid PRIMARY KEY, embedding vector(3), metadata_ jsonb",
         {"metadata_": {"tenant_id": "acme", "_node_content": json.dumps({"text": "THE TEXT", "x": 1})}}, {},
         "metadata_->>_node_content->>text", {"_node_content": json.dumps({"text": "THE TEXT", "x": 1})}),
        ("id uuid PRIMARY KEY, tenant_id text, embedding vector(3), raw text",
         {"tenant_id": "acme", "raw": json.dumps({"body": {"de": "THE TEXT"}})}, {"text": "raw->>body->>de"},
         "raw->>body->>de", {"raw": json.dumps({"body": {"de": "THE TEXT"}})}),
    ],
    ids=["mem0", "llama-index", "deep"],
)  # fmt: skip
def test_a_text_inside_json(old: Old, columns: str, row: Any, said: Any, shown: str, left: Any) -> None:
    old.table(columns)
    vector = "vector" if " vector vector" in columns else "embedding"
    uuid = "00000000-0000-0000-0000-000000000001"
    old.add(id=uuid, **{vector: vec()}, **row)
    assert f"-- text        {shown}" in old.plan(**said)
    assert "1 rows copied" in old.adopt(**said)[0]
    assert "0 rows copied" in old.adopt(**said)[0]
    with v.connect(old.store.config) as acl:
        (hit,) = acl.scoped(testing.principal("ann", "acme")).fetch([uuid])
        assert (hit.text, hit.metadata) == ("THE TEXT", left)


@pytest.mark.parametrize("text", ["{", "[1]", json.dumps({"text": 3})])
def test_a_text_that_cannot_be_read_is_refused(old: Old, text: str) -> None:
    old.table("id int PRIMARY KEY, tenant_id text, embedding vector(3), raw text")
    old.add(id=7, tenant_id="acme", embedding=vec(), raw=text)
    if text == "[1]":  # no text at all, as with a column that is NULL
        assert "1 rows copied" in old.adopt(text="raw->>text")[0]
        return
    with pytest.raises(RefusedError, match=r"Keys: 7"):
        old.adopt(text="raw->>text")
    assert old.rows() == 0


def test_nulls_and_names_of_the_framework_in_metadata(old: Old) -> None:
    old.table("id int PRIMARY KEY, tenant_id text, embedding vector(3), metadata jsonb, namespace text")
    metadata = {"lang": None, "Group_ID": "g", "@x": 1, "page": None, "deep": {"a": None}}
    old.add(id=1, tenant_id="acme", embedding=vec(), metadata=metadata, namespace="n")
    plan = old.plan()
    for key in ("Group_ID", "@x", "namespace"):
        assert f"the metadata key '{key}' is a name of the framework: 'adopted_{key}'" in plan
    assert "1 rows copied" in old.adopt()[0]
    with v.connect(old.store.config) as acl:
        (hit,) = acl.scoped(testing.principal("ann", "acme")).fetch(["1"])
        assert hit.metadata == {"adopted_Group_ID": "g", "adopted_@x": 1, "adopted_namespace": "n", "deep": {"a": None}}


@pytest.mark.parametrize("columns", ["", ", document_id int"])
def test_two_tables_with_the_same_numbers_stay_apart(old: Old, columns: str) -> None:
    for name in ("docs", "articles"):
        old.table(f"id bigint PRIMARY KEY, tenant_id text, text text, embedding vector(3){columns}", name)
        for number in range(3):
            more = {"document_id": 1} if columns else {}
            old.add(name, id=number + (10 if columns and name == "docs" else 0), tenant_id="acme",
                    text=f"{name} {number}", embedding=vec(), **more)  # fmt: skip
    assert "3 rows copied" in old.adopt("docs")[0]
    assert "adopted from another source" in old.plan("articles")
    with pytest.raises(RefusedError, match='prefix = "articles/"'):
        old.adopt("articles")
    assert old.rows() == 3
    assert "3 rows copied" in old.adopt("articles", prefix="articles/")[0]
    assert "0 rows copied, 3 were there already" in old.adopt("articles", prefix="articles/")[0]
    assert "0 rows copied, 3 were there already" in old.adopt("docs")[0]
    with v.connect(old.store.config) as acl:
        handle = acl.scoped(testing.principal("ann", "acme"))
        assert sorted(hit.text for hit in handle.page(size=10).hits) == [
            f"{name} {number}" for name in ("articles", "docs") for number in range(3)
        ]
        assert [hit.text for hit in handle.fetch(["articles/2"])] == ["articles 2"]


@pytest.mark.parametrize("may", [False, True])
def test_the_policy_that_helped_is_removed_again(old: Old, may: bool) -> None:
    usual(old, 3)
    old.app.execute("ALTER TABLE docs ENABLE ROW LEVEL SECURITY")
    old.app.execute("CREATE POLICY vectoracl_adopt ON docs FOR SELECT TO vectoracl_owner USING (true)")
    if may:
        old.app.execute("ALTER TABLE docs OWNER TO vectoracl_owner")
        old.app.execute("ALTER TABLE docs FORCE ROW LEVEL SECURITY")
    done = old.adopt()
    left = old.app.execute("SELECT polname FROM pg_policy WHERE polrelid = 'docs'::regclass").fetchall()
    statement = 'DROP POLICY vectoracl_adopt ON "public"."docs"'
    if may:
        assert any("removed the policy" in line for line in done)
    else:
        (line,) = [line for line in done if statement in line]
        assert left
        old.app.execute(line.split(": ", 1)[1])
    assert old.app.execute("SELECT polname FROM pg_policy WHERE polrelid = 'docs'::regclass").fetchall() == []


def test_half_precision(provisioned: Any) -> None:
    old = Old(provisioned(metadata=FIELDS, dimension=3, type="halfvec"))
    old.table("id int PRIMARY KEY, tenant_id text, embedding vector(3)")
    old.add(id=1, tenant_id="acme", embedding="[0.1,0.2,0.3]")
    assert "rounded to half precision" in old.plan()
    old.adopt()
    old.add(id=2, tenant_id="acme", embedding="[70000,0,0]")
    with pytest.raises(RefusedError, match="not finite"):
        old.adopt()
    old.app.close()
    old.owner.close()


def test_config() -> None:
    with pytest.raises(ValueError, match="tenants"):
        PgvectorConfig(dsn="-", dimension=3, adopt={"tenants": "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other"),
    [("Acme", "acme"), ("acme ", "acme"), ("ac\u200bme", "acme"), ("\uff21cme", "acme"), ("a b", "ab")],
)
def test_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)
