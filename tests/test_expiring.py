"""A time to live of chunks and documents: invisible from the second it ends, on every store; `sweep` deletes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import vectoracl as v
from tests.test_copy_stores import DIMENSION, FIELDS, stores  # noqa: F401 - a fixture
from tests.test_governance import acl, clock, govern  # noqa: F401 - fixtures
from vectoracl import Chunk, Entry, InvalidInputError, RefusedError, hazmat
from vectoracl.cli import app
from vectoracl.testing import principal

ANN = principal("ann", "acme")
EVE = principal("eve", "globex")
REASON = "a test of expiry"
NOW = 1_900_000_000.0


class Clock:
    now = NOW

    def __call__(self):
        return self.now


def vector(i=0):
    return [1.0, float(i), *([0.0] * (DIMENSION - 2))]


def chunk(name, document, expires=None):
    return Chunk(name, document, f"word {name}", vector(), metadata={"lang": "en"}, expires=expires)


def everything(docs, settle):
    """Return the (document, id) pairs that every kind of read shows; all of them have to agree."""
    settle()
    found = sorted((hit.document, hit.id) for hit in docs.search(vector(), k=50))
    assert sorted((hit.document, hit.id) for hit in docs.scan(size=2)) == found
    assert docs.count() == len(found)
    named = [("d", "a"), ("d", "b"), ("e", "a"), ("f", "a")]
    assert sorted((hit.document, hit.id) for hit in docs.fetch(named)) == found
    return found


@pytest.mark.server
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["memory", "pgvector", "qdrant", "weaviate", "pinecone"])
def test_what_has_expired_is_invisible_on_every_store(stores, name):  # noqa: F811 - the fixture
    if name == "memory":
        given, settle = {"adapter": "memory", "dimension": DIMENSION, "name": "expiring"}, lambda: None
    else:
        store = stores(name)
        given, settle = store.config, store.settle
    whole = {"version": 1, "stores": {"main": {**given, "metadata": dict(FIELDS), "expiring": True}}}
    with v.connect(whole) as here:
        here.pipeline.clock = time = Clock()
        docs, others = here.scoped(ANN), here.scoped(EVE)
        docs.upsert([chunk("a", "d", NOW + 10), chunk("b", "d"), chunk("a", "e", NOW + 20)])
        docs.replace(
            "f",
            [
                chunk("a", "f"),
            ],
            expires=NOW + 30,
        )
        others.upsert([chunk("a", "d", NOW + 10)])
        assert everything(docs, settle) == [("d", "a"), ("d", "b"), ("e", "a"), ("f", "a")]
        time.now = NOW + 9.75
        assert len(everything(docs, settle)) == 4
        time.now = NOW + 10
        assert everything(docs, settle) == [("d", "b"), ("e", "a"), ("f", "a")]
        time.now = NOW + 30
        assert everything(docs, settle) == [("d", "b")]
        time.now = NOW - 100
        assert everything(docs, settle) == [("d", "b")]  # a clock that is set back brings nothing back
        time.now = NOW + 31
        docs.upsert([chunk("a", "e")])  # one that has expired can be written again
        assert everything(docs, settle) == [("d", "b"), ("e", "a")]
        operated = hazmat.operate(here, reason=REASON)
        with pytest.raises(RefusedError, match="larger share"):
            operated.sweep("acme")
        assert operated.sweep("acme", largest_share=1.0) == 2
        settle()
        assert operated.count("acme") == 2
        assert operated.count("globex") == 1
        assert everything(docs, settle) == [("d", "b"), ("e", "a")]
        assert operated.sweep("acme") == 0


def memory(**more):
    given = {"adapter": "memory", "dimension": DIMENSION, "metadata": dict(FIELDS), **more}
    return {"version": 1, "stores": {"main": given}}


def test_without_a_clock_nothing_is_seen():
    with v.connect(memory(expiring=True)) as here:
        docs = here.scoped(ANN)
        docs.upsert([chunk("a", "d")])
        here.pipeline.clock = lambda: float("nan")
        assert docs.count() == 0
        assert hazmat.operate(here, reason=REASON).sweep("acme") == 0


class Slow:
    """An embedder during whose work the clock goes on."""

    name, dimension = "slow", DIMENSION

    def __init__(self, time):
        self.time = time

    def embed_documents(self, texts):
        return [vector() for _ in texts]

    def embed_queries(self, texts):
        self.time.now += 10
        return [vector() for _ in texts]


def test_what_expires_while_the_query_is_embedded_is_left_out():
    time = Clock()
    with v.connect(memory(expiring=True), embedder=Slow(time)) as here:
        here.pipeline.clock = time
        docs = here.scoped(ANN)
        docs.upsert([chunk("a", "d", NOW + 5), chunk("b", "d"), chunk("c", "d", NOW + 15)])
        found = docs.search("word", k=2)
        assert [hit.id for hit in found] == ["b"]
        assert (found.complete, found.shortfall) == (False, "chunks that were found have expired since; search again")
        first, second = docs.search_many(["word", v.Hybrid("word")], k=5)
        for one in (first, second):
            assert ([hit.id for hit in one], one.complete) == (["b"], False)
        found = docs.search("word", k=2)
        assert ([hit.id for hit in found], found.complete, found.shortfall) == (["b"], True, None)


def test_it_is_refused_where_reads_do_not_look_at_it():
    with v.connect(memory()) as here:
        docs = here.scoped(ANN)
        for write in (
            lambda: docs.upsert([chunk("a", "d", NOW)]),
            lambda: docs.replace("d", [chunk("a", "d")], expires=NOW),
        ):
            with pytest.raises(RefusedError, match="expiring = true"):
                write()
        assert docs.count() == 0
        for wrong in ("tomorrow", True, float("nan"), -1.0, 1e18):
            with pytest.raises(InvalidInputError):
                docs.replace("d", [chunk("a", "d")], expires=wrong)
            with pytest.raises(InvalidInputError):
                docs.upsert([chunk("a", "d", wrong)])
        with pytest.raises(RefusedError, match="expiring = true"):
            hazmat.operate(here, reason=REASON).sweep("acme")


def test_under_a_registry_a_document_expires_as_a_whole(acl, govern, clock):  # noqa: F811 - fixtures
    docs = acl.scoped(principal("ann", "acme", groups=["hr"]))
    one = Chunk("a", "d", "word", [1.0, 0.0, 0.0])
    docs.replace("d", [one], expires=clock.now + 10)
    docs.replace("e", [Chunk("a", "e", "word", [1.0, 0.0, 0.0])], expires=clock.now + 60)
    docs.replace("e", [Chunk("a", "e", "word", [1.0, 0.0, 0.0])], expires=clock.now + 90)
    with pytest.raises(RefusedError, match="as a whole"):
        docs.upsert([Chunk("a", "d", "word", [1.0, 0.0, 0.0], expires=clock.now)])
    assert docs.count() == 2
    clock.now += 10
    assert docs.count() == 1
    govern.retain("d", clock.now + 10)  # a governor extends it
    assert docs.count() == 2
    clock.now += 50
    assert docs.count() == 0  # the second replacement did not extend e
    assert sorted(govern.sweep(largest_share=1.0).documents) == ["d", "e"]
    assert govern.define_label("x", entries=[Entry("tenant")])


def test_a_store_that_cannot_compare_it_is_refused(monkeypatch):
    from dataclasses import replace

    from vectoracl.memory.adapter import MemoryAdapter

    whole = MemoryAdapter.capabilities.fget

    def without(self):
        found = whole(self)
        return replace(found, predicates=frozenset(one for one in found.predicates if one.__name__ != "Range"))

    monkeypatch.setattr(MemoryAdapter, "capabilities", property(without))
    with pytest.raises(v.UnsupportedPredicateError):
        v.connect(memory(expiring=True))


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectoracl.toml").write_text(
        'version = 1\n[audit]\nsink = "jsonl"\npath = "audit.jsonl"\n'
        f'[stores.main]\nadapter = "memory"\ndimension = {DIMENSION}\nname = "{tmp_path}"\n'
        'expiring = true\n[stores.main.metadata]\nlang = "keyword"\n'
    )
    with v.connect("vectoracl.toml") as here:
        here.scoped(ANN).upsert([chunk("a", "d", 1.0), *(chunk(f"b{i}", "d") for i in range(9))])
        ended = CliRunner().invoke(app, ["sweep", "--tenant", "acme", "--reason", "kept for a year", "--json"])
        assert ended.exit_code == 0, ended.output
        assert json.loads(ended.stdout) == {"tenant": "acme", "chunks": 1}
        assert here.scoped(ANN).count() == 9
    records = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    decisions = [one["decision"] for one in records if "decision" in one]
    reasons = next(one["reasons"] for one in decisions if one["action"] == "hazmat.sweep")
    assert reasons[0].endswith("at the command line: kept for a year")
