"""A load that goes on from a journal ends with exactly the stream's chunks in the store."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vectoracl import Chunk, InvalidInputError, connect, testing
from vectoracl.engine import load_journal
from vectoracl.model.actions import ALL_ACTIONS

FIELDS = {"lang": "keyword", "seen": "datetime"}


def config(name=None):
    store = {"adapter": "memory", "dimension": 3, "name": name or uuid.uuid4().hex, "metadata": FIELDS}
    return {"version": 1, "stores": {"main": store}}


class BrokenError(Exception):
    pass


def stream(number, text="text", *, end=None, metadata=None, vector=(1.0, 2.0, 3.0)):
    for one in range(number):
        if one == end:
            raise BrokenError
        yield Chunk(f"c{one:03}", f"d{one % 3}", f"{text} {one}", list(vector), one, metadata or {"lang": "en"})


def content(docs):
    hits = docs.scan(include={"text", "metadata", "vector"})
    return {(hit.document, hit.id): (hit.text, hit.position, dict(hit.metadata), hit.vector.tolist()) for hit in hits}


def wanted(chunks):
    return {(one.document, one.id): (one.text, one.position, dict(one.metadata), list(one.vector)) for one in chunks}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal"


def begin(docs, path, number=30, end=23, **given):
    with pytest.raises(BrokenError):
        docs.load(stream(number, end=end, **given), batch=5, resume=path)


@pytest.fixture
def docs(api, who):
    return api.connect(config()).scoped(who())


def test_what_is_there_is_skipped_and_nothing_else(docs, path):
    begin(docs, path)
    report = docs.load(stream(30), batch=5, resume=path)
    assert (report.skipped, report.written) == (20, 10)
    assert content(docs) == wanted(stream(30))
    assert not path.exists()


def test_a_journal_of_another_store_is_refused(docs, api, who, path):
    begin(docs, path)
    other = api.connect(config()).scoped(who())
    with pytest.raises(InvalidInputError, match="another store") as caught:
        other.load(stream(30), batch=5, resume=path)
    assert "Remove it" in str(caught.value)
    assert other.count() == 0
    assert docs.load(stream(30), batch=5, resume=path).skipped == 20


@pytest.mark.parametrize(
    "change",
    [
        lambda docs: [docs.delete(document=one) for one in ("d0", "d1", "d2")],
        lambda docs: docs.delete(ids=[("d0", "c003")]),
        lambda docs: docs.upsert([Chunk("c003", "d0", "text 3", [1.0, 2.0, 3.0], 3, {"lang": "en"})]),
        lambda docs: docs.upsert([Chunk("c003", "d0", "other", [1.0, 2.0, 3.0], 3, {"lang": "en"})]),
        lambda docs: docs.replace("d0", [Chunk("c003", "d0", "other", [1.0, 2.0, 3.0])]),
    ],
    ids=["emptied", "a chunk gone", "written by another way", "another text", "replaced"],
)
def test_what_the_store_does_not_have_any_more_is_written_again(docs, path, change):
    begin(docs, path)
    change(docs)
    report = docs.load(stream(30), batch=5, resume=path)
    assert 5 <= report.written - 10 <= 20
    assert report.written + report.skipped == 30
    assert content(docs) == wanted(stream(30))


@pytest.mark.parametrize(
    "changed", [{"text": "corrected"}, {"metadata": {"lang": "de"}}, {"vector": (3.0, 2.0, 1.0)}], ids=str
)
def test_corrected_chunks_under_the_same_ids_are_written_again(docs, path, changed):
    begin(docs, path)
    report = docs.load(stream(30, **changed), batch=5, resume=path)
    assert (report.skipped, report.written) == (0, 30)
    assert content(docs) == wanted(stream(30, **changed))


def test_only_the_batches_that_changed_are_written_again(docs, path):
    begin(docs, path)

    def corrected():
        for one in stream(30):
            yield (
                Chunk(one.id, one.document, "new", one.vector, one.position, one.metadata) if one.id == "c007" else one
            )

    report = docs.load(corrected(), batch=5, resume=path)
    assert (report.skipped, report.written) == (15, 15)
    assert content(docs) == wanted(corrected())


def test_who_may_not_read_writes_all_of_it_again(docs, path):
    begin(docs, path)
    writer = docs.narrow(actions=ALL_ACTIONS - {"fetch"})
    report = writer.load(stream(30), batch=5, resume=path)
    assert (report.skipped, report.written) == (0, 30)
    assert content(docs) == wanted(stream(30))


def test_another_embedder_writes_all_of_it_again(api, who, path, monkeypatch):
    class One:
        name, dimension = "one", 3

        def embed_documents(self, texts):
            return np.ones((len(texts), 3), np.float32)

        embed_queries = embed_documents

    def texts(end=None):
        return (Chunk(one.id, one.document, one.text) for one in stream(30, end=end))

    docs = api.connect(config(), embedder=One()).scoped(who())
    with pytest.raises(BrokenError):
        docs.load(texts(23), batch=5, resume=path)
    written = path.read_bytes()
    assert docs.load(texts(), batch=5, resume=path).skipped == 20
    path.write_bytes(written)
    docs._driver._acl.embedder_identity = "two"  # of the VectorACL behind the handle
    assert docs.load(texts(), batch=5, resume=path).skipped == 0


def test_a_journal_of_an_older_version_is_refused_with_the_cure(docs, path):
    path.write_bytes(orjson.dumps({"written": 20, "digest": "0" * 32}))
    with pytest.raises(InvalidInputError, match=r"older version.*Remove it"):
        docs.load(stream(30), batch=5, resume=path)
    assert docs.count() == 0


def test_the_journal_is_of_this_user_alone_and_no_link_is_followed(docs, path, tmp_path):
    begin(docs, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"text" not in path.read_bytes()
    target = tmp_path / "target"
    target.write_text("mine")
    path.unlink()
    path.symlink_to(target)
    with pytest.raises(InvalidInputError, match="link"):
        docs.load(stream(5), resume=path)
    assert target.read_text() == "mine"


def test_a_long_journal_grows_by_lines(docs, path, monkeypatch):
    monkeypatch.setattr(load_journal, "_SMALL", 2)
    begin(docs, path)
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 1 + 4 + 1
    path.write_bytes(path.read_bytes()[:-7])  # what a crash cuts off
    report = docs.load(stream(30), batch=5, resume=path)
    assert (report.skipped, report.written) == (15, 15)
    assert content(docs) == wanted(stream(30))


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("delete"), st.integers(0, 29)),
        st.tuples(st.just("overwrite"), st.integers(0, 29)),
        st.tuples(st.just("empty"), st.just(0)),
    ),
    max_size=3,
)


@given(
    st.lists(st.tuples(st.integers(0, 31), st.integers(1, 9), CHANGES, st.sets(st.integers(0, 29))), max_size=4),
    st.integers(0, 60),
)
def test_whatever_happens_between_loads_the_last_one_is_exact(rounds, cut):
    """Loads that end anywhere, a store that others change, texts that are corrected, a journal whose end is cut off."""
    corrected: set[int] = set()

    def chunks(end=None):
        for number, one in enumerate(stream(30)):
            if number == end:
                raise BrokenError
            text = "corrected" if number in corrected else one.text
            yield Chunk(one.id, one.document, text, one.vector, number, one.metadata)

    with tempfile.TemporaryDirectory() as folder, connect(config()) as acl:
        docs, path = acl.scoped(testing.principal("w", "acme")), Path(folder) / "journal"
        for end, batch, changes, texts in rounds:
            with contextlib.suppress(BrokenError):
                docs.load(chunks(end), batch=batch, resume=path)
            for kind, number in changes:
                ref = (f"d{number % 3}", f"c{number:03}")
                if kind == "delete":
                    docs.delete(ids=[ref])
                elif kind == "overwrite":
                    docs.upsert([Chunk(ref[1], ref[0], "overwritten", [9.0, 9.0, 9.0])])
                else:
                    for document in ("d0", "d1", "d2"):
                        docs.delete(document=document)
            corrected ^= texts
        if path.exists():
            lines = path.read_bytes()
            head = lines.index(b"\n") + 1
            path.write_bytes(lines[: max(head, len(lines) - cut)])
        report = docs.load(chunks(), batch=4, resume=path)
        assert report.written + report.skipped == 30
        assert content(docs) == wanted(chunks())


@pytest.mark.skipif(os.name != "posix", reason="a signal that cannot be caught")
def test_a_process_that_is_killed_leaves_a_journal_that_can_be_read(tmp_path):
    code = (
        "import os, signal\n"
        "from vectoracl import Chunk, connect, testing\n"
        "acl = connect({'version': 1, 'stores': {'main': {'adapter': 'memory', 'dimension': 3, 'name': 'x'}}})\n"
        "docs = acl.scoped(testing.principal('w', 'acme'))\n"
        "def stream():\n"
        "    for one in range(10_000):\n"
        "        if one == 47: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield Chunk(str(one), 'd', 'text', [1.0, 2.0, 3.0])\n"
        "docs.load(stream(), batch=5, resume='journal')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    lines = (tmp_path / "journal").read_bytes().split(b"\n")
    assert len(lines) == 1 + 9 + 1
    with (
        connect(config()) as acl,
        pytest.raises(InvalidInputError, match="another process"),
    ):
        acl.scoped(testing.principal("w", "acme")).load(stream(5), resume=tmp_path / "journal")
