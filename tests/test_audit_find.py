"""`vectoracl audit find`: which recorded reads returned a chunk, and what cannot be told."""

from __future__ import annotations

import gzip
import json

import pytest
from typer.testing import CliRunner

import vectoracl
from vectoracl import Chunk, DeniedError, InvalidInputError, Principal, hazmat
from vectoracl.audit.returned_hashes import key_id
from vectoracl.audit.search import find, sizes
from vectoracl.cli import app

KEY = "k" * 16 + "0123456789abcdef"
OTHER = "another key, of at least 32 bytes"
V = [1.0, *[0.0] * 63]
CONFIG = """
version = 1
[stores.main]
adapter = "memory"
dimension = 64
name = "{name}"
[embedder]
use = "hashed:64"
[audit]
sink = "jsonl"
path = "audit.jsonl"
{returned}
"""
HASHED = 'returned = "hashed"\nkey = {{ env = "{}" }}'


def person(who="ann", tenant="acme"):
    return Principal(who, tenant, authenticated_by="test")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a configuration, and a store that lives as long as the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIT_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", OTHER)
    configure(tmp_path)
    silent = CONFIG.format(name=tmp_path, returned="").replace("audit.jsonl", "elsewhere.jsonl")
    (tmp_path / "silent.toml").write_text(silent)
    with vectoracl.connect("silent.toml") as acl:
        for tenant in ("acme", "globex"):
            docs = acl.scoped(person("writer", tenant))
            docs.upsert([Chunk(f"c{n}", f"d{n % 2}", "some words", V, position=n) for n in range(4)])
        yield tmp_path


HASHED_NOW = HASHED.format("AUDIT_KEY")


def configure(folder, returned=HASHED_NOW):
    (folder / "vectoracl.toml").write_text(CONFIG.format(name=folder, returned=returned))


def reading(act, who=None):
    with vectoracl.connect("vectoracl.toml") as acl:
        return act(acl.scoped(who or person()))


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["audit", "find", *arguments], env={"COLUMNS": "150", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code).stdout)


def names(report):
    return [(one["principal"]["id"], one["action"], one["chunks"]) for one in report["reads"]]


def test_it_tells_who_read_a_document_and_which_chunks(here):
    reading(lambda docs: docs.search(V, 4), person("ann"))
    reading(lambda docs: docs.fetch([("d1", "c1")]), person("bob"))
    reading(lambda docs: list(docs.scan(size=2)), person("cat"))
    reading(lambda docs: docs.search(V, 4), person("eve", "globex"))
    reading(lambda docs: docs.count(), person("dan"))
    chunk = ("--document", "d1", "--chunk", "c1", "--chunk", "c3")
    report = run_json("--as", "auditor@acme", *chunk)
    read = names(report)
    assert [one for one in read if one[1] != "scan"] == [("ann", "search", ["c1", "c3"]), ("bob", "fetch", ["c1"])]
    assert sorted(id_ for who, action, ids in read if (who, action) == ("cat", "scan") for id_ in ids) == ["c1", "c3"]
    assert report["complete"] is True
    assert all(one["time"].startswith("20") and one["store"] == "main" for one in report["reads"])
    assert {who for who, *_ in names(run_json("--as", "auditor@globex", *chunk))} == {"eve"}
    assert run_json("--as", "auditor@acme", "--document", "d0", "--chunk", "c1")["reads"] == []
    shown = run("--as", "auditor@acme", *chunk).stdout
    assert "bob" in shown
    assert "eve" not in shown


def test_without_a_chunk_the_store_says_which_there_are_and_that_look_is_not_told(here):
    reading(lambda docs: docs.search(V, 4))
    report = run_json("--as", "auditor@acme", "--document", "d1")
    assert report["chunks"] == ["c1", "c3"]
    assert names(report) == [("ann", "search", ["c1", "c3"])]
    assert names(run_json("--as", "auditor@acme", "--document", "d1"))[1:] == [("auditor", "scan", ["c1", "c3"])]
    gone = run_json("--as", "auditor@acme", "--document", "gone", code=2)
    assert "--chunk" in gone["error"]["message"]


def test_the_door_past_the_scope_is_a_read_too(here):
    with vectoracl.connect("vectoracl.toml") as acl:
        hazmat.unscoped(acl, reason="a test of the door").search(V, 8)
    (read,) = run_json("--as", "auditor@acme", "--document", "d1", "--chunk", "c1")["reads"]
    assert (read["action"], read["reasons"]) == ("hazmat.unscoped", ["a test of the door"])


