"""`vectoracl copy`: every part of a tag arrives, what cannot be exact is refused whole, nothing is lost in between."""

import json
import uuid
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import vectoracl as v
from vectoracl import Chunk, hazmat, testing
from vectoracl.adapter_api.equality import vector_difference
from vectoracl.adapter_api.operations import Delete, Position
from vectoracl.audit.sinks import MemorySink
from vectoracl.cli.app import app
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.copy import Copy
from vectoracl.copying.planning import Side
from vectoracl.errors import (
    InvalidInputError,
    RefusedError,
    ScopeViolationError,
    StoreError,
    TooLargeError,
    UnsupportedPredicateError,
)
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Record, Tag

REASON = "a test of the copy"
FIELDS = {"year": "number", "when": "datetime", "tags": "keyword[]"}


def config(name, *, metric="cosine", dimension=3, fields=FIELDS, embedder=None, **more):
    store = {"adapter": "memory", "name": name, "metric": metric, "dimension": dimension, "metadata": dict(fields)}
    whole = {"version": 1, "stores": {"main": store}, **more}
    if embedder:
        whole["embedder"] = embedder
    return whole


@pytest.fixture
def pair():
    """Two memory stores; the source has tenants in all kinds of states."""
    names = uuid.uuid4().hex, uuid.uuid4().hex
    sinks = MemorySink(), MemorySink()
    with v.VectorACL(config(names[0]), sink=sinks[0]) as source, v.VectorACL(config(names[1]), sink=sinks[1]) as target:
        fill(source)
        yield source, target, sinks, names


def fill(source, rows=7):
    for tenant in ("acme", "globex"):
        handle = source.scoped(testing.principal("writer", tenant))
        for document in ("a", "b", "ä/ü"):
            handle.upsert(
                [
                    Chunk(
                        str(n), document, f"{tenant} {document} {n}", [1.0, n, 0.25], n, {"year": 2000 + n, "odd": [n]}
                    )
                    for n in range(rows)
                ]
            )
        handle.replace("b", [Chunk("new", "b", "the second version", [0.0, 1.0, 0.0])])
        handle.replace("b", [Chunk("new", "b", "the third version", [0.0, 1.0, 0.5])])
    odd = Tag("acme", "held", "1", 9, "#staged", 4, 12.5, "someone", "load", 1_700_000_000.25, 2**31 - 1)
    hazmat.operate(source, reason=REASON).write("acme", [Record(odd, "kept", np.array([1, 2, 3], np.float32), {})])


def test_what_can_expire_is_not_copied_to_where_reads_do_not_look_at_it(tmp_path):
    made = [config(uuid.uuid4().hex) for _ in range(2)]
    made[0]["stores"]["main"]["expiring"] = True
    with v.VectorACL(made[0]) as source, v.VectorACL(made[1]) as target:
        fill(source)
        with pytest.raises(RefusedError, match=r"Set expiring = true in \[stores\.main\]"):
            copying(source, target, tmp_path).plan(["acme"])
    made[1]["stores"]["main"]["expiring"] = True
    with v.VectorACL(made[0]) as source, v.VectorACL(made[1]) as target:
        fill(source)
        work = copying(source, target, tmp_path)
        assert work.run(work.plan(["acme"])).written > 0


def copying(source, target, tmp_path, **given):
    kept = Checkpoint(tmp_path / "checkpoint", ["a", "b"])
    return Copy(Side(source), Side(target), reason=REASON, checkpoint=kept, **given)


def everything(acl, *tenants):
    operated = hazmat.operate(acl, reason=REASON)
    return [
        (hit.tag, hit.text, hit.metadata, [float(x) for x in hit.vector])
        for tenant in tenants
        for hit in operated.read(tenant, 1000).hits
    ]


TENANTS = ("acme", "globex")


def test_every_part_of_a_tag_arrives(pair, tmp_path):
    source, target, sinks, _ = pair
    work = copying(source, target, tmp_path, batch=4)
    plan = work.plan(TENANTS)
    assert [(one.tenant, one.rows, one.state) for one in plan.moves] == [("acme", 16, "copy"), ("globex", 15, "copy")]
    assert not everything(target, *TENANTS)
    report = work.run(plan)
    assert not report.different
    assert report.written == 31
    copied = everything(target, *TENANTS)
    assert copied == everything(source, *TENANTS)
    assert {tag.generation for tag, *_ in copied} == {0, 2, 9}
    assert any(tag.label == "#staged" and tag.rev == 4 and tag.expires == 12.5 for tag, *_ in copied)
    assert not (tmp_path / "checkpoint").exists()
    for sink, action in zip(sinks, ("hazmat.read", "hazmat.write"), strict=True):
        records = [one for one in sink.records if one["action"] == action]
        assert records
        assert all(one["reasons"] == [REASON] and len(one["partitions"]) == 1 for one in records)


