"""`vectoracl copy` against mistakes and accidents that would cost rows: one store under two names, cut-off clearings,
files that are no checkpoint, two copies at a time."""

import shutil

import orjson
import pytest

import vectoracl as v
from tests.test_copy import TENANTS, command, copying, everything, files, pair  # noqa: F401 - fixtures
from vectoracl import Chunk, VectorACL, testing
from vectoracl._util.file_lock import FileLock
from vectoracl.adapter_api.operations import Position
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.errors import InvalidInputError, RefusedError, StoreError

HEAD = orjson.dumps({"copy": 1, "binding": "x"})


def test_the_same_store_under_another_name_loses_nothing(files, pair):  # noqa: F811
    """One file named twice, once with its default store; and a second file that says the same."""
    source, *_ = pair
    before = everything(source, *TENANTS)
    twin = files[0].with_name("twin.toml")
    shutil.copy(files[0], twin)
    for target, more in ((files[0], ("--to-store", "main")), (twin, ())):
        for overwrite in ((), ("--overwrite",)):
            done = command([files[0], target], "--tenant", "acme", *more, *overwrite)
            assert (done.exit_code, "the same store" in done.stderr) == (2, True), done.output
            assert everything(source, *TENANTS) == before


def test_one_place_by_different_settings_is_refused(files, pair, monkeypatch):  # noqa: F811
    """What each side's server says of itself decides, and it is asked before anything is read or written."""
    source, *_ = pair
    before = everything(source, *TENANTS)
    asked = []

    def places(acl, store):
        asked.append(store)
        return frozenset({"memory: here", f"memory: {id(acl)}"})

    monkeypatch.setattr(VectorACL, "store_identity", places)
    for overwrite in ((), ("--overwrite",), ("--dry-run",)):
        done = command(files, "--tenant", "acme", *overwrite)
        assert (done.exit_code, "the same store for 'acme' under different settings" in done.stderr) == (2, True), (
            done.output
        )
    assert len(asked) == 6
    assert everything(source, *TENANTS) == before
    monkeypatch.setattr(VectorACL, "store_identity", lambda acl, _: frozenset({f"memory: {id(acl)}"}))
    assert command(files, "--tenant", "acme").exit_code == 0


def test_a_person_s_word_goes_before_the_places_and_is_recorded(files, pair, monkeypatch, tmp_path):  # noqa: F811
    """It is told before and kept in every record of both sides; the same settings are one store whatever is said."""
    source, target, *_ = pair
    monkeypatch.setattr(VectorACL, "store_identity", lambda *_: frozenset({"memory: here"}))
    done = command(files, "--tenant", "acme")
    assert done.exit_code == 2, done.output
    assert "'memory: here'" in done.stderr
    assert "--different-stores" in done.stderr
    for path in files:
        kept = tmp_path / f"{path.name}.jsonl"
        path.write_text(f"{path.read_text()}\n[audit]\nsink = 'jsonl'\npath = '{kept.as_posix()}'\n")
    done = command(files, "--tenant", "acme", "--different-stores")
    assert done.exit_code == 0, done.output
    assert "not refused because of --different-stores" in " ".join(done.output.split())
    assert everything(target, "acme") == everything(source, "acme")
    for path in files:
        lines = [orjson.loads(line) for line in (tmp_path / f"{path.name}.jsonl").read_bytes().splitlines()]
        reasons = [line["decision"]["reasons"] for line in lines if "decision" in line]
        assert reasons
        assert all("(--different-stores)" in one for (one,) in reasons)
    twin = files[0].with_name("twin.toml")
    shutil.copy(files[0], twin)
    done = command([files[0], twin], "--tenant", "acme", "--different-stores")
    assert (done.exit_code, "the same store for 'acme'. To copy between" in " ".join(done.stderr.split())) == (
        2,
        True,
    ), done.output


def test_an_overwrite_deletes_no_rows_that_are_the_same(files, pair, tmp_path, monkeypatch):  # noqa: F811
    """Two configurations may reach one store in ways that cannot be compared; then its rows are the same ones."""
    monkeypatch.setattr(v.VectorACL, "store_identity", lambda *_: frozenset())
    source, *_ = pair
    before = everything(source, *TENANTS)
    other = files[0].with_name("other.toml")
    other.write_text(files[0].read_text().replace("dimension = 3", "dimension = 3\nmetric = 'cosine'"))
    done = command([files[0], other], "--tenant", "acme", "--overwrite")
    assert done.exit_code == 0, done.output
    assert everything(source, *TENANTS) == before


