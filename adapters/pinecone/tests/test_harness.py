"""The census of the harness: every row, however many pages and requests it takes."""

import numpy as np
import pytest

import vectoracl as v
from vectoracl_conformance.harness import Needs
from vectoracl_pinecone.conformance import harness as harnesses
from vectoracl_pinecone.conformance.harness import PineconeStore


@pytest.mark.parametrize("pages", [None, (7, 3), (10_000, 1_000)])
def test_a_census_reads_every_row_in_pages_of_any_size(needle, store, monkeypatch, pages):
    main = store.config["stores"]["main"]
    harness = PineconeStore(
        Needs(8, {"year": "number"}), main["host"], needle.key, needle.http, prefix="vectoracl-", needle=needle,
        index=store.index,
    )  # fmt: skip
    if pages is not None:
        monkeypatch.setattr(harnesses, "_PAGES", {True: pages})
    rng = np.random.default_rng(1)
    with v.VectorACL(store.config) as acl:
        for tenant in ("acme", "Bêta"):
            chunks = [v.Chunk(f"c{n}", f"d{n % 3}", f"text {n}", rng.normal(size=8), n, {"year": n}) for n in range(22)]
            acl.scoped(v.testing.principal("alice", tenant)).upsert(chunks)
    rows = harness.census()
    assert len(rows) == 44
    assert {(one.tag.tenant, one.tag.chunk) for one in rows} == {
        (t, f"c{n}") for t in ("acme", "Bêta") for n in range(22)
    }
    assert all(one.text == f"text {one.metadata['year']}" and one.vector.shape == (8,) for one in rows)


def test_a_census_of_pinecone_itself_keeps_to_its_limits(needle, store):
    """A page of a listing has at most 100 ids there, and ids that are fetched have to fit an address."""
    asked = []

    class Http:
        def request(self, method, path, **arguments):
            asked.append((method, path.rpartition("/")[2], arguments.get("params")))
            return needle.http.request(method, path, **arguments)

    main = store.config["stores"]["main"]
    harness = PineconeStore(
        Needs(8, {}), main["host"], needle.key, Http(), prefix="vectoracl-", needle=None, index=store.index
    )
    with v.VectorACL(store.config) as acl:
        chunks = [v.Chunk(f"c{n}", "d", "text", np.eye(8)[n % 8], n) for n in range(130)]
        acl.scoped(v.testing.principal("alice", "acme")).upsert(chunks)
    assert len(harness.census()) == 130
    assert {method for method, what, _ in asked if what in ("list", "fetch")} == {"GET"}
    assert max(one["limit"] for _, what, one in asked if what == "list") == 100
    assert max(len(one["ids"]) for _, what, one in asked if what == "fetch") == 25