def test_policy_means_the_same_afterwards(pair, tmp_path):
    source, target, _, _ = pair
    work = copying(source, target, tmp_path)
    work.run(work.plan(TENANTS))
    for tenant in TENANTS:
        reader = testing.principal("reader", tenant)
        answers = [[hit[:8] for hit in acl.scoped(reader).search([1.0, 1.0, 0.2], 50)] for acl in (source, target)]
        assert [one[:7] for one in answers[0]] == [one[:7] for one in answers[1]]
        assert {hit[3] for hit in answers[1]} == {tenant}
    testing.assert_isolated(target, testing.principal("r", "acme"), testing.principal("r", "globex"))


def test_a_document_goes_on_from_its_generation(pair, tmp_path):
    source, target, _, _ = pair
    work = copying(source, target, tmp_path)
    work.run(work.plan(TENANTS))
    handle = target.scoped(testing.principal("writer", "acme"))
    handle.upsert([Chunk("more", "b", "one more", [1.0, 0.0, 0.0])])
    handle.replace("held", [Chunk("1", "held", "newer", [1.0, 0.0, 0.0])])
    found = {(tag.document, tag.generation) for tag, *_ in everything(target, "acme")}
    assert {("b", 2), ("held", 10)} <= found
    assert ("b", 0) not in found


def test_again_is_no_work(pair, tmp_path):
    source, target, _, _ = pair
    work = copying(source, target, tmp_path)
    work.run(work.plan(TENANTS))
    again = copying(source, target, tmp_path)
    plan = again.plan(TENANTS)
    assert {one.state for one in plan.moves} == {"there"}
    report = again.run(plan)
    assert report.written == 0
    assert not report.different


class Stops(Exception):  # noqa: N818 - it is no error
    pass


@pytest.mark.parametrize("after", range(9))
@pytest.mark.parametrize("error", [Stops, KeyboardInterrupt])
def test_it_goes_on_where_it_stopped(pair, tmp_path, after, error):
    """Stop after each batch, before or after its checkpoint was written; a second call does the rest, not more."""
    source, target, _, _ = pair
    heard = []

    def stop(what, done, _total):
        if what == "copying":
            heard.append(done)
            if len(heard) > after:
                raise error

    work = copying(source, target, tmp_path, batch=4, progress=stop)
    plan = work.plan(TENANTS)
    if after >= 8:
        assert not work.run(plan).different
        return
    with pytest.raises(error) as caught:
        work.run(plan)
    (note,) = caught.value.__notes__
    assert f"{work.report.written:,} chunks were written by this call" in note
    assert "The same command continues there" in note
    assert len(everything(target, *TENANTS)) == work.report.written
    rest = copying(source, target, tmp_path, batch=4)
    plan = rest.plan(TENANTS)
    assert "resume" in {one.state for one in plan.moves}
    report = rest.run(plan)
    assert not report.different
    assert report.written == 31 - work.report.written
    assert everything(target, *TENANTS) == everything(source, *TENANTS)


def test_a_checkpoint_that_lags_or_was_torn_loses_nothing(pair, tmp_path):
    source, target, _, _ = pair

    def stop(what, done, _total):
        if what == "copying" and done > 8:
            raise Stops

    with pytest.raises(Stops):
        work = copying(source, target, tmp_path, batch=4, progress=stop)
        work.run(work.plan(TENANTS))
    path = tmp_path / "checkpoint"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:11])  # the machine died while the last line was written
    rest = copying(source, target, tmp_path, batch=4)
    assert not rest.run(rest.plan(TENANTS)).different
    assert everything(target, *TENANTS) == everything(source, *TENANTS)


@pytest.mark.parametrize(
    "data", [b"", b"{}\n", b"[]\n", b"\xff\n", b'{"copy": 2, "binding": "x"}\n', b'{"copy": 1, "binding": "x"}\n']
)
def test_a_file_that_is_no_checkpoint_of_this_copy_is_refused(tmp_path, data):
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(InvalidInputError, match="--checkpoint"):
        Checkpoint(tmp_path / "checkpoint", ["a", "b"])
    assert (tmp_path / "checkpoint").read_bytes() == data


