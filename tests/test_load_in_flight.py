"""Loads with several batches in flight: what they report, in what order, and what a failure leaves behind."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectoracl
from vectoracl import Chunk, InvalidInputError, RefusedError, StoreError, TooLargeError, testing
from vectoracl.client import bulk_load
from vectoracl.client.bulk_load import Limit, batches
from vectoracl.engine.load_journal import Journal

BATCH = 5
WIDTH = 4
ANN = testing.principal("ann", "acme")
WAIT = 30.0
CONFIG = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3}}}
LIMITED = {"code": "rate_limited", "sent": "no", "retryable": False}


def stream(number, text="text"):
    for one in range(number):
        yield Chunk(f"c{one:03}", f"d{one % 3}", f"{text} {one}", [1.0, 2.0, 3.0], one)


def stored(docs):
    return sorted(hit.id for hit in docs.scan())


class Store:
    """A memory store whose writes end as the test wants it; it counts how many are in flight.

    `order` maps the number of a write to that of another one, which has to end first. The others end when `full` writes
    have been in flight: a busy machine may begin one of them late.
    """

    def __init__(self, make_api, kind, *, width=WIDTH, **capabilities):
        self.api = make_api(kind)
        self.acl = self.api.connect(CONFIG)
        self.port = self.acl.tap(writes_in_flight=width, **capabilities)
        self.docs = self.acl.scoped(ANN)
        self.lock = threading.Lock()
        self.begun = threading.Condition(self.lock)
        self.full = 0
        self.numbers = {}  # the first chunk of a write, to its number
        self.calls = self.now = self.most = 0
        self.active = Counter()
        self.overlap = self.broken = False
        self.ended = {}
        self.order = {}
        self.fails = {}
        self.hook = lambda _: None
        self.port.answer = self.answer_async if self.api.is_async else self.answer

    def close(self):
        self.api.close()

    def begin(self, request):
        records = getattr(getattr(request, "operation", None), "records", None)
        if records is None:
            return None
        keys = [(one.tag.document, one.tag.chunk) for one in records]
        with self.lock:
            number = self.calls
            self.calls += 1
            self.now += 1
            self.most = max(self.most, self.now)
            self.overlap |= any(self.active[key] for key in keys)
            self.active.update(keys)
            self.begun.notify_all()
        return number, int(records[0].tag.chunk[1:]) // BATCH, keys

    def finish(self, place, keys):
        with self.lock:
            self.now -= 1
            self.active.subtract(keys)
        self.event(place).set()

    def event(self, place):
        with self.lock:
            event = self.ended.setdefault(place, asyncio.Event() if self.api.is_async else threading.Event())
            if self.broken:
                event.set()
            return event

    def let_go(self):
        """End the order: after a failure some writes are never begun."""
        with self.lock:
            self.broken = True
            for event in self.ended.values():
                event.set()

    def outcome(self, place, go):
        failure = self.fails.get(place)
        if failure is None:
            return go()
        error, applied = failure() if callable(failure) else failure
        if applied:
            go()
        if error is not None:
            self.let_go()
            raise error
        return go() if not applied else None

    def answer(self, request, go):
        begun = self.begin(request)
        if begun is None:
            return go()
        number, place, keys = begun
        try:
            self.hook(number)
            if place in self.order:
                assert self.event(self.order[place]).wait(WAIT)
            else:
                with self.begun:
                    assert self.begun.wait_for(lambda: self.most >= self.full, WAIT)
            return self.outcome(place, go)
        finally:
            self.finish(place, keys)

    async def answer_async(self, request, go):
        begun = self.begin(request)
        if begun is None:
            return go()
        number, place, keys = begun
        try:
            self.hook(number)
            if place in self.order:
                await self.event(self.order[place]).wait()
            else:
                async with asyncio.timeout(WAIT):
                    await asyncio.sleep(0)
                    while self.most < self.full:
                        await asyncio.sleep(0)
            return self.outcome(place, go)
        finally:
            self.finish(place, keys)


@pytest.fixture(params=["sync", "async"])
def kind(request):
    return request.param


@pytest.fixture
def store(make_api, kind):
    made = Store(make_api, kind)
    yield made
    made.close()


def chain(orders):
    """Return what each write waits for, so that those of each block end in the block's order."""
    waits = {}
    for block, order in enumerate(orders):
        for first, then in itertools.pairwise(order):
            waits[block * WIDTH + then] = block * WIDTH + first
    return waits


