"""The commands of a governor, as one types them, on a memory store under a registry."""

from __future__ import annotations

import json
import os
import time

import pytest
from typer.testing import CliRunner

import vectoracl
from vectoracl.cli import app

CONFIG = """
version = 1
[stores.main]
adapter = "memory"
dimension = 64
name = "{name}"
[embedder]
use = "hashed:64"
[registry.sources.drive]
max_age_seconds = 3600
[registry]
default_label = "everyone"
max_read_seconds = 0
attributes = {{ sensitivity = {{ levels = ["public", "secret"] }}, region = {{ type = "keyword" }} }}
"""


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if "--json" in arguments else result.stdout


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectoracl.toml").write_text(CONFIG.format(name=tmp_path))
    (tmp_path / "docs").mkdir()
    for name in ("a", "b"):
        (tmp_path / "docs" / f"{name}.md").write_text(f"# {name}\n\nSome words of {name}.")
    run("provision")
    with vectoracl.connect("vectoracl.toml"):  # the store lives as long as the test
        yield tmp_path


def seen():
    found = run("documents", "list", "--as", "ann@acme", "--json")["documents"]
    return [one["document"] for one in found]


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_quarantine_has_no_time_that_is_always(here, option):
    rule = ("quarantine", "add", "q", "--tenant", "acme", "--producer", "ann", "--reason", "poisoned")
    run(*rule, option, "always", code=2)
    assert run("quarantine", "list", "--tenant", "acme", "--json")["rules"] == []
    run(*rule, option, "2030-01-31T00:00:00Z")
    assert run("quarantine", "list", "--tenant", "acme", "--json")["rules"][0][option[2:]] == 1896048000.0


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_a_word_that_python_reads_as_a_number_is_a_text(here, word):
    run("labels", "define", "one", "--tenant", "acme", "--attribute", f"region={word}")
    (label,) = [one for one in run("labels", "list", "--tenant", "acme", "--json")["labels"] if one["name"] == "one"]
    assert label["attributes"] == {"region": word}


def test_a_day_of_a_governor(here):
    assert (here / "vectoracl-registry.db").exists()
    run("ingest", "--as", "ann@acme", "docs", code=2)  # no one may write the default label yet
    run("labels", "define", "everyone", "--tenant", "acme", "--write", "tenant", "--attribute", "sensitivity=public")
    run("labels", "define", "hr", "--tenant", "acme", "--read", "group:hr", "--deny", "user:eve")
    run("ingest", "--as", "ann@acme", "docs")
    assert seen() == ["docs/a.md", "docs/b.md"]
    assert run("documents", "move", "docs/a.md", "--tenant", "acme", "--label", "hr", "--json") == {
        "moved": ["docs/a.md"]
    }
    assert seen() == ["docs/b.md"]
    listed = run("labels", "list", "--tenant", "acme")
    assert "group:hr" in listed
    assert "not user:eve" in listed
    who = run("access", "who", "docs/a.md", "--tenant", "acme")
    assert "group:hr reads" in who
    assert "user:eve is denied" in who
    what = run("access", "what", "--as", "ann@acme", "--group", "hr", "--json")
    assert what["reads"] == {"acme": ["everyone", "hr"]}
    assert what["writes"] == {"acme": ["everyone"]}
    call = ("--tenant", "acme", "--matter", "smith", "--reason", "litigation")
    assert run("hold", "docs/b.md", *call, "--json") == {"held": ["docs/b.md"]}
    assert seen() == []
    assert "No one reads it: it is under a hold." in run("access", "who", "docs/b.md", "--tenant", "acme")
    run("documents", "delete", "--as", "ann@acme", "docs/b.md", "--yes", code=2)
    run("erase", "docs/b.md", "--tenant", "acme", "--reason", "r", "--yes", code=2)
    assert "smith" in run("documents", "registered", "--tenant", "acme", "--matter", "smith")
    assert run("reconcile", "--tenant", "acme", "--json")["left"] == 0
    run("release", *call)
    assert seen() == ["docs/b.md"]
    run("quarantine", "add", "q", "--tenant", "acme", "--producer", "ann", "--reason", "poisoned")
    assert seen() == []
    assert run("quarantine", "list", "--tenant", "acme", "--json")["rules"][0]["producer"] == "ann"
    run("quarantine", "lift", "q", "--tenant", "acme", "--reason", "false alarm")
    run("retain", "docs/b.md", "--tenant", "acme", "--until", "2020-01-01T00:00:00Z")
    assert seen() == []
    assert run("sweep", "--tenant", "acme", "--share", "1", "--json")["documents"] == ["docs/b.md"]
    assert run("erase", "docs/a.md", "--tenant", "acme", "--reason", "r", "--yes", "--json")["left"] == []
    run("labels", "drop", "hr", "--tenant", "acme", code=2)  # the erased document still points at it


def test_what_is_refused(here):
    run("hold", "nothing.md", "--tenant", "acme", "--matter", "m", "--reason", "r", code=2)
    run("hold", "nothing.md", "--tenant", "acme", "--matter", "m", code=2)
    run("retain", "x", "--tenant", "acme", "--until", "tomorrow", code=2)
    run("labels", "define", "#held", "--tenant", "acme", code=2)
    run("labels", "define", "x", "--tenant", "acme", "--attribute", "sensitivity=unheard", code=2)
    run("labels", "define", "x", "--tenant", "acme", "--read", "hr", code=2)
    run("tenants", "remove", "acme", "--yes", code=2)


