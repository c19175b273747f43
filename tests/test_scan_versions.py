"""A scan shows one version of each document, whatever is written between its pages."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import Chunk, F, connect, testing

CHUNKS = [f"c{number}" for number in range(5)]
DOCUMENTS = ["a", "b", "c"]
WRITES = st.one_of(
    st.tuples(st.just("replace"), st.sampled_from(DOCUMENTS), st.sets(st.sampled_from(CHUNKS))),
    st.tuples(st.just("upsert"), st.sampled_from(DOCUMENTS), st.sets(st.sampled_from(CHUNKS), min_size=1)),
    st.tuples(st.just("delete"), st.sampled_from(DOCUMENTS), st.just(set())),
    st.tuples(st.just("forget"), st.sampled_from(DOCUMENTS), st.sets(st.sampled_from(CHUNKS), min_size=1)),
    st.tuples(st.just("again"), st.sampled_from(DOCUMENTS), st.sets(st.sampled_from(CHUNKS), min_size=1)),
)


class Model:
    """Writes to a handle, and knows which version of each document there is, and its chunks."""

    def __init__(self, docs):
        self.docs = docs
        self.made = 0
        self.live: dict[str, tuple[int, set[str]]] = {}
        self.touched: set[str] = set()

    def write(self, kind, document, chunks):
        self.touched.add(document)
        if kind == "again":
            self.write("delete", document, set())
            self.write("upsert", document, chunks)
            return
        version, held = self.live.get(document, (0, set()))
        if kind in ("delete", "forget"):
            if kind == "delete":
                self.docs.delete(document=document)
                held = set()
            else:
                self.docs.delete(ids=[(document, one) for one in sorted(chunks)])
                held = held - chunks
        else:
            if kind == "replace" or not held:
                self.made += 1
                version = self.made
            rows = [Chunk(one, document, f"{version}", [1.0, 0.0, 0.0]) for one in sorted(chunks)]
            if kind == "replace":
                self.docs.replace(document, rows)
                held = set(chunks)
            else:
                self.docs.upsert(rows)
                held = held | chunks
        self.live[document] = (version, held)


def check(docs, first, between, size, where=None):
    """Scan in pages of *size*, with one of *between* after each; every document comes in one version, whole."""
    model = Model(docs)
    for write in first:
        model.write(*write)
    model.touched.clear()
    before = {name: set(held) for name, (_, held) in model.live.items()}
    waiting = list(between)
    rows, after = [], None
    while True:
        page = docs.page(size=size, after=after) if where is None else docs.page(where, size, after)
        rows.extend(page.hits)
        after = page.after
        if after is None:
            break
        if waiting:
            for write in waiting.pop(0):
                model.write(*write)
    shown: dict[str, list[str]] = defaultdict(list)
    for hit in rows:
        shown[hit.document].append(hit.id)
    assert {name: len({hit.text for hit in rows if hit.document == name}) for name in shown} == dict.fromkeys(shown, 1)
    assert all(len(set(some)) == len(some) for some in shown.values())
    for name, held in before.items():
        if name not in model.touched:
            assert shown.get(name, []) == sorted(held)
    return rows


@given(
    st.lists(WRITES, max_size=8),
    st.lists(st.lists(WRITES, max_size=2), max_size=12),
    st.integers(1, 4),
    st.booleans(),
)
def test_a_scan_keeps_the_version_that_it_first_saw(first, between, size, filtered):
    config = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3}}}
    with connect(config) as acl:
        where = F["@position"] >= 0 if filtered else None
        check(acl.scoped(testing.principal("writer", "acme")), first, between, size, where)


def rows_of(document, text, *ids):
    return [Chunk(one, document, text, [1.0, 0.0, 0.0]) for one in ids]


@pytest.fixture
def docs(acl, who):
    return acl.scoped(who())


def texts(hits):
    return [(hit.document, hit.id, hit.text) for hit in hits]


def test_a_document_that_was_replaced_between_pages_is_skipped(docs):
    docs.replace("d", rows_of("d", "old", "c0", "c1", "c2"))
    docs.replace("e", rows_of("e", "other", "c0"))
    scan = docs.scan(size=2)
    seen = [next(scan), next(scan)]
    docs.replace("d", rows_of("d", "new", "c0", "c1", "c2", "c3"))
    seen += scan
    assert texts(seen) == [("d", "c0", "old"), ("d", "c1", "old"), ("e", "c0", "other")]


def test_a_document_that_was_deleted_and_written_again_is_another_version(docs):
    """Its generation is the same number, also by a clock that stands."""
    docs.upsert(rows_of("d", "old", "c0", "c1", "c2"))
    scan = docs.scan(size=2)
    seen = [next(scan), next(scan)]
    docs.delete(document="d")
    docs.upsert(rows_of("d", "new", "c0", "c1", "c2"))
    assert texts([*seen, *scan]) == [("d", "c0", "old"), ("d", "c1", "old")]


def test_what_is_added_to_the_version_is_still_shown(docs):
    docs.upsert(rows_of("d", "old", "c0", "c1", "c3"))
    scan = docs.scan(size=2)
    seen = [next(scan), next(scan)]
    docs.upsert(rows_of("d", "more", "c1", "c2"))
    assert texts([*seen, *scan]) == [
        ("d", "c0", "old"), ("d", "c1", "old"), ("d", "c2", "more"), ("d", "c3", "old")
    ]  # fmt: skip


def test_the_last_row_of_a_page_may_go_while_its_version_stays(docs):
    docs.upsert(rows_of("d", "old", "c0", "c1", "c2"))
    scan = docs.scan(size=2)
    seen = [next(scan), next(scan)]
    docs.delete(ids=[("d", "c1")])
    assert [hit.id for hit in [*seen, *scan]] == ["c0", "c1", "c2"]


def test_a_page_is_filled_behind_what_was_skipped(docs):
    docs.replace("d", rows_of("d", "old", "c0", "c1"))
    docs.replace("e", rows_of("e", "other", *CHUNKS))
    first = docs.page(size=1)
    docs.replace("d", rows_of("d", "new", *(f"n{number:02}" for number in range(20))))
    second = docs.page(size=3, after=first.after)
    assert [hit.document for hit in second.hits] == ["e"] * 3
    third = docs.page(size=3, after=second.after)
    assert [hit.id for hit in third.hits] == CHUNKS[3:]
    assert third.after is None


def test_only_a_page_that_begins_inside_a_document_asks_for_its_version(docs, acl):
    docs.upsert(rows_of("d", "old", "c0", "c1"))
    docs.upsert(rows_of("e", "old", "c0", "c1"))
    port = acl.tap()
    assert len(list(docs.scan(size=2))) == 4
    assert len(port.requests) == 3  # the shared tenant's, too
    del port.requests[:]
    assert len(list(docs.scan(size=1))) == 4
    assert len(port.requests) == 5 + 2
