"""The memory store under threads: every pair of operations at once, with threads that switch as often as can be."""

from __future__ import annotations

import secrets
import sys
import threading

import pytest

import vectoracl
from vectoracl import Chunk, F, Hybrid, Lexical, Principal

V = [1.0, 0.0, 0.0]
TURNS = 10


def version(number):
    """A whole version of the document: every chunk says which one it belongs to."""
    return [
        Chunk(f"c{place}", "doc", f"word v{number}", V, metadata={"year": number, "lang": "en"}) for place in range(4)
    ]


OPERATIONS = {
    "search": lambda docs, _: docs.search(V, 50),
    "lexical": lambda docs, _: docs.search(Lexical("word"), 50),
    "hybrid": lambda docs, _: docs.search(Hybrid("word", V), 50),
    "fetch": lambda docs, _: docs.fetch([f"c{place}" for place in range(4)]),
    "count": lambda docs, _: docs.count(F.lang == "en"),
    "facets": lambda docs, _: docs.facets("year"),
    "page": lambda docs, _: docs.page(size=3).hits,
    "scan": lambda docs, _: list(docs.scan(size=2)),
    "upsert": lambda docs, turn: docs.upsert(version(turn)),
    "replace": lambda docs, turn: docs.replace("doc", version(turn)),
    "delete": lambda docs, turn: docs.delete(where=F.year < turn),
    "clear": lambda docs, _: docs.delete(document="doc"),
}
ONE_STATE = {"search", "lexical", "hybrid", "fetch", "page"}


@pytest.fixture
def hasty():
    """Let threads switch after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def person():
    return Principal("ann", "acme", authenticated_by="test")


@pytest.mark.parametrize("first", OPERATIONS)
@pytest.mark.usefixtures("hasty")
def test_every_pair_of_operations(first):
    """Each on a client of its own over one store, begun at one moment, again and again."""
    store = {"adapter": "memory", "dimension": 3, "name": secrets.token_hex(8)}
    store["metadata"] = {"year": "number", "lang": "keyword"}
    config = {"version": 1, "stores": {"main": store}}
    wrong = []
    with vectoracl.connect(config) as one, vectoracl.connect(config) as other:
        for second in OPERATIONS:
            barrier = threading.Barrier(2, timeout=60)
            one.scoped(person()).replace("doc", version(0))

            def work(acl, name, number, barrier=barrier, second=second):
                docs = acl.scoped(person())
                try:
                    for turn in range(1, TURNS):
                        barrier.wait()
                        found = OPERATIONS[name](docs, 2 * turn + number)
                        hits = found if name in ONE_STATE else ()
                        versions = {hit.text for hit in hits}
                        if any(hit.text != f"word v{hit.metadata['year']}" for hit in hits):
                            wrong.append((first, second, name, "a torn row"))
                        if len(versions) > 1:
                            wrong.append((first, second, name, versions))
                except BaseException as error:
                    wrong.append((first, second, name, repr(error)))
                    barrier.abort()

            threads = [
                threading.Thread(target=work, args=(acl, name, number))
                for number, (acl, name) in enumerate([(one, first), (other, second)])
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ends = one.scoped(person()).fetch([f"c{place}" for place in range(4)])
            assert len({(hit.document, hit.id) for hit in ends}) == len(ends)
    assert wrong == []


@pytest.mark.usefixtures("hasty")
def test_a_crowd_on_one_handle():
    """Eight threads share a client and a handle; counts and answers are those of some moment."""
    config = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3, "metadata": {"year": "number"}}}}
    wrong = []
    with vectoracl.connect(config) as acl:
        docs = acl.scoped(person())
        barrier = threading.Barrier(8, timeout=60)

        def work(number):
            try:
                barrier.wait()
                for turn in range(15):
                    docs.replace(f"doc{number}", [Chunk("c", f"doc{number}", f"v{turn}", V, metadata={"year": turn})])
                    (mine,) = docs.fetch([(f"doc{number}", "c")])
                    if mine.text != f"v{turn}":
                        wrong.append((number, turn, mine.text))
                    if not 1 <= docs.count() <= 8:
                        wrong.append((number, turn, "count"))
            except BaseException as error:
                wrong.append((number, repr(error)))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert docs.count() == 8
    assert wrong == []
