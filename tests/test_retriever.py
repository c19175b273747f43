"""The handles: one body for sync and async."""

from __future__ import annotations

import asyncio
import base64
import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

import vectoracl as v
from vectoracl import (
    ALWAYS,
    Chunk,
    ClosedError,
    DeniedError,
    F,
    InvalidInputError,
    Like,
    RefusedError,
    StoreError,
    VectorACLError,
)

V = [1.0, 0.0, 0.0]
W = [0.0, 1.0, 0.0]


@pytest.fixture
def docs(acl, who, chunk):
    handle = acl.scoped(who())
    handle.upsert(
        [
            chunk("a", "one", (1.0, 0.0, 0.0), lang="en", year=2019),
            chunk("b", "one", (0.9, 0.1, 0.0), lang="de", year=2020),
            chunk("c", "two", (0.8, 0.2, 0.0), lang="en", year=2021),
            chunk("d", "three", (0.0, 1.0, 0.0)),
        ]
    )
    acl.scoped(who("globex")).upsert([chunk("a", "one"), chunk("secret", "hidden")])
    return handle


def ids(hits):
    return [hit.id for hit in hits]


def test_search(docs):
    result = docs.search(V, k=3)
    assert ids(result) == ["a", "b", "c"]
    assert result.complete
    assert [hit.tenant for hit in result] == ["acme"] * 3
    assert result[0].score == pytest.approx(1.0)
    assert result[0].text == "text of a"
    assert (result[0].vector, result[0].metadata) == (None, {"lang": "en", "year": 2019})
    assert ids(docs.search(V, k=100)) == ["a", "b", "c", "d"]
    assert ids(docs.search(V, where=F.lang == "en")) == ["a", "c"]
    assert ids(docs.search(V, min_score=0.95)) == ["a", "b", "c"]
    assert ids(docs.search(V, min_score=0.999)) == ["a"]
    assert len(docs.search(V, where=F.lang == "fr")) == 0


def test_search_by_document(docs):
    assert ids(docs.search(V, k=2, group_by="document")) == ["a", "c"]
    assert ids(docs.search(V, k=2, group_by="document", per_group=2)) == ["a", "b", "c"]
    assert len({hit.document for hit in docs.search(Like("a", "one"), k=1, group_by="document", per_group=2)}) == 1
    assert len({hit.document for hit in docs.search(Like("d"), k=2, group_by="document", per_group=2)}) == 2


@pytest.mark.parametrize(
    ("query", "k", "more", "complete"),
    [
        (Like("c"), 2, {}, True),  # three are requested
        (Like("c"), 3, {}, False),  # a fourth one cannot be
        (Like("c"), 3, {"where": F["@document"] == "two"}, True),  # there is no other
        (Like("c"), 2, {"group_by": "document", "per_group": 3}, True),
        (Like("c"), 3, {"group_by": "document"}, False),  # its document had the place of another
        (Like("a", "one"), 2, {"group_by": "document", "per_group": 2}, True),
        (Like("a", "one"), 2, {"group_by": "document", "per_group": 3}, False),  # its document has a fourth chunk
    ],
)
def test_the_chunk_of_the_query_may_have_the_last_place_that_the_store_has(docs, acl, query, k, more, complete):
    places = {"e": "one", "f": "one", "x": "four", "y": "five"}
    docs.upsert([Chunk(name, document, name, [0.9, 0.2, 0.0]) for name, document in places.items()])
    adapter = acl._stores["main"].store.adapter
    adapter._capabilities = dataclasses.replace(adapter.capabilities, max_k=3)
    result = docs.search(query, k, **more)
    assert result.complete is complete
    assert (result.shortfall is None) is complete


def test_search_many_is_the_same_as_many_searches(docs):
    many = docs.search_many([V, W, Like("a", "one")], k=2)
    assert [ids(one) for one in many] == [ids(docs.search(V, k=2)), ids(docs.search(W, k=2)), ["b", "c"]]
    assert len({one.decision_id for one in many}) == 1


def test_like_of_a_foreign_chunk_is_like_of_a_missing_one(docs, acl):
    port = acl.tap()
    foreign = docs.search(Like("secret"))
    asked = [type(one.operation).__name__ for one in port.requests]
    missing = docs.search(Like("nothing"))
    assert foreign == missing
    assert [type(one.operation).__name__ for one in port.requests] == asked * 2
    assert ids(docs.search(Like("c"), k=2)) == ["b", "a"]
    one, other = acl.outcomes[-3], acl.outcomes[-2]
    assert (one["outcome"], one["returned"]) == (other["outcome"], other["returned"])