def test_an_overwrite_that_was_cut_while_it_cleared_clears_again(pair, tmp_path, monkeypatch):  # noqa: F811
    source, target, *_ = pair
    target.scoped(testing.principal("w", "acme")).upsert([Chunk("x", "other", "of before", [1.0, 0.0, 0.0])])
    work = copying(source, target, tmp_path)
    plan = work.plan(["acme"], named=True, overwrite=True)

    def fails(tenant):
        raise StoreError("gone", code="unavailable", sent="no")

    monkeypatch.setattr(plan.moves[0].target, "clear", fails, raising=False)
    with pytest.raises(StoreError):
        work.run(plan)
    monkeypatch.undo()
    with pytest.raises(RefusedError, match="other rows"):
        copying(source, target, tmp_path).plan(["acme"], named=True)
    rest = copying(source, target, tmp_path)
    assert not rest.run(rest.plan(["acme"], named=True, overwrite=True)).different
    assert everything(target, "acme") == everything(source, "acme")


def bound(path, *lines):
    """Write a checkpoint with the right head and *lines*."""
    kept = Checkpoint(path, ["a", "b"])
    kept.note("acme", 0, None)
    path.write_bytes(b"\n".join([path.read_bytes().splitlines()[0], *map(orjson.dumps, lines), b""]))
    return path


@pytest.mark.parametrize(
    "line",
    [
        {"tenant": "acme", "rows": 1, "after": ["d", 0, "c"], "state": "there"},
        {"tenant": "acme", "rows": -1, "after": None, "state": "begun"},
        {"tenant": "acme", "rows": "1", "after": None, "state": "begun"},
        {"tenant": "acme", "rows": True, "after": None, "state": "begun"},
        {"tenant": 5, "rows": 1, "after": None, "state": "begun"},
        {"tenant": "acme", "rows": 1, "after": ["d", "0", "c"], "state": "begun"},
        {"tenant": "acme", "rows": 1, "after": ["d", True, "c"], "state": "begun"},
        {"tenant": "acme", "rows": 1, "after": [1, 0, "c"], "state": "begun"},
        {"tenant": "acme", "rows": 1, "after": "dc0", "state": "begun"},
        {"tenant": "acme", "rows": 1, "after": ["d", 0, "c", 1], "state": "begun"},
        [],
        None,
    ],
)
def test_a_line_that_no_copy_wrote_is_refused(tmp_path, line):
    path = bound(tmp_path / "checkpoint", line)
    with pytest.raises(InvalidInputError, match="not a checkpoint"):
        Checkpoint(path, ["a", "b"])


@pytest.mark.parametrize("data", [b"my only notes", b'{"copy": 1', HEAD])
def test_a_file_without_a_whole_head_is_left_alone(tmp_path, data):
    """The head is written whole or not at all, so that such a file is somebody's own."""
    path = tmp_path / "checkpoint"
    path.write_bytes(data)
    with pytest.raises(InvalidInputError, match="not a checkpoint"):
        Checkpoint(path, ["a", "b"])
    assert path.read_bytes() == data


def test_two_copies_never_share_a_checkpoint(pair, tmp_path):  # noqa: F811
    source, target, *_ = pair
    work = copying(source, target, tmp_path)
    plan = work.plan(TENANTS)
    other = FileLock(str(tmp_path / "checkpoint.lock"))
    assert other.held
    with pytest.raises(RefusedError, match="Another copy"):
        work.run(plan)
    assert not everything(target, *TENANTS)
    other.release()
    assert not work.run(plan).different
    assert not (tmp_path / "checkpoint.lock").exists()


def test_a_checkpoint_that_went_on_after_the_plan_is_refused(pair, tmp_path):  # noqa: F811
    source, target, *_ = pair
    late = copying(source, target, tmp_path)
    plan = late.plan(TENANTS)
    Checkpoint(tmp_path / "checkpoint", ["a", "b"]).note("acme", 3, Position("a", 0, "2"))
    with pytest.raises(RefusedError, match="changed the checkpoint"):
        late.run(plan)
    assert not everything(target, *TENANTS)


@pytest.mark.parametrize("number", [1e300, -(2.0**70), 2.0**63, 5e-324])
def test_large_numbers_are_compared(pair, tmp_path, number):  # noqa: F811
    source, target, *_ = pair
    source.scoped(testing.principal("w", "acme")).upsert(
        [Chunk("big", "a", "a large number", [1.0, 0.0, 0.0], metadata={"year": number})]
    )
    work = copying(source, target, tmp_path)
    report = work.run(work.plan(TENANTS))
    assert not report.different
    assert all(one.source_digest for one in report.tenants)
