"""The file of records: what happens to it while it is written, links, locks, and outcomes that cannot be written."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import stat
import threading
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectoracl
from vectoracl import ConfigError, StoreError, testing
from vectoracl.audit import sinks as audit
from vectoracl.audit.sinks import JsonlSink, MemorySink

MODE = stat.S_IMODE


def ids(path, kind="decision"):
    found = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    return [one[kind]["id" if kind == "decision" else "decision"] for one in found if kind in one]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def sink(path):
    made = JsonlSink(path)
    yield made
    made.close()


def test_a_renamed_file_is_left_and_a_new_one_begun(sink, path, caplog):
    """As logrotate does it, by `create` or without."""
    sink.write({"id": "1"})
    sink.note({"decision": "1"})
    old = path.rename(path.with_suffix(".1"))
    with caplog.at_level(logging.WARNING, "vectoracl"):
        sink.write({"id": "2"})
    assert "removed or replaced" in caplog.text
    assert (ids(old), ids(path), ids(path, "outcome")) == (["1"], ["2"], ["1"])
    assert MODE(path.stat().st_mode) == 0o600
    old.unlink()
    path.unlink()
    sink.write({"id": "3"})
    assert ids(path) == ["3"]


def test_a_file_that_takes_its_name_is_used(sink, path):
    sink.write({"id": "1"})
    other = path.with_suffix(".new")
    other.write_bytes(b'{"decision":{"id":"0"}}\n{"torn')
    other.chmod(0o644)
    other.rename(path)
    sink.write({"id": "2"})
    lines = path.read_bytes().splitlines()
    assert lines == [b'{"decision":{"id":"0"}}', b'{"torn', b'{"decision":{"id":"2"}}']
    assert MODE(path.stat().st_mode) == 0o600


def test_a_truncated_file_is_continued_and_said(sink, path, caplog):
    """As logrotate does it by `copytruncate`."""
    sink.write({"id": "1"})
    os.truncate(path, 0)
    with caplog.at_level(logging.ERROR, "vectoracl"):
        sink.write({"id": "2"})
        assert caplog.text.count("was truncated") == 1
        sink.write({"id": "3"})
        assert caplog.text.count("was truncated") == 1
    assert ids(path) == ["2", "3"]
    os.truncate(path, 5)
    sink.write({"id": "4"})
    assert path.read_bytes().splitlines() == [b'{"dec', b'{"decision":{"id":"4"}}']


@pytest.mark.parametrize("when", ["at first", "later", "dangling"])
def test_no_link_is_followed(path, tmp_path, when):
    target = tmp_path / "target"
    if when != "dangling":
        target.write_text("precious")
        target.chmod(0o644)
    if when == "later":
        sink = JsonlSink(path)
        sink.write({"id": "1"})
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(OSError, match="a symbolic link"):
            sink.write({"id": "2"})
        path.unlink()
        sink.write({"id": "3"})
        assert ids(path) == ["3"]
        sink.close()
    else:
        path.symlink_to(target)
        with pytest.raises(ConfigError, match="a symbolic link") as caught:
            JsonlSink(path)
        assert caught.value.__context__ is None
    if when == "dangling":
        assert not target.exists()
    else:
        assert (target.read_text(), MODE(target.stat().st_mode)) == ("precious", 0o644)


def test_a_folder_that_is_gone_stops_everything(tmp_path):
    folder = tmp_path / "logs"
    sink = JsonlSink(folder / "audit.jsonl")
    acl = vectoracl.connect({"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 3}}}, sink=sink)
    docs = acl.scoped(vectoracl.Principal("ann", "acme", authenticated_by="test"))
    docs.count()
    folder.rename(tmp_path / "away")
    with pytest.raises(StoreError) as caught:
        docs.count()
    assert (caught.value.code, caught.value.sent, caught.value.__context__) == ("audit", "no", None)
    (tmp_path / "away").rename(folder)
    docs.count()
    acl.close()


def test_folders_that_are_made_are_closed_to_others(tmp_path):
    before = os.umask(0)
    try:
        JsonlSink(tmp_path / "a" / "b" / "audit.jsonl").close()
    finally:
        os.umask(before)
    assert [MODE((tmp_path / one).stat().st_mode) for one in ("a", "a/b", "a/b/audit.jsonl")] == [0o700, 0o700, 0o600]


def test_a_device_keeps_its_mode(tmp_path):
    before = MODE(Path("/dev/null").stat().st_mode)
    sink = JsonlSink("/dev/null")
    sink.write({"id": "1"})
    sink.close()
    assert MODE(Path("/dev/null").stat().st_mode) == before


def test_the_path_is_that_of_the_beginning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sink = JsonlSink("audit.jsonl")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    sink.write({"id": "1"})
    sink.close()
    assert ids(tmp_path / "audit.jsonl") == ["1"]
    assert not (tmp_path / "sub" / "audit.jsonl").exists()


def test_rotation_while_many_write_loses_and_doubles_nothing(path):
    """Two sinks, as two processes have, four threads, and somebody who renames the file all the time."""
    sinks = [JsonlSink(path), JsonlSink(path)]
    ended, kept = threading.Event(), []

    def rotate():
        while not ended.is_set():
            if path.exists():
                kept.append(path.rename(path.with_name(f"audit.{len(kept)}")))
            time.sleep(0.002)

    def write(number):
        for place in range(150):
            one = sinks[number % 2]
            one.write({"id": f"{number}-{place}"})
            one.note({"decision": f"{number}-{place}"})

    rotating = threading.Thread(target=rotate)
    rotating.start()
    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    ended.set()
    rotating.join()
    for one in sinks:
        one.close()
    files = [one for one in (*kept, path) if one.exists()]
    assert len(kept) > 2
    wanted = sorted(f"{number}-{place}" for number in range(4) for place in range(150))
    for kind in ("decision", "outcome"):
        assert sorted(one for file in files for one in ids(file, kind)) == wanted


def test_a_lock_that_another_process_holds(api, who, path):
    sink = JsonlSink(path)
    acl = api.connect(sink=sink)
    port = acl.tap()
    docs = acl.scoped(who())
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        begun = time.monotonic()
        with pytest.raises(StoreError) as caught:
            docs.count(timeout=0.3)
        assert (caught.value.code, caught.value.sent) == ("timeout", "no")
        assert 0.25 < time.monotonic() - begun < 3
        with pytest.raises(TimeoutError):
            sink.write({"id": "x"}, timeout=0)
    assert port.requests == []
    assert docs.count() == 0
    acl.close()
    # The record of the first may be written in the last moment, by its thread. Whether it was is not known when its
    # outcome is noted, so that each decision in the file has an outcome, and an outcome may lack its decision.
    decided, ended = ids(path), ids(path, "outcome")
    assert len(decided) in (1, 2)
    assert set(decided) <= set(ended)
    assert len(ended) == len(set(ended)) <= 2


def test_an_event_loop_goes_on_while_the_file_is_locked(path):
    async def go():
        acl = vectoracl.aconnect(
            {"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 3}}}, sink=JsonlSink(path)
        )
        await acl.open()
        other = os.open(path, os.O_WRONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.5, lambda: os.close(other)).start()
        ticks = []

        async def tick():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.01)

        task = asyncio.create_task(tick())
        assert await acl.scoped(vectoracl.Principal("ann", "acme", authenticated_by="test")).count() == 0
        task.cancel()
        await acl.close()
        return len(ticks)

    assert asyncio.run(go()) > 8


HOSTILE = st.one_of(
    st.sampled_from(["\ud800", b"bytes", object(), {1, 2}, 1 << 70, {"a": {1: 2}}, {object(): 1}, [["\udfff"]]]),
    st.integers(-(2**63), 2**63),
    st.sampled_from([np.int64(3), np.float32(0.5), np.bool_(True), np.uint64(7), np.str_("x")]),
    st.text(max_size=5),
)


@given(outcomes=st.lists(st.dictionaries(st.sampled_from(["outcome", "returned", "ms"]), HOSTILE), max_size=6))
def test_an_outcome_that_has_no_form_never_stops_a_later_decision(tmp_path_factory, outcomes):
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    sink = JsonlSink(path)
    for number, outcome in enumerate(outcomes):
        sink.note({**outcome, "decision": str(number)})
        sink.write({"id": str(number)})
    sink.close()
    assert ids(path) == ids(path, "outcome") == [str(number) for number in range(len(outcomes))]


def test_a_marked_outcome_says_what_it_stands_for(sink, path, caplog):
    with caplog.at_level(logging.ERROR, "vectoracl"):
        sink.note({"decision": "d1", "outcome": "error:\ud800"})
        sink.note({"decision": "\ud800", "outcome": "ok"})
        sink.note({"outcome": {1, 2}})
    assert "d1" in caplog.text
    sink.write({"id": "1"})
    found = [orjson.loads(line)["outcome"] for line in path.read_bytes().splitlines()[:-1]]
    assert found[0] == {"decision": "d1", "outcome": "unwritable", "why": "TypeError"}
    assert [one["outcome"] for one in found] == ["unwritable"] * 3
    assert [one["decision"] for one in found] == ["d1", "\\ud800", "None"]


class Picky:
    """Takes the place of `os.write` and has no room for outcomes."""

    def __init__(self, monkeypatch):
        self.open = False
        self._write = os.write
        monkeypatch.setattr("vectoracl.audit.sinks.os.write", self)

    def __call__(self, file, data):
        if not self.open and b'"outcome"' in data:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return self._write(file, data)


def test_decisions_go_on_where_outcomes_cannot(path, monkeypatch, caplog):
    sink, disk = JsonlSink(path), Picky(monkeypatch)
    with caplog.at_level(logging.ERROR, "vectoracl"):
        for number in range(4):
            sink.note({"decision": f"{number}"})
            sink.write({"id": str(number)})
    assert "Disk quota exceeded" in caplog.text
    assert (ids(path), ids(path, "outcome")) == (["0", "1", "2", "3"], [])
    disk.open = True
    sink.write({"id": "4"})
    assert ids(path, "outcome") == ["0", "1", "2", "3"]
    sink.close()


def test_outcomes_that_are_too_many_to_keep_are_counted(path, monkeypatch, caplog):
    monkeypatch.setattr("vectoracl.audit.sinks._MOST_NOTED", 3)
    sink, disk = JsonlSink(path), Picky(monkeypatch)
    for number in range(10):
        sink.note({"decision": str(number)})
        sink.write({"id": str(number)})
    assert "are lost" in caplog.text
    disk.open = True
    sink.close()
    found = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    outcomes = [one["outcome"] for one in found if "outcome" in one]
    assert outcomes[0]["outcome"] == "lost"
    assert outcomes[0]["lost"] + len(outcomes) - 1 == 10
    assert [one["decision"] for one in outcomes[1:]] == [str(n) for n in range(outcomes[0]["lost"], 10)]
    assert ids(path) == [str(number) for number in range(10)]


class Breaks(MemorySink):
    def note(self, outcome):
        raise ValueError("canary")


def test_a_sink_that_breaks_its_promise_is_logged(api, who, caplog):
    acl = api.connect(sink=Breaks())
    docs = acl.scoped(who())
    assert [docs.count(), docs.count()] == [0, 0]
    assert len(acl.records) == 2
    assert "failed to note" in caplog.text
    assert "canary" not in caplog.text


def full_pipe(path):
    """A pipe that somebody reads from, so that it opens, and that takes nothing more."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 65536)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.close(writer)
    return reader


