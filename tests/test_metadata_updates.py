"""`update_metadata`: keys of a whole document change, under the scope, all or none, and never over a newer version."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from tests.test_copy_stores import DIMENSION, FIELDS, stores  # noqa: F401 - a fixture
from tests.test_governance import ANN, BOB, acl, clock, govern  # noqa: F401 - fixtures
from vectoracl import (
    Chunk,
    DeniedError,
    F,
    HeldError,
    InvalidInputError,
    ReservedFieldError,
    StoreError,
    UnsupportedPredicateError,
    hazmat,
)
from vectoracl.testing import principal

WHO = principal("ann", "acme")
OTHER = principal("eve", "globex")


def chunk(name, document, dimension=DIMENSION, **metadata):
    vector = [1.0, float(len(name)), *([0.0] * (dimension - 2))]
    return Chunk(name, document, f"word {name}", vector, metadata=metadata)


def memory(name):
    given = {"adapter": "memory", "dimension": DIMENSION, "metadata": dict(FIELDS), "name": name}
    return {"version": 1, "stores": {"main": given}}


@pytest.fixture(params=["memory", "pgvector"])
def here(request, stores):  # noqa: F811 - the fixture
    if request.param.startswith("memory"):
        config = memory("updates")
    else:
        config = {"version": 1, "stores": {"main": {**stores("pgvector").config, "metadata": dict(FIELDS)}}}
    config["stores"]["main"]["expiring"] = request.param.endswith("expiring")
    with v.connect(config) as here:
        for who in (WHO, OTHER):
            here.scoped(who).delete(where=v.ALWAYS)
            here.scoped(who).upsert(
                [
                    chunk("a", "d", lang="en", year=1999, free={"x": [1]}),
                    chunk("bb", "d", lang="fr"),
                    chunk("a", "e", lang="en"),
                ]
            )
        yield here


@pytest.fixture
def docs(here):
    return here.scoped(WHO)


def metadata(handle):
    return {(hit.document, hit.id): hit.metadata for hit in handle.scan()}


pytestmark = pytest.mark.server


def test_keys_are_set_and_taken_away(here, docs):
    others = metadata(here.scoped(OTHER))
    before = {(hit.document, hit.id): hit for hit in docs.scan(include={"text", "vector"})}
    done = docs.update_metadata("d", {"lang": "de", "free": None, "more": {"deep": [1, None]}, "ok": True})
    assert (done.count, done.atomic) == (2, True)
    assert metadata(docs) == {
        ("d", "a"): {"lang": "de", "year": 1999, "more": {"deep": [1, None]}, "ok": True},
        ("d", "bb"): {"lang": "de", "more": {"deep": [1, None]}, "ok": True},
        ("e", "a"): {"lang": "en"},
    }
    assert metadata(here.scoped(OTHER)) == others
    after = {(hit.document, hit.id): hit for hit in docs.scan(include={"text", "vector"})}
    for key, hit in before.items():
        assert after[key].text == hit.text
        assert after[key].tag == hit.tag
        assert np.array_equal(after[key].vector, hit.vector)
    assert [hit.id for hit in docs.scan(where=F.ok == True)] == ["a", "bb"]  # noqa: E712 - a filter
    assert docs.update_metadata("nothing", {"lang": "de"}).count == 0
    assert asyncio.run(asynchronous(here)) == 2


async def asynchronous(here):
    async with v.aconnect(here.config) as other:
        return (await other.scoped(WHO).update_metadata("d", {"year": None})).count


def test_what_is_refused(here, docs):
    before = metadata(docs)
    for wrong in (None, {}, [("lang", "de")], {"lang": 3}, {"@tenant": "x"}, {"@label": None}, {"": 1}, {"year": "no"}):
        with pytest.raises((InvalidInputError, ReservedFieldError)):
            docs.update_metadata("d", wrong)
    with pytest.raises(InvalidInputError, match="larger than"):
        docs.update_metadata("d", {"more": "x" * 32_760})
    narrow = docs.narrow(where=F.lang == "en")
    with pytest.raises(DeniedError, match="existing chunk"):
        narrow.update_metadata("d", {"year": 1})  # a part of it is outside
    with pytest.raises(DeniedError, match="would be"):
        narrow.update_metadata("e", {"lang": "fr"})
    assert docs.narrow(where=F.lang == "xx").update_metadata("e", {"year": 1}).count == 0  # as one that is missing
    with pytest.raises(DeniedError):
        docs.narrow(actions=["search", "replace"]).update_metadata("e", {"year": 1})
    assert metadata(docs) == before
    assert narrow.update_metadata("e", {"year": 1}).count == 1


@pytest.mark.parametrize("what", ["replaced", "another chunk", "deleted"])
def test_a_document_that_was_written_in_the_meantime_is_left_alone(here, docs, monkeypatch, what):
    adapter = type(here._stores["main"].store.adapter)
    update = adapter.update_metadata

    def late(self, operation):
        if what == "replaced":
            docs.replace("d", [chunk("a", "d", lang="it"), chunk("bb", "d", lang="it")])
        elif what == "deleted":
            docs.delete(ids=[("d", "bb")])
        else:
            docs.upsert([chunk("ccc", "d", lang="it")])
        return (yield from update(self, operation))

    monkeypatch.setattr(adapter, "update_metadata", late)
    with pytest.raises(StoreError) as caught:
        docs.update_metadata("d", {"lang": "de"})
    assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("conflict", "no", True)
    assert "de" not in {one.get("lang") for one in metadata(docs).values()}


@pytest.mark.parametrize("what", ["the same chunk again", "one chunk for another", "left", "would leave"])
def test_a_chunk_that_changed_under_the_scope_in_the_meantime_is_left_alone(here, docs, monkeypatch, what):
    narrow = docs.narrow(where=(F.lang == "en") | (F.year == 1))
    docs.replace("d", [chunk("a", "d", lang="en", year=1), chunk("bb", "d", lang="en", year=1)])
    adapter = type(here._stores["main"].store.adapter)
    update = adapter.update_metadata

    def late(self, operation):
        monkeypatch.setattr(adapter, "update_metadata", update)
        if what == "the same chunk again":
            docs.upsert([chunk("bb", "d", lang="en", year=1)])
        elif what == "one chunk for another":
            docs.delete(ids=[("d", "bb")])
            docs.upsert([chunk("ccc", "d", lang="en", year=1)])
        elif what == "left":
            docs.update_metadata("d", {"lang": "fr", "year": 2})
        else:
            docs.update_metadata("d", {"year": 2})
        return (yield from update(self, operation))

    monkeypatch.setattr(adapter, "update_metadata", late)
    with pytest.raises(StoreError) as caught:
        narrow.update_metadata("d", {"lang": "de"})
    assert (caught.value.code, caught.value.sent, caught.value.retryable) == ("conflict", "no", True)
    assert "de" not in {one.get("lang") for one in metadata(docs).values()}
    docs.update_metadata("d", {"lang": "en", "year": 1})
    assert narrow.update_metadata("d", {"lang": "de"}).count == 2


@pytest.mark.parametrize("here", ["memory expiring", "pgvector expiring"], indirect=True)
def test_what_has_expired_reads_like_none(here, docs):
    docs.replace("d", [replace(chunk("a", "d", lang="fr"), expires=2e9), chunk("bb", "d", lang="en")])
    narrow = docs.narrow(where=F.lang == "en")
    with pytest.raises(DeniedError):
        narrow.update_metadata("d", {"year": 1})
    here.pipeline.clock = lambda: 2e9
    assert narrow.update_metadata("d", {"year": 1}).count == 1
    assert metadata(docs)["d", "bb"] == {"lang": "en", "year": 1}
    here.pipeline.clock = lambda: 1e9  # the clock of reads is not set back
    docs.replace("e", [replace(chunk("a", "e"), expires=2e9)])
    assert docs.update_metadata("e", {"year": 1}).count == 0
    assert {row.tag.chunk: row.metadata for row in rows(here) if row.tag.document == "d"}["a"] == {"lang": "fr"}


def rows(here):
    return hazmat.operate(here, reason="a test of expiry").read("acme", 100).hits


_VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.lists(st.integers(0, 9))
_KEYS = st.sampled_from(["a", "b", "ä ö", "x.y", "k'", '"', "%s", "{}"])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.dictionaries(_KEYS, _VALUES.filter(lambda one: one is not None)),
    then=st.dictionaries(_KEYS, _VALUES, min_size=1),
)
def test_it_is_a_dictionary(here, docs, first, then):
    clean = {key: value for key, value in then.items() if value is not None}
    try:
        docs.replace("h", [chunk("a", "h"), replace(chunk("bb", "h"), metadata=first)])
        expected = {**{key: value for key, value in first.items() if key not in then}, **clean}
        docs.update_metadata("h", then)
    except InvalidInputError:
        return
    found = metadata(docs)
    assert found["h", "bb"] == expected
    assert found["h", "a"] == clean


def test_an_adapter_without_it_refuses(monkeypatch):
    from vectoracl.memory.adapter import MemoryAdapter

    with v.connect(memory("refused")) as other:
        whole = other._named("main").store.adapter
        monkeypatch.setattr(whole, "_capabilities", replace(whole.capabilities, atomic_update="none"))
        with pytest.raises(UnsupportedPredicateError, match=r"replace\(\)"):
            other.scoped(WHO).update_metadata("d", {"lang": "de"})
    assert MemoryAdapter.update_metadata


def test_under_a_registry(acl, govern):  # noqa: F811 - fixtures
    docs, bob = acl.scoped(ANN), acl.scoped(BOB)
    docs.upsert([chunk("a", "d", 3, lang="en", year=1), chunk("bb", "d", 3, lang="fr"), chunk("a", "e", 3)])
    done = docs.update_metadata("d", {"lang": "de", "year": None})
    assert (done.count, done.atomic) == (2, True)
    assert {hit.metadata.get("lang") for hit in docs.scan() if hit.document == "d"} == {"de"}
    assert docs.count() == 3
    assert govern.reconcile().left == 0
    assert docs.count(where=F.lang == "de") == 2
    govern.move("d", "hr")
    assert bob.update_metadata("d", {"lang": "it"}).count == 0  # as one that is missing
    assert bob.update_metadata("nothing", {"lang": "it"}).count == 0
    with pytest.raises(DeniedError):
        docs.narrow(where=F.lang == "xx").update_metadata("d", {"lang": "it"}) and docs.narrow(
            where=F.lang == "de"
        ).update_metadata("d", {"lang": "it"})
    govern.hold("e", "matter", reason="a test of holds")
    assert docs.update_metadata("e", {"lang": "it"}).count == 0  # no one sees it
    govern.release("matter", reason="a test of holds")
    assert {one["subject"] for one in govern.history() if one["kind"] == "label"} == {"open", "hr"}
    assert HeldError