def test_rows_that_are_there_are_refused_and_can_be_overwritten(pair, tmp_path):
    source, target, _, _ = pair
    target.scoped(testing.principal("w", "acme")).upsert([Chunk("x", "other", "of before", [1.0, 0.0, 0.0])])
    before = everything(target, *TENANTS)
    with pytest.raises(RefusedError, match=r"other rows of the tenant 'acme'.*--overwrite"):
        copying(source, target, tmp_path).plan(TENANTS)
    assert everything(target, *TENANTS) == before
    work = copying(source, target, tmp_path)
    report = work.run(work.plan(["acme"], named=True, overwrite=True))
    assert not report.different
    assert everything(target, "acme") == everything(source, "acme")


def test_an_overwrite_that_stopped_goes_on(pair, tmp_path):
    source, target, _, _ = pair
    target.scoped(testing.principal("w", "acme")).upsert([Chunk("x", "other", "of before", [1.0, 0.0, 0.0])])

    def stop(what, done, _total):
        if what == "copying" and done >= 8:
            raise Stops

    work = copying(source, target, tmp_path, batch=4, progress=stop)
    with pytest.raises(Stops):
        work.run(work.plan(["acme"], named=True, overwrite=True))
    rest = copying(source, target, tmp_path, batch=4)
    report = rest.run(rest.plan(["acme"], named=True, overwrite=True))
    assert (report.written, report.different) == (8, [])
    assert everything(target, "acme") == everything(source, "acme")


def tampered(acl, tenant, change):
    """Change one row of *acl* behind its back."""
    operated = hazmat.operate(acl, reason=REASON)
    hit = operated.read(tenant, 1).hits[0]
    acl.run(
        operated.store,
        operated.store.adapter.delete(Delete(tenant, ALWAYS, document=hit.document)),
        None,
    )
    record = change(Record(hit.tag, hit.text, hit.vector, hit.metadata))
    if record is not None:
        operated.write(tenant, [record])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda one: None, "missing"),
        (lambda one: one._replace(text="other"), "different"),
        (lambda one: one._replace(vector=one.vector + np.float32(0.01)), "different"),
        (lambda one: one._replace(metadata={**one.metadata, "year": 1}), "different"),
        (lambda one: one._replace(tag=one.tag._replace(label="other")), "different"),
        (lambda one: one._replace(tag=one.tag._replace(time=one.tag.time + 0.001)), "different"),
        (lambda one: one._replace(tag=one.tag._replace(generation=7)), "extra"),
    ],
)
def test_the_comparison_finds_each_difference(pair, tmp_path, change, found):
    source, target, _, _ = pair
    fill(source, rows=1)  # one row a document, so that one is enough to be changed

    work = copying(source, target, tmp_path)
    plan = work.plan(["acme"])
    clean = work.run(plan)
    assert not clean.different
    tampered(target, "acme", change)
    again = copying(source, target, tmp_path)
    comparison = again._planner.compared(plan.moves[0], "comparing")
    assert not comparison.same
    assert getattr(comparison, found) >= 1
    assert comparison.source_digest != comparison.target_digest or found == "different"
    with pytest.raises(RefusedError, match="other rows"):
        copying(source, target, tmp_path).plan(["acme"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"metric": "l2"}, "metric"),
        ({"dimension": 4}, "dimension"),
        ({"fields": {**FIELDS, "year": "keyword"}}, "year: number in the source, keyword in the target"),
        ({"fields": {}}, "not declared in the target"),
    ],
)
def test_stores_that_differ_are_refused(pair, tmp_path, changed, says):
    source, _, _, _ = pair
    with v.VectorACL(config(uuid.uuid4().hex, **changed)) as target, pytest.raises(RefusedError, match=says):
        copying(source, target, tmp_path).plan(TENANTS)


def test_another_embedder_is_refused(tmp_path):
    one = config(uuid.uuid4().hex, dimension=32, embedder={"use": "hashed:32"})
    other = config(uuid.uuid4().hex, dimension=32, embedder={"use": "hashed", "dimension": 32})
    with v.VectorACL(one) as source, v.VectorACL(other) as target:
        source.scoped(testing.principal("w", "acme")).upsert([Chunk("1", "d", "some text")])
        with pytest.raises(RefusedError, match="not comparable"):
            copying(source, target, tmp_path).plan(["acme"])