@pytest.mark.skipif(os.name != "posix", reason="pipes with a name")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_disk_that_does_not_answer_is_cut_off_by_the_timeout(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(audit, "_CLOSING", 0.3)
    reader = full_pipe(tmp_path / "audit")
    config = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 4}}}
    sink = JsonlSink(tmp_path / "audit")
    try:
        before = time.monotonic()
        if kind == "sync":
            acl = vectoracl.connect(config, sink=sink)
            with pytest.raises(StoreError, match="within the time limit") as caught:
                acl.scoped(testing.principal("ann", "acme")).count(timeout=0.3)
            with pytest.raises(StoreError, match="does not end"):
                acl.close()
        else:

            async def main():
                acl = vectoracl.aconnect(config, sink=sink)
                try:
                    await acl.scoped(testing.principal("ann", "acme")).count(timeout=0.3)
                finally:
                    with pytest.raises(StoreError, match="does not end"):
                        await acl.close()

            with pytest.raises(StoreError, match="within the time limit") as caught:
                asyncio.run(main())
        assert (caught.value.code, caught.value.sent) == ("timeout", "no")
        assert time.monotonic() - before < 5
    finally:  # with the reader gone the write ends, and the thread with it
        os.close(reader)


@pytest.mark.skipif(os.name != "posix", reason="pipes with a name")
def test_a_pipe_that_nobody_reads_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "audit")
    with pytest.raises(ConfigError, match="this pipe has no reader"):
        JsonlSink(tmp_path / "audit")


@pytest.mark.parametrize("timeout", [None, 10.0])
def test_a_sink_that_is_made_of_this_one_needs_no_more_than_the_protocol(path, api, who, timeout):
    class Marked(JsonlSink):
        def write(self, record):
            super().write({**record, "by": "the application"})

    acl = api.connect(sink=Marked(path))
    acl.scoped(who()).count(timeout=timeout)
    acl.close()
    assert [orjson.loads(line)["decision"]["by"] for line in path.read_bytes().splitlines()[:1]] == ["the application"]
