"""`--shard I/N`: every command with it does a part, says which parts are left, and the last one has the sum."""

import json
import threading
import time
import uuid
from pathlib import Path

import pytest
from typer.testing import CliRunner

import vectoracl as v
from vectoracl import Chunk, hazmat, testing
from vectoracl.cli import ingest_lock
from vectoracl.cli.app import app
from vectoracl.cli.shards import Which
from vectoracl.errors import RefusedError
from vectoracl.model.records import Record, Tag

WHO = testing.principal("w", "acme")


def command(*arguments, code=0):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exit_code == code, result.output
    return result


def answer(*arguments, code=0):
    return json.loads(command(*arguments, "--json", code=code).stdout)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two configurations of memory stores that live as long as the test, and what keeps them open."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    paths, opened = [], []
    for name in ("old", "new"):
        store = {"adapter": "memory", "name": uuid.uuid4().hex, "dimension": 16}
        text = (
            f'version = 1\n[embedder]\nuse = "hashed"\ndimension = 16\n[stores.main]\nadapter = "memory"\n'
            f'name = "{store["name"]}"\ndimension = 16\n'
        )
        paths.append(tmp_path / f"{name}.toml")
        paths[-1].write_text(text)
        opened.append(v.VectorACL(paths[-1]).open())
    for tenant in ("acme", "globex"):
        chunks = [Chunk(f"c{n}", f"d{n % 3}", f"text {n}", [1.0] * 15 + [n]) for n in range(10)]
        opened[0].scoped(testing.principal("w", tenant)).upsert(chunks)
    yield (*paths, *opened)
    for acl in opened:
        acl.close()


def rows(acl, *tenants):
    operated = hazmat.operate(acl, reason="a test of shards")
    return [(hit.tag[:4], hit.text) for tenant in tenants for hit in operated.read(tenant, 1000).hits]


def test_a_copy_in_shards(files, tmp_path):
    old, new, source, target = files
    line = ("copy", "--from", old, "--to", new, "--journal", tmp_path / "j")
    first = answer(*line, "--shard", "2/3")
    assert (first["shard"], first["left"], first["total"]) == ("2/3", ["1/3", "3/3"], None)
    assert len(rows(target, "acme", "globex")) == first["written"] > 0
    assert answer(*line, "--shard", "2/3") == {**first, "kept": True}
    answer(*line, "--shard", "1/3")
    text = command(*line, "--shard", "3/3").stdout
    assert "Shard 3/3 of the plan" in text
    assert "All of 3 shards: 20 rows compared, 2 of 2 tenants good." in " ".join(text.split())
    last = answer(*line, "--shard", "1/3")
    assert (last["total"]["written"], last["total"]["good"], last["left"]) == (20, True, [])
    assert rows(target, "acme", "globex") == rows(source, "acme", "globex")


def test_a_copy_in_shards_has_the_digests_of_a_copy(files, tmp_path):
    old, new, _, target = files
    whole = answer("copy", "--from", old, "--to", new)["result"]["tenants"]
    for tenant in ("acme", "globex"):
        hazmat.operate(target, reason="a test of shards").clear(tenant)
    for number in (1, 2):
        last = answer("copy", "--from", old, "--to", new, "--journal", tmp_path / "j", "--shard", f"{number}/2")
    parts = {one["tenant"]: one["comparison"]["source_digest"] for one in last["total"]["census"]}
    assert parts == {one["tenant"]: one["source_digest"] for one in whole}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--shard", "1/2"], "Pass --journal DIR with --shard"),
        (["--journal", "J"], "--journal is only for --shard"),
        (["--shard", "0/2", "--journal", "J"], "--shard takes I/N"),
        (["--shard", "3/2", "--journal", "J"], "--shard takes I/N"),
        (["--shard", "1", "--journal", "J"], "--shard takes I/N"),
        (["--shard", "١/٢", "--journal", "J"], "--shard takes I/N"),
        (["--shard", "1/2", "--journal", "J", "--dry-run"], "--dry-run acts on the whole"),
        (["--shard", "1/2", "--journal", "J", "--tenant", "acme", "--overwrite"], "--overwrite acts on the whole"),
    ],
)
def test_a_shard_that_makes_no_sense_is_refused(files, tmp_path, given, why):
    old, new, _, target = files
    given = [str(tmp_path / "j") if one == "J" else one for one in given]
    body = answer("copy", "--from", old, "--to", new, *given, code=2)
    assert why in body["error"]["message"]
    assert not rows(target, "acme", "globex")


def test_a_shard_of_another_number_or_job_is_refused(files, tmp_path):
    old, new, *_ = files
    answer("copy", "--from", old, "--to", new, "--journal", tmp_path / "j", "--shard", "1/2")
    body = answer("copy", "--from", old, "--to", new, "--journal", tmp_path / "j", "--shard", "1/3", code=2)
    assert "a plan of 2 shards, not of 3" in body["error"]["message"]
    body = answer("check", "-c", old, "--data", "--journal", tmp_path / "j", "--shard", "1/2", code=2)
    assert "the job 'copy', not of 'check'" in body["error"]["message"]