def test_a_registry_is_verified_exported_and_imported(here):
    run("labels", "define", "everyone", "--tenant", "acme", "--write", "tenant")
    run("ingest", "--as", "ann@acme", "docs")
    assert "compared 2 documents; corrected 0, deleted chunks of 0" in run("registry", "verify", "--tenant", "acme")
    (found,) = run("registry", "verify", "--json")["tenants"]
    assert (found["tenant"], found["documents"], found["incomplete"]) == ("acme", 2, [])
    rows = run("registry", "export", "copy.jsonl", "--json")["rows"]
    assert (here / "copy.jsonl").stat().st_mode & 0o777 == 0o600
    run("registry", "export", "copy.jsonl", code=2)
    run("registry", "import", "copy.jsonl", code=2)  # it has content
    for end in ("", "-wal", "-shm"):
        (here / f"vectoracl-registry.db{end}").unlink(missing_ok=True)
    lines = (here / "copy.jsonl").read_text().splitlines(keepends=True)
    for damaged in (lines[:-1], [*lines[:2], *lines[3:]], [*lines[:2], "{}\n"], ["[]\n"], [lines[0][:20]], []):
        (here / "damaged.jsonl").write_text("".join(damaged))
        run("registry", "import", "damaged.jsonl", code=2)
    assert run("registry", "import", "copy.jsonl", "--json")["rows"] == rows
    assert seen() == ["docs/a.md", "docs/b.md"]
    run("hold", "docs/a.md", "--tenant", "acme", "--matter", "m", "--reason", "litigation")
    assert seen() == ["docs/b.md"]


def test_the_demo(here):
    shown = run("demo", "--governance", "--store", "memory", "--json")
    assert [row["written"] for row in shown["rows"]] == [0] * 8
    assert shown["rows"][0]["seen"]["eve (other tenant)"] == ["globex.md"]
    assert shown["rows"][0]["seen"]["kim (child tenant)"] == ["acme-lab.md", "research.md"]
    held = shown["rows"][4]["seen"]
    assert all("contract.md" not in documents for documents in held.values())
    run("demo", "--governance", "--docs", "docs", code=2)


def test_a_feed_of_another_system(here):
    run("labels", "define", "everyone", "--tenant", "acme", "--write", "tenant")
    run("ingest", "--as", "ann@acme", "docs")
    moment = time.time() - 10
    lines = [
        {"as_of": moment, "document": "docs/", "entries": [{"subject": "group:hr"}]},
        {"as_of": moment, "document": "docs/a.md", "inherits_from": "docs/"},
    ]
    feed, apply = here / "drive.jsonl", ("access", "apply", "drive.jsonl", "--tenant", "acme", "--source", "drive")
    feed.write_text("".join(json.dumps(one) + "\n" for one in lines) + "{}\n")
    assert run(*apply, "--json", code=2)["error"]["message"].startswith("Line 3: ")
    assert seen() == ["docs/a.md", "docs/b.md"]
    assert run("access", "sources", "--tenant", "acme", "--json", code=1)["sources"][0]["as_of"] is None
    feed.write_text("".join(json.dumps(one) + "\n" for one in lines))
    found = run(*apply, "--json")
    assert (found["records"], found["changed"], found["as_of"]) == (2, ["docs/", "docs/a.md"], moment)
    assert seen() == ["docs/b.md"]
    assert "0 documents changed" in run(*apply)
    assert "drive was read until" in run("access", "sources", "--tenant", "acme")
    who = run("access", "who", "docs/a.md", "--tenant", "acme")
    assert "group:hr reads" in who
    feed.write_text(json.dumps({"as_of": moment - 9, "document": "docs/a.md", "label": "everyone"}))
    assert "1 record older" in run(*apply)
    assert seen() == ["docs/b.md"]
    feed.write_bytes(b"\xff")
    run(*apply, code=2)
    run("access", "apply", "none.jsonl", "--tenant", "acme", "--source", "drive", code=2)
    feed.write_text(json.dumps({"as_of": moment}))
    run(*apply[:-1], "other", code=2)


def test_files_as_a_source_of_rights(here):
    run("labels", "define", "everyone", "--tenant", "acme", "--write", "tenant")
    run("ingest", "--as", "ann@acme", "docs")
    (here / "docs").chmod(0o755)
    (here / "docs" / "a.md").chmod(0o644)
    (here / "docs" / "b.md").chmod(0o640)
    posix = ("access", "posix", "docs", "--tenant", "acme", "--source", "drive")
    owner = f"user:{os.getuid()}"
    shown = run(*posix, "--numeric", "--others", "--dry-run")
    assert owner in shown
    assert "2 files with 2 sets of readers" in shown
    assert seen() == ["docs/a.md", "docs/b.md"]
    found = run(*posix, "--numeric", "--others", "--dry-run", "--json")
    assert (found["applied"], [one["files"] for one in found["sets"]]) == (False, [1, 1])
    assert "drive was read until" in run(*posix, "--numeric", "--others")
    assert seen() == ["docs/a.md"]
    assert owner in run("access", "who", "docs/b.md", "--tenant", "acme")
    run(*posix)
    assert seen() == []
    run(*posix, "--writer", "user:ann")
    assert seen() == ["docs/a.md", "docs/b.md"]
    run("ingest", "--as", "ann@acme", "docs")
    (here / "docs" / "b.md").unlink()
    (here / "docs" / "c.md").symlink_to("a.md")
    assert "1 document whose file is not there" in run(*posix, "--dry-run")
    found = run(*posix, "--json")
    assert found["ended"] == 1
    assert found["skipped"] == [{"name": "docs/c.md", "reason": "is a symbolic link, which is not followed"}]
    assert seen() == []
    run("access", "posix", "none", "--tenant", "acme", "--source", "drive", code=2)
    run("access", "posix", "docs", "--tenant", "acme", "--source", "other", code=2)
    (here / "docs" / "x\ny.md").touch()
    assert "cannot be a document id" in run(*posix, code=1)
    assert run(*posix, "--json", code=1)["applied"]