def test_look_alikes_are_listed_and_need_to_be_named(pair, tmp_path):
    source, target, _, _ = pair
    source.scoped(testing.principal("w", "Acme")).upsert([Chunk("1", "d", "x", [1.0, 0.0, 0.0])])
    with pytest.raises(RefusedError, match="'Acme' and 'acme'"):
        copying(source, target, tmp_path).plan([*TENANTS, "Acme"])
    assert not everything(target, *TENANTS, "Acme")
    work = copying(source, target, tmp_path)
    assert not work.run(work.plan(["acme", "Acme"], named=True)).different


def test_a_tenant_that_is_not_there_is_refused(pair, tmp_path):
    source, target, _, _ = pair
    with pytest.raises(RefusedError, match="no rows of the tenant 'acmee'"):
        copying(source, target, tmp_path).plan(["acme", "acmee"], named=True)


@pytest.fixture
def listless(monkeypatch):
    """A store whose operator cannot be had, so that nobody tells its tenants."""

    def refused(*_, **__):
        raise RefusedError("there is no operator")

    monkeypatch.setattr(v.VectorACL, "operator", refused)


def test_a_store_that_cannot_list_says_what_to_pass(pair, tmp_path, listless):
    source, target, _, _ = pair
    with pytest.raises(RefusedError, match="--tenants FILE"):
        copying(source, target, tmp_path).plan(None)


def test_an_adapter_that_does_not_keep_tags_is_no_target(pair, tmp_path, monkeypatch):
    source, target, _, _ = pair
    adapter = hazmat.operate(target, reason=REASON).store.adapter
    monkeypatch.setattr(adapter, "_capabilities", replace(adapter.capabilities, verbatim=False))
    with pytest.raises(RefusedError, match="cannot keep tags"):
        copying(source, target, tmp_path).plan(TENANTS)
    with pytest.raises(UnsupportedPredicateError, match="cannot keep tags"):
        hazmat.operate(target, reason=REASON).write("acme", [])


def test_a_batch_that_is_too_large_is_halved(pair, tmp_path, monkeypatch):
    source, target, _, _ = pair
    adapter = hazmat.operate(target, reason=REASON).store.adapter
    right = adapter.upsert
    sizes = []

    def upsert(operation):
        sizes.append(len(operation.records))
        if len(operation.records) > 3:
            raise TooLargeError("too large for one request", field="chunks")
        return (yield from right(operation))

    monkeypatch.setattr(adapter, "upsert", upsert)
    work = copying(source, target, tmp_path)
    assert not work.run(work.plan(TENANTS)).different
    assert max(sizes) > 3
    assert everything(target, *TENANTS) == everything(source, *TENANTS)