def test_a_check_of_the_rows(files, tmp_path):
    old, _, source, _ = files
    assert (answer("check", "-c", old, "--data")["rows"], answer("check", "-c", old, "--data")["good"]) == (20, True)
    bad = Record(Tag("acme", "odd", "\x1b[31m", rev=-1), "t", [1.0] * 16, {})
    hazmat.operate(source, reason="a test of shards").write("acme", [bad._replace(tag=bad.tag._replace(chunk="x"))])
    whole = answer("check", "-c", old, "--data", code=1)
    assert whole["census"][0]["faults"] == {"The tag's rev is not a whole number from 0.": 1}
    line = ("check", "-c", old, "--data", "--store", "main", "--journal", tmp_path / "j")
    codes = [CliRunner().invoke(app, [*map(str, line), "--shard", f"{n}/3"]).exit_code for n in (1, 2, 3)]
    assert codes[2] == 1
    last = answer(*line, "--shard", "3/3", code=1)
    assert last["total"]["census"] == whole["census"]
    text = command("check", "-c", old, "--data", code=1).stdout
    assert "odd / x: The tag's rev" in text


@pytest.mark.parametrize(
    "given", [["--dsn", "x"], ["--fail-on", "note"], ["--explain", "PG001"], ["--format", "sarif"], ["--table", "t"]]
)
def test_a_check_of_the_rows_takes_no_options_of_the_other_check(files, given):
    result = CliRunner().invoke(app, ["check", "-c", str(files[0]), "--data", *given])
    assert result.exit_code == 2
    result = CliRunner().invoke(app, ["check", "-c", str(files[0]), "--shard", "1/2"])
    assert result.exit_code == 2
    assert "only for --data" in result.output


def test_an_import_in_shards_needs_a_source_and_consent(files, tmp_path):
    line = ("provision", "-c", files[0], "--shard", "1/2", "--journal", tmp_path / "j")
    assert "only for --adopt" in answer(*line, code=2)["error"]["message"]
    assert "--yes" in answer(*line, "--adopt", "docs", code=2)["error"]["message"]
    assert "only for --adopt" in answer(*line, "--adopt", "docs", "--sql", code=2)["error"]["message"]
    body = answer(*line, "--adopt", "docs", "--yes", code=2)
    assert "cannot import rows in shares" in body["error"]["message"]


def test_documents_are_ingested_in_shards(files, tmp_path):
    _, new, _, target = files
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(12):
        (folder / f"{n}.txt").write_text(f"the text number {n}")
    counts = []
    for number in (3, 1, 2, 1):
        body = answer("ingest", "-c", new, "--as", "you@acme", folder, "--shard", f"{number}/3")
        assert body["shard"] == f"{number}/3"
        counts.append(body["documents"])
    assert sum(counts[:3]) == 12
    assert counts[3] == counts[1]
    parts = [(tag[1], text) for tag, text in rows(target, "acme")]
    assert len(parts) == 12
    answer("ingest", "-c", new, "--as", "you@acme", folder)
    assert [(tag[1], text) for tag, text in rows(target, "acme")] == parts
    body = answer("ingest", "-c", new, "--as", "you@acme", folder, "--shard", "1/3", "--prune", code=2)
    assert "--prune acts on the whole" in body["error"]["message"]
    # A share without documents is done, not a failure.
    assert answer("ingest", "-c", new, "--as", "you@acme", folder / "1.txt", "--shard", "1/200")["documents"] == 0


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        (None, None, False),
        (Which(1, 3), Which(2, 3), True),
        (Which(1, 3), Which(1, 3), False),
        (Which(1, 3), Which(2, 4), False),
        (Which(1, 3), None, False),
        (None, Which(1, 3), False),
    ],
)
def test_shards_of_one_number_ingest_next_to_each_other(tmp_path, monkeypatch, one, other, fits):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with ingest_lock.alone({"place"}, "acme", one):
        with ingest_lock.alone({"place"}, "globex", other), ingest_lock.alone({"elsewhere"}, "acme", other):
            pass
        if fits:
            with ingest_lock.alone({"place"}, "acme", other):
                pass
        else:
            with (
                pytest.raises(RefusedError, match="Another `vectoracl ingest`"),
                ingest_lock.alone({"place"}, "acme", other),
            ):
                pass
    with ingest_lock.alone({"place"}, "acme", other):
        pass
    assert not list(Path(tmp_path / "vectoracl").iterdir())


def test_shards_that_start_at_once_are_not_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    taken, together, faults = ingest_lock._taken, threading.Barrier(6), []

    def slow(name):
        found = taken(name)
        time.sleep(0.005)  # the moment in which another part could see it
        return found

    monkeypatch.setattr(ingest_lock, "_taken", slow)

    def part(number):
        together.wait()
        try:
            with ingest_lock.alone({"one", "other"}, "acme", Which(number, 6)):
                together.wait(timeout=20)
        except (RefusedError, threading.BrokenBarrierError) as error:
            faults.append(error)

    workers = [threading.Thread(target=part, args=(number,)) for number in range(1, 7)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert not faults
    assert not list(Path(tmp_path / "vectoracl").iterdir())


def test_a_result_that_was_kept_is_shown_as_kept(files, tmp_path):
    old, _, _, _ = files
    shard = ("check", "--data", old, "--shard", "1/1", "--journal", tmp_path / "j")
    assert answer(*shard)["kept"] is False
    assert answer(*shard)["kept"] is True
    assert "kept in the journal" in " ".join(command(*shard).stdout.split())