@settings(max_examples=20, deadline=None)
@given(orders=st.lists(st.permutations(range(WIDTH)), min_size=1, max_size=4), ragged=st.integers(0, BATCH - 1))
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_in_whatever_order_writes_end_the_report_is_in_the_order_of_the_stream(make_api, kind, orders, ragged):
    store = Store(make_api, kind)
    try:
        store.order = chain(orders)
        number = len(orders) * WIDTH * BATCH - ragged
        heard = []
        report = store.docs.load(stream(number), batch=BATCH, progress=heard.append)
        assert (report.written, report.skipped) == (number, 0)
        assert heard == [*range(BATCH, number, BATCH), number]
        assert store.most <= WIDTH
        assert stored(store.docs) == sorted(one.id for one in stream(number))
    finally:
        store.close()


def test_as_many_as_the_store_declares_are_in_flight_and_no_more(store):
    store.order = chain([[3, 2, 1, 0]] * 3)  # the first of each block ends last, so that all of it must have begun
    store.full = WIDTH
    store.docs.load(stream(3 * WIDTH * BATCH), batch=BATCH)
    assert store.most == WIDTH


def test_one_in_flight_uses_no_thread_of_its_own(make_api, kind):
    store = Store(make_api, kind, width=1)
    threads = set()
    store.hook = lambda _: threads.add(threading.get_ident())
    store.docs.load(stream(40), batch=BATCH)
    assert (store.most, threads) == (1, {threading.get_ident()})
    store.close()


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(st.integers(0, 12), min_size=1, max_size=60))
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_of_a_chunk_that_comes_again_the_last_one_wins(make_api, kind, ids):
    store = Store(make_api, kind)
    try:
        chunks = [Chunk(f"c{one:03}", "d", f"text {at}", [1.0, 2.0, 3.0]) for at, one in enumerate(ids)]
        report = store.docs.load(iter(chunks), batch=3)
        assert report.written == len(chunks)
        assert not store.overlap
        assert {hit.id: hit.text for hit in store.docs.scan()} == {one.id: one.text for one in chunks}
    finally:
        store.close()


# --- failures


FAILURES = {
    "not sent": lambda: (StoreError("away", sent="no"), False),
    "unknown, not applied": lambda: (StoreError("gone", sent="unknown"), False),
    "unknown, applied": lambda: (StoreError("gone", sent="unknown"), True),
    "refused": lambda: (RefusedError("closed in the meantime"), False),
}
BATCHES = 10


def check_failed(store, error, path, first):
    """Check what *error*, of a load whose write number *first* was the first to fail, promises; then resume."""
    there = stored(store.docs)
    written = first * BATCH
    whole = [one.id for one in stream(BATCHES * BATCH)]
    assert there[:written] == whole[:written]
    assert all(len(set(there) & set(whole[at : at + BATCH])) in (0, BATCH) for at in range(0, len(whole), BATCH))
    assert store.now == 0
    assert any(f"load: {written} chunks were written" in note for note in error.__notes__)
    if isinstance(error, StoreError):
        assert error.written == written
        assert error.sent == "unknown" or len(there) == written
    if len(there) > written:
        assert any("may or may not" in note for note in error.__notes__)
    store.fails, store.order = {}, {}
    calls = store.calls
    report = store.docs.load(stream(BATCHES * BATCH), batch=BATCH, resume=path)
    assert (report.skipped, report.written) == (written, len(whole) - written)
    assert store.calls - calls == BATCHES - first
    assert stored(store.docs) == whole
    assert not path.exists()


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("at", range(BATCHES))
def test_a_failure_at_each_write_is_exact_and_resumed(store, tmp_path, failure, at):
    store.fails = {at: FAILURES[failure]}
    with pytest.raises((StoreError, RefusedError)) as caught:
        store.docs.load(stream(BATCHES * BATCH), batch=BATCH, resume=tmp_path / "journal")
    check_failed(store, caught.value, tmp_path / "journal", at)