def test_fetch_leaves_out_foreign_and_missing_alike(docs):
    assert ids(docs.fetch(["c", "secret", "a", "nothing"])) == ["c", "a"]
    assert [hit.tenant for hit in docs.fetch([("one", "a")])] == ["acme"]
    assert docs.fetch([("hidden", "secret")]) == []
    assert docs.fetch([]) == []


def test_count_page_and_scan(docs):
    assert docs.count() == 4
    assert docs.count(F.year >= 2020) == 2
    first = docs.page(size=3)
    second = docs.page(size=3, after=first.after)
    assert ids(first.hits) + ids(second.hits) == ["a", "b", "d", "c"]
    assert second.after is None
    for size in (1, 2, 3, 4, 5):
        assert ids(docs.scan(size=size)) == ["a", "b", "d", "c"]
    assert ids(docs.scan(F.lang == "en", size=1)) == ["a", "c"]


def test_pages_over_partitions(docs, acl, who, chunk):
    acl.scoped(who("commons")).upsert([chunk("x"), chunk("y")])
    for size in range(1, 8):
        assert ids(docs.scan(size=size)) == ["a", "b", "d", "c", "x", "y"]
        after, sizes = None, []
        while True:
            page = docs.page(size=size, after=after)
            sizes.append(len(page.hits))
            after = page.after
            if after is None:
                break
        assert max(sizes) <= size
        assert sum(sizes) == 6


def forged(after, **changes):
    binding, place, key = orjson.loads(base64.urlsafe_b64decode(after))
    parts = [changes.get("binding", binding), changes.get("place", place), changes.get("key", key)]
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode()


def test_a_foreign_cursor_is_refused(docs, acl, who, chunk):
    after = docs.page(size=1).after
    others = acl.scoped(who("globex"))
    for handle, given in (
        (others, {}),
        (docs, {"where": F.lang == "en"}),
        (docs.narrow(F.lang == "en"), {}),
    ):
        with pytest.raises(InvalidInputError, match="does not belong"):
            handle.page(size=1, after=after, **given)
    assert ids(docs.page(size=1, after=after).hits) == ["b"]


@pytest.mark.parametrize("place", [-1, 2, 99, True, "0", None, 1.0])
def test_a_forged_place_is_refused(docs, place):
    with pytest.raises(InvalidInputError):
        docs.page(size=1, after=forged(docs.page(size=1).after, place=place))


@pytest.mark.parametrize(
    "key",
    [
        [],
        ["one"],
        ["one", 0],
        ["one", "x", "a"],
        ["one", -1, "a"],
        ["one", 2**63, "a"],
        [None, 0, "a"],
        ["one", 0, None],
        {},
        {"a": 1},
        7,
        "abc",
        ["", 0, "a"],
        ["x" * 600, 0, "a"],
    ],
)
def test_a_forged_key_is_refused(docs, key):
    with pytest.raises(InvalidInputError):
        docs.page(size=1, after=forged(docs.page(size=1).after, key=key))


@pytest.mark.parametrize(
    "after",
    ["", "x", "é", b"abc", 7, {}, "A" * 100_000, base64.b64encode(b"{}").decode(), base64.b64encode(b"null").decode()],
)
def test_what_is_no_cursor_is_refused(docs, after):
    with pytest.raises(InvalidInputError):
        docs.page(after=after)


def test_a_forged_position_moves_only_inside_of_the_scope(docs):
    after = docs.page(size=1).after
    for key in (["a", 0, "a"], ["hidden", 0, "a"], ["zzz", 0, "z"]):
        page = docs.page(size=100, after=forged(after, key=key))
        assert {hit.tenant for hit in page.hits} <= {"acme"}
        assert "secret" not in ids(page.hits)


def test_upsert_overwrites_and_counts(docs, chunk):
    assert docs.upsert([chunk("a", "one", lang="fr"), chunk("new", "one")]).count == 2
    assert docs.fetch(["a"])[0].metadata == {"lang": "fr"}
    assert docs.count() == 5
    assert docs.upsert([]).count == 0


