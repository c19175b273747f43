"""Tests of reads and writes through handles.

The fixture `acl` opens a fresh store of eight numbers with the fields of `strategies.FIELDS`. The fixture `pair` is
the store and the memory adapter with the same rows, and what the importing file needs besides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vectoracl import Chunk, DeniedError, F, Predicate, VectorACL, connect, testing
from vectoracl.model.records import Vector
from vectoracl_conformance.strategies import FIELDS, predicate, rows

ALICE: Final = testing.principal("alice", "acme")
ONES: Final[Vector] = np.ones(8, np.float32)


def reference(metric: str) -> VectorACL:
    """Return the memory adapter, opened with the fields and the dimension of `strategies.rows`."""
    store = {"adapter": "memory", "dimension": 8, "metric": metric, "metadata": dict(FIELDS)}
    return connect({"version": 1, "stores": {"m": store}})


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=predicate, inside=predicate, field=st.sampled_from(["year", "lang", "ok", "tags", "nums", "@document"]))
def test_facets_are_the_references(pair: Sequence[Any], where: Predicate, inside: Predicate, field: str) -> None:
    """Facets inside a narrowed handle are those of the memory adapter, and of the same types."""
    here, memory = pair[:2]
    for who in (ALICE, testing.principal("bob", "beta")):
        got, expected = (acl.scoped(who).narrow(inside).facets(field, where=where) for acl in (here, memory))
        assert got == expected
        assert [type(one.value) for one in got] == [type(one.value) for one in expected]


def test_a_narrowed_handle_deletes_what_the_filter_names_and_nothing_else(pair: Sequence[Any]) -> None:
    """A delete by filter removes the rows that the memory adapter removes; another tenant's stay."""
    here, memory = pair[:2]
    bob = testing.principal("bob", "of the deletes")
    before = here.scoped(ALICE).count()
    for acl in (here, memory):
        acl.scoped(bob).upsert(rows(20))
    where = (F.lang == "en") | F.tags.contains("z")
    counts = [acl.scoped(bob).narrow(F.year.exists()).delete(where=where).count for acl in (here, memory)]
    assert counts[0] == counts[1] > 0
    remainders = [[(hit.document, hit.id) for hit in acl.scoped(bob).scan()] for acl in (here, memory)]
    assert remainders[0] == remainders[1]
    assert here.scoped(ALICE).count() == before


def test_an_update_keeps_identity_and_replaces_content(acl: VectorACL) -> None:
    """A chunk is its document and its id."""
    docs = acl.scoped(ALICE)
    docs.upsert([Chunk("c", "d", "old", ONES)])
    docs.upsert([Chunk("c", "d", "new", ONES), Chunk("c", "other", "else", ONES)])
    assert {(hit.document, hit.text) for hit in docs.fetch(["c"])} == {("d", "new"), ("other", "else")}
    assert [hit.text for hit in docs.fetch([("d", "c")])] == ["new"]


def test_a_narrowed_handle_cannot_overwrite_what_it_may_not_see(acl: VectorACL) -> None:
    """A write over a hidden chunk is denied as a whole."""
    docs = acl.scoped(ALICE)
    docs.upsert([Chunk("c", "d", "old", ONES, metadata={"year": 1999})])
    narrow = docs.narrow(F.year >= 2020)
    fresh = Chunk("c", "d", "new", ONES, metadata={"year": 2021})
    writes: list[Callable[[], object]] = [
        lambda: narrow.upsert([Chunk("n", "d", "x", ONES, metadata={"year": 2021}), fresh]),
        lambda: narrow.replace("d", [fresh]),
        lambda: narrow.replace("d", []),
    ]
    for write in writes:
        with pytest.raises(DeniedError) as denied:
            write()
        assert denied.value.decision_id
    assert [(hit.id, hit.text) for hit in docs.scan()] == [("c", "old")]
    assert narrow.delete(document="d").count == 0
    assert docs.count() == 1


def test_readers_see_the_old_version_or_the_new_one(acl: VectorACL) -> None:
    """A search while a document is replaced has one version of it, and all of that."""
    docs = acl.scoped(ALICE)

    def version(number: int, size: int) -> list[Chunk]:
        return [Chunk(f"c{i}", "d", f"v{number}", ONES * (i + 1), position=number) for i in range(size)]

    docs.replace("d", version(0, 7))
    stop = threading.Event()
    mixed: list[Any] = []

    def read() -> None:
        while not stop.is_set():
            texts = [hit.text or "" for hit in docs.search(ONES, 50)]
            if len(set(texts)) != 1 or len(texts) != 7 + int(texts[0][1:]) % 3:
                mixed.append(texts)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 30):
        docs.replace("d", version(number, 7 + number % 3))
    stop.set()
    for reader in readers:
        reader.join()
    assert mixed == []
    assert {hit.tag.generation for hit in docs.scan()} == {29}


LATE: Final = [
    ("number", F.late == 7, {"0", "6"}),
    ("keyword", F.late == "7", {"1"}),
    ("boolean", F.late == True, {"2"}),  # noqa: E712 - a filter
    ("number[]", F.late.contains(7), {"3"}),
    ("keyword[]", F.late.contains_any(["7", "x"]), {"3", "4"}),
    ("keyword", F.late.is_missing(), {"none"}),
    ("number", F.late != 7, {str(i) for i in range(9)} - {"0", "6"}),
]
"""How the field `late` is declared after `write_undeclared`, a filter, and the chunks that it finds."""


def write_undeclared(acl: VectorACL) -> None:
    """Write chunks with the field `late`, which is not declared, in every form; the last one lacks it."""
    forms = [7, "7", True, [7, "x"], ["7"], {"a": 7}, 7.0, [True], []]
    acl.scoped(ALICE).upsert(
        [Chunk(str(i), "d", "", ONES, metadata={"late": one}) for i, one in enumerate(forms)]
        + [Chunk("none", "d", "", ONES)]
    )


def assert_metadata_returns(acl: VectorACL, chunks: list[Chunk]) -> None:
    """Assert that *chunks* come back with the metadata, the text and the position that they were written with."""
    docs = acl.scoped(ALICE)
    docs.upsert(chunks)
    back = {hit.id: hit for hit in docs.scan(include={"text", "metadata", "vector"})}
    for chunk in chunks:
        hit = back[chunk.id]
        assert (hit.metadata, hit.text, hit.position, hit.document) == (
            chunk.metadata, chunk.text, chunk.position, chunk.document,
        )  # fmt: skip