def test_what_cannot_be_judged_is_counted_and_no_silence(here):
    look = ("--as", "auditor@acme", "--document", "d1", "--chunk", "c1")
    configure(here, "")
    reading(lambda docs: docs.search(V, 4))  # before it was switched on
    reading(lambda docs: docs.count())
    configure(here, HASHED.format("OTHER_KEY"))
    reading(lambda docs: docs.search(V, 4), person("bob"))
    configure(here)
    report = run_json(*look, code=1)
    assert report["reads"] == []
    assert report["not_judged"]["without_hashes"] == 1
    assert report["not_judged"]["other_key"] == {key_id(OTHER): 1}
    (here / "old").write_text(OTHER)
    assert names(run_json(*look, "--old-key", "old", code=1)) == [("bob", "search", ["c1"])]
    assert "--old-key" in run(*look, code=1).stdout


def test_a_read_without_an_outcome_and_a_torn_line_are_told(here):
    reading(lambda docs: docs.search(V, 4))
    path = here / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], lines[0].replace(b'"id":"', b'"id":"x', 1), b'{"decis\n', *lines[1:]]))
    report = run_json("--as", "auditor@acme", "--document", "d1", "--chunk", "c1", code=1)
    assert report["not_judged"]["without_outcome"] == 1
    assert report["not_judged"]["unreadable_lines"] == 1
    assert len(report["reads"]) == 1


def test_a_denied_read_returned_nothing(here):
    def act(docs):
        with pytest.raises(DeniedError):
            docs.narrow(actions=["count"]).search(V)

    reading(act)
    report = run_json("--as", "auditor@acme", "--document", "d1", "--chunk", "c1")
    assert (report["reads"], report["complete"]) == ([], True)


def test_rotated_files_are_read_together(here):
    reading(lambda docs: docs.search(V, 4))
    first = (here / "audit.jsonl").read_bytes().splitlines(keepends=True)
    # The outcome of a read can come in the file after that of its decision.
    (here / "old.gz").write_bytes(gzip.compress(b"".join(first[:-1])))
    (here / "audit.jsonl").write_bytes(first[-1])
    look = ("--as", "auditor@acme", "--document", "d1", "--chunk", "c1")
    assert names(run_json(*look, "--file", "old.gz", "--file", "audit.jsonl")) == [("ann", "search", ["c1"])]
    (alone,) = run_json(*look)["reads"]
    assert (alone["principal"], alone["time"], alone["chunks"]) == ({}, "", ["c1"])
    assert "no audit file" in run_json(*look, "--file", "nothing", code=2)["error"]["message"]
    (here / "cut.gz").write_bytes((here / "old.gz").read_bytes()[:-12])
    assert "cannot be read" in run_json(*look, "--file", "cut.gz", code=2)["error"]["message"]


def test_without_a_key_it_says_what_is_missing(here):
    configure(here, "")
    (here / "audit.jsonl").touch()
    said = run("--as", "auditor@acme", "--document", "d1", "--chunk", "c1", code=2).stderr
    assert 'returned = "hashed"' in said


def test_an_outcome_that_was_cut_is_judged_only_where_it_names_all(tmp_path):
    from vectoracl.audit.returned_hashes import returned_hash

    record = {"id": "1", "action": "search", "permit": True, "principal": {"id": "a"}, "time": 1.0}
    hashes = [returned_hash(KEY, "t", "d", "c1")]
    outcome = {
        "decision": "1",
        "outcome": "ok",
        "returned": 2,
        "ids": {"key": key_id(KEY), "hashes": hashes, "more": 1},
    }
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"decision": record}) + "\n" + json.dumps({"outcome": outcome}) + "\n")
    files = sizes([path])
    assert (find(files, [KEY], "t", "d", ["c1"]).cut, find(files, [KEY], "t", "d", ["c2"]).cut) == (0, 1)
    assert find(files, [KEY], "t", "d", ["c2"]).complete is False
    path.write_text(path.read_text() + json.dumps({"decision": {**record, "id": "2"}}) + "\n")
    assert find(files, [KEY], "t", "d", ["c1"]).without_outcome == 0  # what came later is left out
    with pytest.raises(InvalidInputError):
        sizes([tmp_path])