def test_replace_makes_a_new_generation(docs, chunk, acl, who):
    assert docs.replace("one", [chunk("z", "one")]).count == 1
    assert ids(docs.scan(F["@document"] == "one")) == ["z"]
    assert docs.fetch(["z"])[0].tag.generation == 1
    assert docs.replace("one", []).count == 0
    assert docs.count() == 2
    assert acl.scoped(who("globex")).count() == 2


def test_delete_by_each_selector(docs, acl, who):
    assert docs.delete(ids=["secret", "nothing"]).count == 0
    assert docs.delete(document="hidden").count == 0
    assert docs.delete(ids=[("one", "a"), "c"]).count == 2
    assert docs.delete(document="one").count == 1
    assert docs.delete(where=ALWAYS).count == 1
    assert docs.count() == 0
    assert acl.scoped(who("globex")).count() == 2


def test_narrow_only_shrinks(docs):
    english = docs.narrow(F.lang == "en")
    assert ids(english.scan()) == ["a", "c"]
    assert ids(english.search(V, where=F.lang == "de")) == []
    assert ids(english.search(V, where=(F.lang == "de") | (F.lang == "en"))) == ["a", "c"]
    assert ids(english.narrow(F.lang == "de").scan()) == []
    assert ids(english.narrow(ALWAYS).scan()) == ["a", "c"]
    assert ids(english.narrow(~(F.lang == "en")).scan()) == []
    assert english.fetch(["b"]) == []
    assert english.search(Like("b")) == english.search(Like("nothing"))
    assert docs.count() == 4


def test_narrowed_actions_do_not_come_back(docs):
    reader = docs.narrow(actions=["search"])
    assert len(reader.search(V)) == 4
    for call in (
        reader.count,
        lambda: reader.fetch(["a"]),
        reader.page,
        lambda: reader.upsert([]),
        lambda: reader.delete(document="one"),
    ):
        with pytest.raises(DeniedError):
            call()
    wider = reader.narrow(actions=["search", "count", "delete"])
    with pytest.raises(DeniedError):
        wider.count()
    with pytest.raises(DeniedError):
        reader.narrow(actions=[]).search(V)


def test_a_narrowed_handle_writes_only_inside(docs, chunk):
    english = docs.narrow(F.lang == "en")
    before = [(hit.id, hit.metadata, hit.tag.generation) for hit in docs.scan()]
    for call in (
        lambda: english.upsert([chunk("n", "one", lang="de")]),
        lambda: english.upsert([chunk("n", "one")]),
        lambda: english.upsert([chunk("b", "one", lang="en")]),
        lambda: english.upsert([chunk("n", "one", lang="en"), chunk("b", "one", lang="en")]),
        lambda: english.replace("one", [chunk("n", "one", lang="en")]),
        lambda: english.replace("one", []),
        lambda: english.replace("new", [chunk("n", "new", lang="de")]),
    ):
        with pytest.raises(DeniedError) as caught:
            call()
        assert caught.value.decision_id
    assert english.delete(ids=["b"]).count == 0
    assert english.delete(where=F.lang == "de").count == 0
    assert [(hit.id, hit.metadata, hit.tag.generation) for hit in docs.scan()] == before
    assert english.upsert([chunk("n", "one", lang="en")]).count == 1
    assert english.delete(document="one").count == 2
    assert ids(docs.scan(F["@document"] == "one")) == ["b"]


def test_a_handle_narrowed_to_a_document(docs, chunk):
    two = docs.narrow(F["@document"] == "two")
    assert two.delete(document="one").count == 0
    with pytest.raises(DeniedError):
        two.replace("one", [chunk("x", "one")])
    with pytest.raises(DeniedError):
        two.upsert([chunk("x", "one")])
    assert two.upsert([chunk("x", "two")]).count == 1
    assert docs.count() == 5


def test_with_ends_a_handle_and_what_came_of_it(docs):
    narrow = docs.narrow(F.lang == "en")
    rows = docs.scan(size=3)
    assert next(rows).id == "a"
    inner = docs.narrow()
    inner.enter()
    assert inner.count() == 4
    inner.leave()
    with pytest.raises(ClosedError):
        inner.count()
    assert docs.count() == narrow.narrow(ALWAYS).count() + 2
    docs.enter()
    docs.leave()
    for call in (
        docs.count,
        narrow.count,
        lambda: docs.narrow(),
        lambda: next(rows),
        docs.enter,
        lambda: docs.upsert([]),
    ):
        with pytest.raises(ClosedError):
            call()


