"""What is left behind: audit records, the doors past the scope, and logs without anybody's content."""

from __future__ import annotations

import errno
import logging
import os
import stat
import subprocess
import sys
import textwrap
from dataclasses import replace

import orjson
import pytest

import vectoracl
from vectoracl import F, InvalidInputError, RefusedError, StoreError, VectorACL, VectorACLError, hazmat, testing
from vectoracl.adapter_api.operations import Found, Rows
from vectoracl.audit.sinks import JsonlSink
from vectoracl.filters.predicate import ALWAYS

V = [1.0, 0.0, 0.0]
CANARY = "canary"


def lines(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_the_file_of_records(api, who, tmp_path):
    path = tmp_path / "logs" / "audit.jsonl"
    acl = api.connect(sink=JsonlSink(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    docs = acl.scoped(who(id_ := "acme", "ann"))
    docs.upsert([vectoracl.Chunk("c-canary", "d-canary", "text canary", V, metadata={"lang": "m-canary"})])
    docs.search(V, where=F.lang == "f-canary")
    with pytest.raises(vectoracl.DeniedError):
        docs.narrow(actions=[]).count()
    assert [list(one) for one in lines(path)] == [["decision"], ["outcome"], ["decision"], ["outcome"], ["decision"]]
    acl.close()
    found = lines(path)
    decisions = [one["decision"] for one in found if "decision" in one]
    outcomes = [one["outcome"] for one in found if "outcome" in one]
    assert [one["id"] for one in decisions] == [one["decision"] for one in outcomes]
    assert [one["outcome"] for one in outcomes] == ["ok", "ok", "denied"]
    assert [one["permit"] for one in decisions] == [True, True, False]
    assert decisions[0]["principal"] == {"id": "ann", "tenant": id_, "kind": "user", "by": "test"}
    for line in path.read_bytes().splitlines():
        record = orjson.loads(line)
        (kind,) = record
        assert line == b'{"%s":%s}' % (kind.encode(), orjson.dumps(record[kind], option=orjson.OPT_SORT_KEYS))
    text = path.read_text()
    assert CANARY not in text
    assert "[1.0" not in text


def test_two_processes_append_whole_lines(tmp_path):
    path = tmp_path / "audit.jsonl"
    code = textwrap.dedent(
        f"""
        import sys
        from vectoracl.audit.sinks import JsonlSink
        sink = JsonlSink({str(path)!r})
        for number in range(300):
            sink.write({{"id": f"{{sys.argv[1]}}-{{number}}", "pad": "x" * 500}})
            sink.note({{"decision": f"{{sys.argv[1]}}-{{number}}"}})
        sink.close()
        """
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(number)]) for number in range(2)]
    assert [one.wait(60) for one in running] == [0, 0]
    found = lines(path)
    assert sorted(one["decision"]["id"] for one in found if "decision" in one) == sorted(
        f"{process}-{number}" for process in range(2) for number in range(300)
    )
    assert sum("outcome" in one for one in found) == 600


class Disk:
    """Takes the place of `os.write` and has room for *room* bytes; a full one takes what fits, then nothing."""

    def __init__(self, monkeypatch):
        self.room = 10**9
        self._write = os.write
        monkeypatch.setattr("vectoracl.audit.sinks.os.write", self)

    def __call__(self, file, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data[: self.room])
        self.room -= len(part)
        return self._write(file, part)


def whole(path):
    """Return the lines that are whole, and the number of those that broke off."""
    good, torn = [], 0
    for line in path.read_bytes().splitlines():
        try:
            good.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            torn += 1
    return good, torn


@pytest.mark.parametrize("room", range(128))
def test_a_full_disk_neither_repeats_nor_joins_lines(tmp_path, monkeypatch, room):
    path = tmp_path / "audit.jsonl"
    sink, disk = JsonlSink(path), Disk(monkeypatch)
    for number in range(3):
        sink.note({"decision": f"first{number}"})
    disk.room = room
    assert len(b'{"outcome":{"decision":"first0"}}\n') * 3 + len(b'{"decision":{"id":"torn"}}\n') == 129
    with pytest.raises(OSError, match="No space"):
        sink.write({"id": "torn"})
    disk.room = 10**6
    sink.write({"id": "whole"})
    sink.close()
    good, torn = whole(path)
    assert good == [
        *({"outcome": {"decision": f"first{number}"}} for number in range(3)),
        {"decision": {"id": "whole"}},
    ]
    assert torn <= 1


@pytest.mark.parametrize("room", [1, 40])
def test_what_another_writer_appends_begins_a_line_of_its_own(tmp_path, monkeypatch, room):
    path = tmp_path / "audit.jsonl"
    one, other, disk = JsonlSink(path), JsonlSink(path), Disk(monkeypatch)
    one.note({"decision": "first"})
    disk.room = room
    with pytest.raises(OSError, match="No space"):
        one.write({"id": "torn"})
    disk.room = 10**6
    other.write({"id": "other"})
    one.write({"id": "again"})
    for sink in (one, other, JsonlSink(path)):
        sink.close()
    good, torn = whole(path)
    assert [next(iter(line.values())) for line in good if "decision" in line] == [{"id": "other"}, {"id": "again"}]
    assert [line for line in good if "outcome" in line] == [{"outcome": {"decision": "first"}}]
    assert torn == 1


def test_a_file_that_a_crash_left_torn_is_gone_on_with(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"decision":{"id":"before"}}\n{"decision":{"id":"cra')
    sink = JsonlSink(path)
    sink.write({"id": "after"})
    sink.close()
    good, torn = whole(path)
    assert (good, torn) == ([{"decision": {"id": "before"}}, {"decision": {"id": "after"}}], 1)


def test_outcomes_that_cannot_be_written_at_close_are_said(api, who, tmp_path, monkeypatch):
    path = tmp_path / "audit.jsonl"
    sink, disk = JsonlSink(path), Disk(monkeypatch)
    acl = api.connect(sink=sink)
    acl.scoped(who()).count()
    file = sink._file
    disk.room = 0
    with pytest.raises(StoreError, match=r"outcomes of 1 .*No space|No space.*outcomes of 1 ") as caught:
        acl.close()
    assert (caught.value.code, caught.value.sent) == ("audit", "no")
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(file)
    sink.close()  # a second time there is nothing left to say
    acl.close()


def test_a_close_that_fails_does_not_hide_why_the_block_ended(api, who, tmp_path, monkeypatch):
    acl = api.connect(sink=JsonlSink(tmp_path / "audit.jsonl"))
    disk = Disk(monkeypatch)
    acl.scoped(who()).count()
    disk.room = 0
    error = LookupError()
    leave = acl.real.__aexit__ if api.is_async else acl.real.__exit__
    api.wait(leave(LookupError, error, None))
    assert any("audit file" in note for note in error.__notes__)


def test_an_outcome_after_close_is_logged(tmp_path, caplog):
    sink = JsonlSink(tmp_path / "audit.jsonl")
    sink.write({"id": "one"})
    sink.close()
    sink.note({"decision": "one"})
    assert "decision one came after" in caplog.text


def test_records_may_go_to_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonlSink(path)
    sink.write({"id": "one"})
    sink.close()
    assert os.read(reader, 100) == b'{"decision":{"id":"one"}}\n'
    os.close(reader)


def test_a_closed_or_failing_file_stops_everything(api, who, tmp_path):
    sink = JsonlSink(tmp_path / "audit.jsonl")
    acl = api.connect(sink=sink)
    port = acl.tap()
    docs = acl.scoped(who())
    docs.count()
    before = len(port.requests)
    sink.close()
    with pytest.raises(StoreError) as caught:
        docs.count()
    assert (caught.value.code, len(port.requests)) == ("audit", before)


def test_a_file_that_cannot_be_opened_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(vectoracl.ConfigError):
        JsonlSink(tmp_path / "file" / "audit.jsonl")


def test_a_fork_closes_nothing_of_its_parent(tmp_path):
    code = textwrap.dedent(
        f"""
        import os, vectoracl
        acl = vectoracl.connect({{"version": 1, "stores": {{"m": {{"adapter": "memory", "dimension": 3}}}},
                                 "audit": {{"sink": "jsonl", "path": {str(tmp_path / "a.jsonl")!r}}}}})
        docs = acl.scoped(vectoracl.Principal("ann", "acme", authenticated_by="test"))
        docs.count()
        child = os.fork()
        if child == 0:
            try:
                docs.count()
            except vectoracl.ClosedError:
                acl.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        docs.count()
        acl.close()
        """
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
    found = lines(tmp_path / "a.jsonl")
    assert [next(iter(one)) for one in found] == ["decision", "outcome", "decision", "outcome"]


# --- the doors past the scope ---


@pytest.fixture
def two(chunk):
    with vectoracl.connect(
        {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3, "metadata": {"lang": "keyword"}}}}
    ) as acl:
        for tenant in ("acme", "globex"):
            acl.scoped(testing.principal(tenant=tenant)).upsert([chunk("c", tenant), chunk("d", tenant)])
        yield acl


@pytest.mark.parametrize("reason", ["", "  ", "because", "two words", None, 7, True])
def test_hazmat_needs_a_sentence(two, reason):
    with pytest.raises(InvalidInputError):
        hazmat.unscoped(two, reason=reason)
    with pytest.raises(InvalidInputError):
        hazmat.operator_principal("ann", "acme", reason)
    assert not any(one["action"] == "hazmat.unscoped" for one in two.sink.records)


def test_hazmat_is_recorded_and_has_an_outcome(two):
    door = hazmat.unscoped(two, reason="the yearly audit of isolation")
    result = door.search(V, k=10)
    assert {hit.tenant for hit in result} == {"acme", "globex"}
    record = two.sink.records[-1]
    assert (record["action"], record["reasons"], record["partitions"]) == (
        "hazmat.unscoped",
        ["the yearly audit of isolation"],
        ["*"],
    )
    assert record["id"] == result.decision_id == two.sink.outcomes[-1]["decision"]
    assert (two.sink.outcomes[-1]["outcome"], two.sink.outcomes[-1]["returned"]) == ("ok", 4)
    for bad in (None, "", [0, 0, 0], vectoracl.Like("c")):
        with pytest.raises(RefusedError):
            door.search(bad)
    with pytest.raises(InvalidInputError):
        door.search(V, k=0)
    operator = hazmat.operator_principal("ann", "acme", "looking into a ticket")
    assert (operator.kind, operator.authenticated_by) == ("operator", "operator: looking into a ticket")
    two.scoped(operator).count()
    assert two.sink.records[-1]["principal"]["kind"] == "operator"


def test_hazmat_without_a_record_sends_nothing(two, monkeypatch):
    door = hazmat.unscoped(two, reason="the yearly audit of isolation")

    def broken(record):
        raise OSError

    monkeypatch.setattr(two.sink, "write", broken)
    with pytest.raises(StoreError):
        door.search(V)


@pytest.mark.parametrize("thing", [None, {}, "acl", object()])
def test_hazmat_takes_an_acl(thing):
    with pytest.raises(InvalidInputError):
        hazmat.unscoped(thing, reason="the yearly audit of isolation")


A, B = testing.principal(tenant="acme"), testing.principal(tenant="globex")


def test_assert_isolated_passes_on_memory(two):
    testing.assert_isolated(two, A, B)


class Leaky:
    """Ignores the partition in one operation; `relabel` hides it from the second lock."""

    def __init__(self, inner, operation, *, relabel):
        self._inner, self._operation, self._relabel = inner, operation, relabel

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def search(self, operation):
        return self._leak("search", operation)

    def fetch(self, operation):
        return self._leak("fetch", operation)

    def _leak(self, name, operation):
        found = yield from getattr(self._inner, name)(operation)
        if name != self._operation:
            return found
        stolen = [row for part in SHELF.values() for row in part.values() if row.tag.tenant != operation.partition]
        if name == "fetch":
            stolen = [row for row in stolen if row.tag.chunk in {ref.chunk for ref in operation.refs}]
        for row in stolen:
            tag = row.tag._replace(tenant=operation.partition) if self._relabel else row.tag
            hit = vectoracl.Hit(tag.chunk, tag.document, 1.0, tag.tenant, 0, row.text, row.metadata, row.vector, tag)
            found.hits.append(hit)
        return found


SHELF: dict[str, dict[object, object]] = {}


@pytest.mark.parametrize("operation", ["search", "fetch"])
@pytest.mark.parametrize("relabel", [False, True])
def test_assert_isolated_fails_on_a_leak(two, operation, relabel):
    named = two._named("main")
    SHELF.clear()
    SHELF.update(named.port._shelf.partitions)
    named.store = replace(named.store, adapter=Leaky(named.store.adapter, operation, relabel=relabel))
    with pytest.raises(AssertionError, match=r"acme|globex"):
        testing.assert_isolated(two, A, B)


def test_assert_isolated_needs_something_to_show(two):
    with pytest.raises(AssertionError, match="two tenants"):
        testing.assert_isolated(two, A, A)
    with pytest.raises(AssertionError, match="no chunk"):
        testing.assert_isolated(two, A, testing.principal(tenant="empty"))


# --- logs and errors ---


def test_no_log_and_no_error_quotes_content(api, who, caplog, config):
    caplog.set_level(logging.DEBUG)
    acl = api.connect(config)
    docs = acl.scoped(who())
    good = vectoracl.Chunk("id-canary", "doc-canary", "text canary", V, metadata={"lang": "canary", "free": "canary"})
    docs.upsert([good])
    errors = []
    port = acl.tap()

    def fails(request, go):
        raise ValueError("canary")

    def leaks(request, go):
        stolen = vectoracl.Hit(
            "id-canary", "d", 1.0, "globex", 0, "canary", {}, None, vectoracl.Tag("globex", "d", "id-canary")
        )
        return Found([stolen]) if type(request.operation).__name__ == "Search" else Rows([stolen])

    for answer in (None, fails, leaks):
        port.answer = answer
        for call in (
            lambda: docs.search(V, where=F.lang == "value canary"),
            lambda: docs.search("text canary"),
            lambda: docs.fetch(["id-canary"]),
            lambda: docs.upsert([good]),
            lambda: docs.upsert([replace(good, text="canary\0")]),
            lambda: docs.upsert([replace(good, metadata={"lang": 7, "x": "canary"})]),
            lambda: docs.upsert([replace(good, metadata={"free": b"canary"})]),
            lambda: docs.upsert([good, good]),
            lambda: docs.upsert([replace(good, id="canary\0")]),
            lambda: docs.search(V, where=F.year == "canary"),
            lambda: docs.search(V, where=F.seen == "canary"),
            lambda: docs.page(after="canary"),
            lambda: docs.narrow(F.lang == "canary").upsert([replace(good, metadata={"lang": "other canary"})]),
            lambda: docs.load([good, replace(good, text="canary\0")]),
        ):
            try:
                shown = repr(call())
            except VectorACLError as error:
                errors.append(f"{error} {error!r} {getattr(error, '__notes__', '')}")
            else:
                assert "text canary" not in shown
                assert "'canary'" not in shown
    assert len(errors) > 25
    assert [one for one in errors if CANARY in one] == []
    assert CANARY not in caplog.text
    assert "scope violation" in caplog.text  # the control: something was logged


def test_reprs_show_no_content():
    chunk = vectoracl.Chunk("c", "d", "text canary", V, metadata={"x": "canary"})
    tag = vectoracl.Tag("acme", "d", "c")
    hit = vectoracl.Hit("c", "d", 1.0, "acme", 0, "text canary", {"x": "canary"}, None, tag)
    for one in (chunk, hit, vectoracl.Result([hit], complete=True), vectoracl.Page((hit,), None), [chunk], {"k": hit}):
        assert CANARY not in repr(one) + str(one)


def test_the_acl_is_the_one_that_records(two):
    assert isinstance(two, VectorACL)
    two.scoped(A).count(ALWAYS)
    assert two.sink.records[-1]["partitions"] == ["acme"]


def test_an_audit_file_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_text("")
    path.chmod(0o644)
    JsonlSink(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