def test_a_row_that_the_target_does_not_take_is_named(pair, tmp_path, monkeypatch):
    source, target, _, _ = pair
    adapter = hazmat.operate(target, reason=REASON).store.adapter
    right = adapter.upsert

    def upsert(operation):
        if any(one.tag.document == "b" for one in operation.records):
            raise InvalidInputError("The metadata is larger than this store takes.", field="metadata")
        return (yield from right(operation))

    monkeypatch.setattr(adapter, "upsert", upsert)
    work = copying(source, target, tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        work.run(work.plan(TENANTS))
    assert caught.value.__notes__[0] == "It is the chunk 'new' of the document 'b'."
    assert "7 chunks were written" in caught.value.__notes__[1]


def test_a_store_that_fails_says_what_was_written(pair, tmp_path, monkeypatch):
    source, target, _, _ = pair
    adapter = hazmat.operate(target, reason=REASON).store.adapter
    right = adapter.upsert
    calls = []

    def upsert(operation):
        calls.append(1)
        if len(calls) > 2:
            raise StoreError("gone", code="unavailable", sent="unknown")
        return (yield from right(operation))

    monkeypatch.setattr(adapter, "upsert", upsert)
    work = copying(source, target, tmp_path, batch=4)
    with pytest.raises(StoreError) as caught:
        work.run(work.plan(TENANTS))
    assert caught.value.written == 8
    assert "may or may not have been written" in caught.value.__notes__[-1]
    monkeypatch.undo()
    rest = copying(source, target, tmp_path, batch=4)
    assert not rest.run(rest.plan(TENANTS)).different


def test_without_a_reason_there_is_no_access(pair):
    with pytest.raises(InvalidInputError, match="reason"):
        hazmat.operate(pair[0], reason="copy")


def test_a_failing_audit_stops_it(pair):
    source, _, _, _ = pair

    class AdapterWrapper(MemorySink):
        def write(self, record):
            raise OSError

    source.core_port._sink = AdapterWrapper()
    operated = hazmat.operate(source, reason=REASON)
    with pytest.raises(StoreError, match="could not be recorded"):
        operated.read("acme", 10)


def test_no_unscoped_row_passes_the_second_lock(pair, monkeypatch):
    source, _, _, _ = pair
    operated = hazmat.operate(source, reason=REASON)
    right = operated.store.adapter.scan

    def scan(operation):
        rows = yield from right(operation)
        return rows._replace(
            hits=[hit._replace(tenant="globex", tag=hit.tag._replace(tenant="globex")) for hit in rows.hits]
        )

    monkeypatch.setattr(operated.store.adapter, "scan", scan)
    with pytest.raises(ScopeViolationError):
        operated.read("acme", 10)


def test_vectors_are_compared_as_the_metric_sees_them():
    one = np.array([3.0, 4.0], np.float32)
    assert vector_difference(one, one * np.float32(0.2), "cosine") < 1e-7
    assert vector_difference(one, one * np.float32(0.2), "inner") > 0.5
    assert vector_difference(one, one * np.float32(1 + 2e-7), "l2") < 1e-6
    assert vector_difference(one, np.array([3.0], np.float32), "l2") == float("inf")
    assert not vector_difference(one, np.array([np.nan, 1], np.float32), "l2") <= 1.0


def test_positions_sort_as_a_scan_does():
    assert Position("a", 1, "b") < Position("a", 2, "a") < Position("ä", 0, "")


# The command

RUN = CliRunner()


def toml(path, name, **more):
    extra = "".join(f"{key} = {json.dumps(value)}\n" for key, value in more.items())
    path.write_text(
        f'version = 1\n[stores.main]\nadapter = "memory"\nname = "{name}"\ndimension = 3\n{extra}'
        '[stores.main.metadata]\nyear = "number"\nwhen = "datetime"\ntags = "keyword[]"\n'
    )
    return path


@pytest.fixture
def files(pair, tmp_path):
    *_, names = pair
    (tmp_path / "tenants").write_text("acme\nglobex\n")
    return [toml(tmp_path / f"{one}.toml", name) for one, name in zip("ab", names, strict=True)]


def command(files, *more):
    return RUN.invoke(app, ["copy", "--from", str(files[0]), "--to", str(files[1]), *more])


def test_the_command(files, pair, tmp_path):
    source, target, _, _ = pair
    listed = ("--tenants", str(tmp_path / "tenants"))
    dry = command(files, *listed, "--dry-run", "--json")
    assert dry.exit_code == 0, dry.output
    assert [one["state"] for one in json.loads(dry.stdout)["plan"]["tenants"]] == ["copy", "copy"]
    assert json.loads(dry.stdout)["result"] is None
    assert not everything(target, *TENANTS)
    done = command(files, *listed, "--json")
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)["result"]
    assert body["written"] == 31
    assert all(one["same"] and one["source_digest"] == one["target_digest"] for one in body["tenants"])
    assert everything(target, *TENANTS) == everything(source, *TENANTS)
    again = command(files, *listed)
    assert again.exit_code == 0
    assert "0 chunks written" in again.stdout
    assert "2 of 2 tenants the same" in again.stdout


def test_the_command_refuses_with_two(files, pair, listless):
    assert "cannot list tenants" in command(files).stderr
    assert command(files).exit_code == 2
    assert command(files, "--tenant", "acme", "--tenants", "-").exit_code == 2
    same = command([files[0], files[0]], "--tenant", "acme")
    assert (same.exit_code, "the same store" in same.stderr) == (2, True)
    assert "requires each tenant by name" in command(files, "--overwrite").stderr
    body = json.loads(command(files, "--tenant", "nobody", "--json").stdout)
    assert "no rows of" in body["error"]["message"]


def test_the_command_tells_of_a_difference_with_one(files, pair, monkeypatch):
    _, target, _, _ = pair
    adapter = hazmat.operate(target, reason=REASON).store.adapter
    kind = type(adapter)
    right = kind.upsert

    def loses(self, operation):
        return (yield from right(self, replace(operation, records=operation.records[1:])))

    monkeypatch.setattr(kind, "upsert", loses)
    done = command(files, "--tenant", "acme")
    assert done.exit_code == 1, done.output
    assert "acme: 16 rows in the source, 15 in the target; 1 missing" in done.stdout
    monkeypatch.undo()
    mended = command(files, "--tenant", "acme", "--overwrite")
    assert mended.exit_code == 0, mended.output