def test_a_handle_is_not_serialised(docs):
    for transport in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(RefusedError):
            transport(docs.real)


def test_a_handle_has_no_way_to_another_tenant(docs):
    for name in ("principal", "tenant", "scope", "store", "adapter", "unscoped", "execute"):
        assert not hasattr(docs.real, name)
    with pytest.raises((AttributeError, TypeError)):
        docs.real.tenant = "globex"
    assert "tenant" not in Chunk.__dataclass_fields__


def test_look_alike_tenants_never_merge(acl, who, chunk):
    names = ["acme", "Acme", "ACME", "acme1", "acm", "café", "acme/x", "acme:x", "асме"]
    for name in names:
        acl.scoped(who(name)).upsert([chunk("c", name)])
    for name in names:
        assert [hit.document for hit in acl.scoped(who(name)).scan()] == [name]


def test_one_id_in_two_documents_and_tenants(docs, acl, who, chunk):
    docs.upsert([chunk("a", "two")])
    assert [(hit.document, hit.id) for hit in docs.fetch(["a"])] == [("one", "a"), ("two", "a")]
    with pytest.raises(InvalidInputError, match="Several documents"):
        docs.search(Like("a"))
    assert docs.delete(ids=[("two", "a")]).count == 1
    assert len(acl.scoped(who("globex")).fetch(["a"])) == 1


def test_no_vector_and_no_embedder(docs, acl):
    port = acl.tap()
    with pytest.raises(VectorACLError):
        docs.upsert([Chunk("n", "doc", "text")])
    with pytest.raises(VectorACLError):
        docs.search("words")
    assert port.requests == []


@pytest.mark.parametrize("operation", ["search", "count", "upsert", "replace"])
def test_what_an_adapter_cannot_is_refused(acl, who, chunk, operation):
    docs = acl.scoped(who())
    port = acl.tap(operations=frozenset({"fetch", "delete", "scan"}))
    calls = {
        "search": lambda: docs.search(V),
        "count": docs.count,
        "upsert": lambda: docs.upsert([chunk()]),
        "replace": lambda: docs.replace("doc", [chunk()]),
    }
    with pytest.raises(RefusedError):
        calls[operation]()
    assert port.requests == []
    assert list(docs.scan()) == []


# --- load ---


def stream(count, chunk, taken=None):
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield chunk(f"c{number:03}", f"d{number % 7}")


def test_load_in_batches_and_bounded_memory(acl, who, chunk):
    docs, port, taken, lags, told = acl.scoped(who()), acl.tap(), [], [], []

    def answer(request, go):
        lags.append(len(taken) - sum(len(one.records) for one in port.operations[:-1]))
        return go()

    port.answer = answer
    report = docs.load(stream(95, chunk, taken), batch=10, progress=told.append)
    assert (report.written, report.skipped, report.batches) == (95, 0, 10)
    assert max(lags) <= 10
    assert told == [*range(10, 91, 10), 95]
    port.answer = None
    assert docs.count() == 95
    assert {hit.tag.path for hit in docs.scan()} == {"load"}


@pytest.mark.parametrize("batch", [0, -1, True, 10**9, "5", 1.5])
def test_load_refuses_a_bad_batch(acl, who, chunk, batch):
    taken: list[int] = []
    with pytest.raises(InvalidInputError):
        acl.scoped(who()).load(stream(3, chunk, taken), batch=batch)
    assert taken == []


@pytest.mark.parametrize("bad", [None, "chunks", b"x", 7])
def test_load_refuses_what_is_no_stream(acl, who, bad):
    with pytest.raises(InvalidInputError):
        acl.scoped(who()).load(bad)


@pytest.mark.parametrize("item", [None, "c", {"id": "c"}, 7, Chunk(["c"], "doc", "t", V), Chunk("c", {}, "t", V)])
def test_load_does_not_stop_silently_at_a_bad_item(acl, who, chunk, item):
    docs = acl.scoped(who())
    with pytest.raises(InvalidInputError) as caught:
        docs.load([chunk("a"), chunk("b"), item, chunk("c")], batch=2)
    assert any("2 chunks were written" in note and "may or may not" not in note for note in caught.value.__notes__)
    assert docs.count() == 2


