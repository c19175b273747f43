"""Embedding has a time limit of its own: the store's does not count it, a caller's does."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from vectoracl import Chunk, StoreError

DIMENSION = 3
CONFIG = {
    "version": 1,
    "stores": {"main": {"adapter": "memory", "dimension": DIMENSION, "timeout": 1.0}},
    "embedder": {"use": "hashed", "dimension": DIMENSION, "timeout": 5},
}


class Slow:
    """Takes so long for each text."""

    name = "slow:3"
    dimension = DIMENSION

    def __init__(self, each=0.012):
        self.each = each
        self.batches = []

    def embed_documents(self, texts):
        time.sleep(len(texts) * self.each)
        self.batches.append(len(texts))
        return np.ones((len(texts), DIMENSION), np.float32)

    embed_queries = embed_documents


def chunks(number, document="d"):
    return [Chunk(f"c{one:03}", document, f"text {one}") for one in range(number)]


@pytest.fixture
def opened(api):
    def make(given, **changes):
        config = {**CONFIG, **changes}
        return api.connect(config, embedder=given)

    return make


def test_many_texts_are_written_within_a_small_limit_of_the_store(opened, who):
    slow = Slow()
    docs = opened(slow).scoped(who())
    assert docs.upsert(chunks(130)).count == 130  # 1.6 s
    assert docs.replace("e", chunks(100, "e")).count == 100
    assert docs.load(iter(chunks(150, "f"))).written == 150
    assert max(slow.batches) <= 64
    slower = opened(Slow(each=0.3)).scoped(who())  # few queries: the store's part is short on a busy machine too
    assert len(slower.search_many(["a", "b", "c", "d", "e"], 1)) == 5


def test_the_limit_of_the_store_still_counts_what_the_store_takes(opened, who):
    acl = opened(Slow())
    port = acl.tap()
    acl.scoped(who()).upsert(chunks(100))
    assert all(0.7 < one <= 1.0 for one in port.timeouts)


def test_a_limit_of_the_caller_counts_the_whole_call(opened, who):
    acl = opened(Slow(each=0.02))
    port = acl.tap()
    docs = acl.scoped(who())
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"while texts were being embedded \(0 of 300 done\)") as caught:
        docs.upsert(chunks(300), timeout=0.3)
    assert time.monotonic() - started < 1.2
    assert (caught.value.code, caught.value.sent, port.requests) == ("timeout", "no", [])
    assert "timeout=" in str(caught.value)
    # On a busy machine that is over before the embedder is asked.
    with pytest.raises(StoreError, match=r"while texts were being embedded|before the request was sent"):
        docs.search("a text", timeout=0.001)
    assert docs.upsert(chunks(10), timeout=20).count == 10


def test_an_embedder_that_hangs_is_given_up(opened, who):
    until = threading.Event()

    class Hanging(Slow):
        def embed_documents(self, texts):
            until.wait(30)
            return super().embed_documents(texts)

    acl = opened(Hanging(), embedder={**CONFIG["embedder"], "timeout": 0.2})
    port = acl.tap()
    try:
        with pytest.raises(StoreError, match=r"did not embed 5 texts within 0\.2 s") as caught:
            acl.scoped(who()).upsert(chunks(5))
        assert (caught.value.code, caught.value.sent, port.requests) == ("embedder", "no", [])
    finally:
        until.set()


def test_what_an_embedder_raises_in_its_thread_is_raised(opened, who):
    class Ending(Slow):
        def embed_documents(self, texts):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(Ending()).scoped(who()).upsert(chunks(1))


def test_a_load_of_texts_says_how_far_it_is_in_pieces_of_seconds(opened, who):
    """The pieces grow while they are quick."""
    seen = []
    docs = opened(Slow(each=0.0)).scoped(who())
    docs.load(iter(chunks(1000)), progress=seen.append)
    assert seen[0] == 64
    assert seen[-1] == 1000
    assert len(seen) < 8
    given = [Chunk(f"v{one}", "d", "text", [1.0, 2.0, 3.0]) for one in range(1000)]
    del seen[:]
    docs.load(iter(given), progress=seen.append)
    assert seen == [500, 1000]


def test_a_piece_that_took_long_is_followed_by_smaller_ones(monkeypatch):
    from vectoracl.client.bulk_load import Pieces

    pieces = Pieces(automatic=True)
    whole = chunks(500)
    assert {len(one) for one in pieces.of(whole)} == {64, 500 % 64}
    assert len(pieces.wrote(whole[:64], 30.0, [whole])[0]) == 32
    assert len(pieces.wrote(whole[:32], 0.1, [whole])[0]) == 64
    assert len(pieces.wrote(whole[:20], 0.1, [whole])[0]) == 500
    assert len(Pieces(automatic=False).of(whole)) == 1