@settings(max_examples=40, deadline=None)
@given(
    fails=st.dictionaries(st.integers(0, BATCHES - 1), st.sampled_from(sorted(FAILURES)), min_size=1, max_size=5),
    orders=st.lists(st.permutations(range(WIDTH)), min_size=BATCHES // WIDTH, max_size=BATCHES // WIDTH),
)
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_of_several_failures_the_first_in_the_stream_is_raised(make_api, kind, tmp_path_factory, fails, orders):
    store = Store(make_api, kind)
    try:
        path = tmp_path_factory.mktemp("load") / "journal"
        store.fails = {at: FAILURES[name] for at, name in fails.items()}
        store.order = chain(orders)
        with pytest.raises((StoreError, RefusedError)) as caught:
            store.docs.load(stream(BATCHES * BATCH), batch=BATCH, resume=path)
        first = min(fails)
        assert str(caught.value).startswith(str(FAILURES[fails[first]]()[0]))
        check_failed(store, caught.value, path, first)
    finally:
        store.close()


def test_a_failure_that_is_not_sent_is_unknown_if_a_later_batch_was_written(store, tmp_path):
    store.fails = {0: FAILURES["not sent"]}
    store.order = {0: 2}
    with pytest.raises(StoreError) as caught:
        store.docs.load(stream(50), batch=BATCH, resume=tmp_path / "journal")
    assert (caught.value.written, caught.value.sent) == (0, "unknown")
    assert "c010" in stored(store.docs)


@pytest.mark.parametrize("at", range(0, BATCHES, 3))
def test_an_error_of_the_stream_or_the_callback_waits_for_what_is_in_flight(store, tmp_path, at):
    def broken():
        for number, one in enumerate(stream(BATCHES * BATCH)):
            if number == at * BATCH:
                raise LookupError
            yield one

    with pytest.raises(LookupError) as caught:
        store.docs.load(broken(), batch=BATCH, resume=tmp_path / "journal")
    check_failed(store, caught.value, tmp_path / "journal", at)

    def progress(written):
        raise LookupError

    store.docs.delete(where=vectoracl.ALWAYS)
    with pytest.raises(LookupError) as caught:
        store.docs.load(stream(50), batch=BATCH, progress=progress)
    assert store.now == 0
    written = len(stored(store.docs))
    assert any(f"load: {written} chunks were written" in note for note in caught.value.__notes__)


# --- interruptions


@pytest.mark.parametrize("at", range(BATCHES))
def test_ctrl_c_at_each_write_ends_when_those_in_flight_have_and_is_resumed(make_api, tmp_path, at):
    store = Store(make_api, "sync")
    # The signal comes from the thread of the write, and interrupts the main thread wherever it is.
    store.hook = lambda number: signal.raise_signal(signal.SIGINT) if number == at else None
    path = tmp_path / "journal"
    with pytest.raises(KeyboardInterrupt) as caught:
        store.docs.load(stream(BATCHES * BATCH), batch=BATCH, resume=path)
        signal.raise_signal(signal.SIGINT) if at == BATCHES - 1 else None  # it may come when all is done
    assert store.now == 0
    store.hook = lambda _: None
    if path.exists():
        assert any("chunks were written by this call" in note for note in caught.value.__notes__)
    before = len(stored(store.docs))
    report = store.docs.load(stream(BATCHES * BATCH), batch=BATCH, resume=path)
    assert report.written + report.skipped == BATCHES * BATCH
    assert report.skipped <= before
    assert stored(store.docs) == [one.id for one in stream(BATCHES * BATCH)]
    store.close()


@pytest.mark.parametrize("at", range(BATCHES))
def test_a_cancelled_load_cancels_what_is_in_flight_and_is_resumed(make_api, tmp_path, at):
    store = Store(make_api, "async")
    path = tmp_path / "journal"

    async def work():
        task = asyncio.current_task()
        store.hook = lambda number: task.cancel() if number == at else None
        await store.docs.real.load(stream(BATCHES * BATCH), batch=BATCH, resume=path)
        await asyncio.sleep(0)  # the cancellation of the last write may come here

    with pytest.raises(asyncio.CancelledError):
        store.api.wait(work())
    assert store.now == 0
    store.hook = lambda _: None
    report = store.docs.load(stream(BATCHES * BATCH), batch=BATCH, resume=path)
    assert report.written + report.skipped == BATCHES * BATCH
    assert stored(store.docs) == [one.id for one in stream(BATCHES * BATCH)]
    store.close()


# --- rate limits


@pytest.fixture
def pauses(monkeypatch):
    """The pauses that a load makes, without their time."""
    made = []

    async def asleep(seconds):
        if seconds:
            made.append(seconds)

    monkeypatch.setattr("vectoracl.client.retriever._pause", made.append)
    monkeypatch.setattr("vectoracl.client.retriever._apause", asleep)
    return made


def limited(times, hint=None, code="rate_limited"):
    left = [times]

    def fail():
        if left[0]:
            left[0] -= 1
            return StoreError("slow down", retry_after=hint, **{**LIMITED, "code": code}), False
        return None, False

    return fail


@pytest.mark.parametrize("at", [0, 3, 9])
@pytest.mark.parametrize("code", ["rate_limited", "busy"])
def test_a_load_that_is_turned_away_pauses_and_writes_the_rest(store, pauses, at, code):
    store.fails = {at: limited(2, 7.0, code), at - 1: limited(1, code=code)}
    report = store.docs.load(stream(50), batch=BATCH)
    assert report.written == 50
    assert stored(store.docs) == [one.id for one in stream(50)]
    assert 7.0 in pauses
    assert len(pauses) in (2, 3)


def test_after_it_fewer_are_in_flight_and_then_more_again(store, pauses):
    store.fails = {place: limited(1) for place in range(WIDTH)}
    store.docs.load(stream(WIDTH * BATCH), batch=BATCH)
    assert pauses == [0.5]
    store.most, store.ended, store.broken = 0, {}, False
    store.order, store.full = chain([[3, 2, 1, 0]]), WIDTH
    store.docs.load(stream(40, "again"), batch=BATCH)  # the next load begins with all of them
    assert store.most == WIDTH


def test_slow_writes_are_followed_by_fewer_in_flight_and_quick_ones_by_more(make_api, kind, monkeypatch):
    slow = set(range(WIDTH))
    width = []

    def end(self, error, seconds, *more):
        place = int(self.chunks[0].id[1:]) // BATCH
        real_end(self, error, 60.0 if place in slow else 0.0, *more)

    real, real_end = bulk_load.Load._wrote, bulk_load.Piece.end

    def wrote(self, piece):
        real(self, piece)
        width.append(self._width)

    monkeypatch.setattr(bulk_load.Piece, "end", end)
    monkeypatch.setattr(bulk_load.Load, "_wrote", wrote)
    store = Store(make_api, kind)
    store.docs.load(stream(20 * BATCH), batch=BATCH)
    assert width[: WIDTH + 1] == [2, 1, 1, 1, 2]
    assert width[-1] == max(width) == WIDTH
    store.close()


def test_pauses_grow_and_end(store, pauses):
    store.fails = {1: limited(1000)}
    with pytest.raises(StoreError) as caught:
        store.docs.load(stream(50), batch=BATCH)
    assert (caught.value.code, caught.value.written) == ("rate_limited", BATCH)
    assert pauses == [0.5 * 2**number for number in range(7)] + [60.0]
    assert store.now == 0


def test_a_hint_beyond_the_longest_pause_is_the_callers(store, pauses):
    store.fails = {0: limited(1, bulk_load.LONGEST_PAUSE + 1)}
    with pytest.raises(StoreError) as caught:
        store.docs.load(stream(50), batch=BATCH)
    assert caught.value.retry_after == bulk_load.LONGEST_PAUSE + 1
    assert pauses == []


def test_a_write_that_may_have_been_applied_is_not_repeated(store, pauses):
    store.fails = {0: lambda: (StoreError("slow down", code="rate_limited", sent="unknown"), False)}
    with pytest.raises(StoreError):
        store.docs.load(stream(50), batch=BATCH)
    assert pauses == []


# --- sizes


def test_too_large_batches_are_halved_with_others_in_flight(store):
    right = store.fails

    class TooLarge(dict):
        def get(self, _, default=None):
            return default

    store.fails = TooLarge(right)
    adapter = store.acl.real._named("main").store.adapter
    real, met = adapter.upsert, []

    def upsert(operation):
        met.append(len(operation.records))
        if len(operation.records) > 60:
            raise TooLargeError("It does not fit one request.", field="chunks")
        return (yield from real(operation))

    adapter.upsert = upsert
    heard = []
    report = store.docs.load(stream(3000), progress=heard.append)
    assert report.written == 3000
    assert heard == sorted(heard)
    assert stored(store.docs) == sorted(one.id for one in stream(3000))
    with pytest.raises(InvalidInputError):
        store.docs.load(stream(3000), batch=100)


@given(sizes=st.lists(st.integers(0, 3000), max_size=60), most=st.integers(1000, 9000), count=st.integers(1, 20))
def test_batches_are_as_large_as_chunks_and_bytes_permit(sizes, most, count):
    capabilities = vectoracl.VectorACL(CONFIG)._named("main").store.capabilities
    can = vectoracl_replace(capabilities, max_write_bytes=most)
    limit = Limit(count, can)
    chunks = [Chunk(f"c{at}", "d", "x" * size, [1.0, 2.0, 3.0]) for at, size in enumerate(sizes)]
    parts = [part.chunks for part in batches(iter(chunks), limit, Journal(None, "acme"))]
    assert [one for part in parts for one in part] == chunks
    weight = [sum(map(limit.bytes_of, part)) for part in parts]
    for at, part in enumerate(parts):
        assert 1 <= len(part) <= count
        assert len(part) == 1 or weight[at] <= most
        if at + 1 < len(parts):  # the next chunk did not fit
            assert len(part) == count or weight[at] + limit.bytes_of(parts[at + 1][0]) > most


def vectoracl_replace(capabilities, **changes):
    from dataclasses import replace

    return replace(capabilities, **changes)


def test_without_a_size_chosen_bytes_bound_a_batch_and_with_one_they_do_not(make_api, kind):
    store = Store(make_api, kind, max_write_bytes=10_000)
    store.docs.load(stream(100))
    sizes = [len(one.records) for one in store.port.operations if hasattr(one, "records")]
    assert 8 < max(sizes) < 15
    store.docs.load(stream(100), batch=50)
    assert len(store.port.operations[-1].records) == 50
    store.close()


def test_texts_to_embed_are_written_one_batch_after_another(make_api, kind):
    class Embedder:
        name, dimension = "one", 3

        def embed_documents(self, texts):
            return [[1.0, 2.0, 3.0]] * len(texts)

        embed_queries = embed_documents

    store = Store(make_api, kind)
    acl = store.api.connect(CONFIG, embedder=Embedder())
    port = acl.tap(writes_in_flight=WIDTH)
    store.port, port.answer = port, store.port.answer
    acl.scoped(ANN).load((Chunk(one.id, one.document, one.text) for one in stream(40)), batch=BATCH)
    assert (store.most, store.calls) == (1, 8)
    store.close()