def test_a_chunk_twice_in_a_stream_is_two_writes(acl, who, chunk):
    docs = acl.scoped(who())
    report = docs.load([chunk("a", lang="en"), chunk("a", lang="de"), chunk("b")], batch=10)
    assert (report.written, report.batches) == (3, 2)
    assert docs.fetch(["a"])[0].metadata == {"lang": "de"}


def interrupting(acl, at, error):
    port = acl.tap()

    def answer(request, go):
        if len(port.requests) == at:
            raise error
        return go()

    port.answer = answer
    return port


def test_an_interrupted_load_says_what_was_written_and_resumes_exactly(acl, who, chunk, tmp_path):
    docs, journal = acl.scoped(who()), tmp_path / "journal.json"
    port = interrupting(acl, 4, StoreError("gone", sent="unknown"))
    with pytest.raises(StoreError) as caught:
        docs.load(stream(50, chunk), batch=10, resume=journal)
    assert caught.value.written == 30
    assert any("30 chunks were written" in note and str(journal) in note for note in caught.value.__notes__)
    port.answer = None
    before = len(port.operations)
    report = docs.load(stream(50, chunk), batch=10, resume=journal)
    assert (report.written, report.skipped) == (20, 30)
    written = [record.tag.chunk for one in port.operations[before:] for record in getattr(one, "records", ())]
    assert written == [f"c{number:03}" for number in range(30, 50)]
    assert docs.count() == 50
    assert not journal.exists()


@pytest.mark.parametrize("error", [asyncio.CancelledError, LookupError])
def test_any_interruption_has_the_note(acl, who, chunk, error):
    docs = acl.scoped(who())

    def broken():
        yield from stream(25, chunk)
        raise error

    with pytest.raises(error) as caught:
        docs.load(broken(), batch=10)
    assert any("20 chunks were written" in note for note in caught.value.__notes__)
    assert docs.count() == 20


def test_a_callback_that_fails_has_the_note(acl, who, chunk, tmp_path):
    docs = acl.scoped(who())

    def progress(written):
        raise LookupError

    with pytest.raises(LookupError) as caught:
        docs.load(stream(25, chunk), batch=10, progress=progress, resume=tmp_path / "j")
    assert any("10 chunks were written" in note for note in caught.value.__notes__)
    assert docs.load(stream(25, chunk), batch=10, resume=tmp_path / "j").skipped == 10


def begun(acl, who, chunk, journal, tenant="acme"):
    port = interrupting(acl, 3, StoreError("gone"))
    with pytest.raises(StoreError):
        acl.scoped(who(tenant)).load(stream(50, chunk), batch=10, resume=journal)
    port.answer = None
    return port


def test_a_journal_of_another_stream_or_tenant_is_refused(acl, who, chunk, tmp_path):
    journal = tmp_path / "journal.json"
    port = begun(acl, who, chunk, journal)
    before = len(port.requests)
    kept = journal.read_bytes()
    others = [chunk(f"x{number}") for number in range(50)]
    shuffled = list(stream(50, chunk))[::-1]
    for tenant, given in (
        ("acme", others),
        ("acme", shuffled),
        ("acme", []),
        ("acme", others[:5]),
        ("globex", stream(50, chunk)),
    ):
        with pytest.raises(InvalidInputError, match="another stream or tenant"):
            acl.scoped(who(tenant)).load(given, batch=10, resume=journal)
    assert len(port.requests) == before
    assert journal.read_bytes() == kept
    assert acl.scoped(who()).load(stream(50, chunk), batch=10, resume=journal).skipped == 20


def test_a_delete_of_no_ids_sends_nothing(acl, who, chunk):
    docs = acl.scoped(who())
    docs.upsert([chunk("c1")])
    port = acl.tap()
    assert docs.delete(ids=[]).count == 0
    assert port.requests == []
    assert docs.delete(ids=["c1"]).count == len(port.requests) == 1


def test_a_cursor_is_bound_to_the_partitions_that_it_counts(api, who, chunk, config):
    """A place among the partitions means another one when a shared tenant was added or taken away in between."""
    cursors = {}
    for shared in ((), ("commons",), ("aaa", "commons")):
        acl = api.connect({**config, "tenants": {"shared": list(shared)}})
        docs = acl.scoped(who())
        docs.upsert([chunk("c1"), chunk("c2")])
        cursors[shared] = docs.page(size=1).after
        assert [hit.id for hit in docs.page(size=1, after=cursors[shared]).hits] == ["c2"]
        for other, cursor in cursors.items():
            if other != shared:
                with pytest.raises(InvalidInputError, match="does not belong"):
                    docs.page(size=1, after=cursor)


@pytest.mark.parametrize("where", ["nowhere/journal.json", "a\0b", "file/journal.json"])
def test_a_journal_that_cannot_be_kept_is_refused_before_anything_is_written(acl, who, chunk, tmp_path, where):
    (tmp_path / "file").write_text("")
    docs = acl.scoped(who())
    with pytest.raises(InvalidInputError, match="existing folder") as caught:
        docs.load(stream(5, chunk), resume=str(tmp_path / where))
    assert caught.value.field == "resume"
    assert docs.count() == 0
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


def test_two_loads_never_share_a_journal(acl, who, chunk, tmp_path, config):
    journal = tmp_path / "journal.json"
    (tmp_path / "same").symlink_to(journal)
    docs = acl.scoped(who())
    refused = []

    def also():
        yield from stream(15, chunk)
        for name in ("journal.json", "same"):
            with v.connect(config) as other, pytest.raises(InvalidInputError, match="Another load") as caught:
                other.scoped(who()).load(stream(5, chunk), resume=tmp_path / name)
            refused.append(caught.value.field)
        yield from list(stream(25, chunk))[15:]

    assert docs.load(also(), batch=10, resume=journal).written == 25
    assert refused == ["resume"] * 2
    assert docs.load(stream(5, chunk), resume=journal).written == 5
    assert [one.name for one in tmp_path.iterdir()] == ["same"]


def test_the_lock_of_a_load_ends_with_it_and_with_its_process(acl, who, chunk, tmp_path):
    journal = tmp_path / "journal.json"
    code = (
        f"from vectoracl._util.file_lock import FileLock; import os; assert FileLock({str(journal)!r} + '.lock').held; "
    )
    subprocess.run([sys.executable, "-c", code + "os._exit(0)"], check=True, timeout=60)
    assert (tmp_path / "journal.json.lock").exists()
    begun(acl, who, chunk, journal)
    assert [one.name for one in tmp_path.iterdir()] == ["journal.json"]
    assert acl.scoped(who()).load(stream(50, chunk), batch=10, resume=journal).skipped == 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("place", "fails"), [(os, "fdopen"), (Path, "replace")])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_disk_that_fills_in_the_middle_of_a_load(acl, who, chunk, tmp_path, monkeypatch, place, fails, batch):
    docs, journal = acl.scoped(who()), tmp_path / "journal.json"
    calls = []
    real = getattr(place, fails)

    def full(*given):
        calls.append(1)
        if len(calls) == batch + (fails == "fdopen"):  # the first one is the assertions before the load
            raise OSError(28, "No space left on device")
        return real(*given)

    monkeypatch.setattr(place, fails, full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        docs.load(stream(50, chunk), batch=10, resume=journal)
    monkeypatch.undo()
    error = caught.value
    assert (error.code, error.written, docs.count()) == ("journal", batch * 10, batch * 10)
    assert f"lists {batch * 10 - 10:,} chunks of the stream while {batch * 10:,} are in the store" in str(error)
    assert any(f"{batch * 10} chunks were written" in note for note in error.__notes__)
    assert error.__cause__ is None
    assert [one.name for one in tmp_path.iterdir()] == ([] if batch == 1 else ["journal.json"])
    report = docs.load(stream(50, chunk), batch=10, resume=journal)
    assert (report.skipped, report.written, docs.count()) == (batch * 10 - 10, 60 - batch * 10, 50)


def test_a_journal_that_cannot_be_removed_is_said(acl, who, chunk, tmp_path, monkeypatch):
    docs, journal = acl.scoped(who()), tmp_path / "journal.json"
    real = Path.unlink

    def stuck(self, **given):
        if self.name == "journal.json":
            raise OSError(1, "Operation not permitted")
        real(self, **given)

    monkeypatch.setattr(Path, "unlink", stuck)
    with pytest.raises(StoreError, match="every chunk of the stream is in the store") as caught:
        docs.load(stream(5, chunk), resume=journal)
    assert (caught.value.code, caught.value.written, docs.count()) == ("journal", 5, 5)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "x",
        "[]",
        "7",
        '{"written": 1}',
        '{"written": -1, "digest": ""}',
        '{"written": "x", "digest": ""}',
        '{"written": 99999999999999999999, "digest": ""}',
        '{"written": null, "digest": 1}',
    ],
)
def test_what_is_no_journal_is_refused(acl, who, chunk, tmp_path, content):
    journal = tmp_path / "journal.json"
    journal.write_text(content)
    port = acl.tap()
    with pytest.raises(InvalidInputError):
        acl.scoped(who()).load(stream(5, chunk), resume=journal)
    assert port.requests == []


def test_a_load_ends_when_the_principal_expires(api, who, chunk, clock):
    acl = api.connect(clock=clock)
    docs = acl.scoped(who(expires_at=clock.now + 10))

    def progress(written):
        if written == 20:
            clock.now += 10

    with pytest.raises(DeniedError) as caught:
        docs.load(stream(50, chunk), batch=10, progress=progress)
    assert any("20 chunks were written" in note for note in caught.value.__notes__)


def test_unequal_keys_of_stored_chunks():
    from vectoracl.model.records import docgen, stored_key

    parts = ["a", "ab", "b", "bc", "", "1:a", "a:1", "0"]
    keys = {(t, d, g, c): stored_key(t, d, g, c) for t in parts for d in parts for g in (0, 1, 10) for c in parts}
    assert len(set(keys.values())) == len(keys)
    assert len({docgen(d, g) for d in parts for g in range(12)}) == len(parts) * 12


def too_large_beyond(monkeypatch, acl, most):
    """Make the store refuse calls of more than *most* chunks as one request; return the sizes that it met."""
    adapter = acl._named(acl.config.default).store.adapter
    right = adapter.upsert
    met = []

    def upsert(operation):
        met.append(len(operation.records))
        if len(operation.records) > most:
            raise v.TooLargeError("It does not fit one request.", field="chunks")
        return (yield from right(operation))

    monkeypatch.setattr(adapter, "upsert", upsert)
    return met


def test_load_makes_batches_smaller_where_their_size_is_left_to_it(monkeypatch, tmp_path):
    config = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 2}}}
    principal = v.testing.principal("w", "acme")
    chunks = [v.Chunk(str(n), "d", "x", [1.0, n]) for n in range(700)]
    with v.VectorACL(config) as acl:
        met = too_large_beyond(monkeypatch, acl, 60)
        heard = []
        report = acl.scoped(principal).load(iter(chunks), resume=tmp_path / "journal", progress=heard.append)
        assert (report.written, acl.scoped(principal).count()) == (700, 700)
        assert heard == sorted(heard)
        assert met.count(max(met)) == 1  # the size that fitted is kept
        with pytest.raises(v.TooLargeError):
            acl.scoped(principal).load(iter(chunks), batch=100)
        adapter_of_one = too_large_beyond(monkeypatch, acl, 0)
        with pytest.raises(v.TooLargeError):
            acl.scoped(principal).load(iter(chunks[:3]))
        assert adapter_of_one[-1] == 1


def test_the_async_load_makes_batches_smaller_too(monkeypatch):
    config = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 2}}}
    principal = v.testing.principal("w", "acme")

    async def work():
        async with v.aconnect(config) as acl:
            too_large_beyond(monkeypatch, acl, 60)
            report = await acl.scoped(principal).load(v.Chunk(str(n), "d", "x", [1.0, n]) for n in range(700))
            return report.written, await acl.scoped(principal).count()

    assert asyncio.run(work()) == (700, 700)


def test_a_bare_chunk_id_that_too_many_documents_have_is_refused():
    config = {"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 2}}}
    with v.connect(config) as acl:
        docs = acl.scoped(v.testing.principal("ann", "acme"))
        docs.load((Chunk("same", f"d{i}", vector=[1.0, i]) for i in range(10_001)), batch=5_000)
        with pytest.raises(InvalidInputError, match="pairs") as refused:
            docs.fetch(["same"])
        assert refused.value.field == "ids"
        with pytest.raises(InvalidInputError, match="Several documents"):
            docs.search(Like("same"))
        docs.delete(document="d0")
        assert len(docs.fetch(["same"])) == 10_000
        assert len(docs.search(Like("same", "d7"), 3)) == 3
