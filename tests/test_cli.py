"""The command line over the memory store: what it prints, for people and as JSON, and its exit codes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tomllib
import types

import pytest
from typer.testing import CliRunner

import vectoracl
from vectoracl import Chunk, Finding, Posture, Principal, Rule, StoreError
from vectoracl.adapter_api import loading
from vectoracl.cli import app
from vectoracl.cli.common import one_line, plain
from vectoracl.cli.init import template
from vectoracl.config import adapter_config, read
from vectoracl.memory.ports import MemoryPort

CONFIG = """
version = 1
[stores.main]
adapter = "memory"
dimension = 64
name = "{name}"
[stores.main.metadata]
year = "number"
[embedder]
use = "hashed:64"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a configuration of a memory store that lives as long as the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    (tmp_path / "vectoracl.toml").write_text(CONFIG.format(name=tmp_path))
    with vectoracl.connect("vectoracl.toml"):
        yield tmp_path


def run(*arguments, code=0, **given):
    result = CliRunner().invoke(app, [str(one) for one in arguments], **given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments, code=0):
    result = run(*arguments, "--json", code=code)
    return json.loads(result.stdout)


def ingested(here, who="ann@acme", **texts):
    docs = here / "docs"
    docs.mkdir(exist_ok=True)
    for name, text in texts.items():
        (docs / f"{name}.md").write_text(text)
    return run_json("ingest", "--as", who, docs)


# --- init


@pytest.mark.parametrize("adapter", ["pgvector", "memory"])
def test_init_writes_a_configuration_that_is_valid(here, adapter):
    run("init", "-c", "new.toml", "--adapter", adapter)
    text = (here / "new.toml").read_text()
    assert vectoracl.Config.model_validate(tomllib.loads(text)).stores["main"].adapter == adapter
    assert sum(line.startswith("#") for line in text.splitlines()) > 10
    vectoracl.VectorACL(here / "new.toml").close()  # the adapter's part is valid too


def test_init_overwrites_only_when_told(here):
    before = (here / "vectoracl.toml").read_text()
    result = run("init", code=2)
    assert "--force" in result.stderr
    assert (here / "vectoracl.toml").read_text() == before
    run("init", "--force")
    assert (here / "vectoracl.toml").read_text() != before


def test_a_template_quotes_what_it_is_given():
    text = template(loading.load("pgvector"), embedder='a"b\\c\nd', settings={"embedded": "x # y"})
    read = tomllib.loads(text)
    assert read["embedder"]["use"] == 'a"b\\c\nd'
    assert read["stores"]["main"]["embedded"] == "x # y"


@pytest.mark.parametrize("name", sorted({one.adapter for one in loading.installed()} - {"duckdb"}))
def test_init_writes_what_the_adapter_reads(tmp_path, name):
    path = tmp_path / "vectoracl.toml"
    run("init", "--adapter", name, "-c", str(path))
    parsed, _ = read(path)
    hooks = loading.load(name)
    adapter_config(hooks.vectoracl_config_model(), parsed.stores["main"], "main")
    assert parsed.stores["main"].adapter == name


# --- ingest, search, explain


def test_what_one_tenant_ingests_another_does_not_find(here):
    report = ingested(here, intro="# Intro\n\nHow to build an index.", faq="# Questions\n\nWhere is the garden?")
    assert report["documents"] == 2
    assert report["chunks"] == 2
    found = run_json("search", "--as", "ann@acme", "build an index")
    assert found["hits"][0]["document"] == "docs/intro.md"
    assert {hit["tenant"] for hit in found["hits"]} == {"acme"}
    assert found["complete"] is True
    assert run_json("search", "--as", "ann@globex", "build an index")["hits"] == []
    assert "vectoracl explain --as ann@globex" in run("search", "--as", "ann@globex", "build an index").stdout


def test_ingesting_again_replaces(here):
    ingested(here, intro="One text.")
    ingested(here, intro="Another text.")
    hits = run_json("search", "--as", "ann@acme", "text")["hits"]
    assert [hit["text"] for hit in hits] == ["Another text."]


def test_ingest_tells_what_it_left_out(here):
    (here / "docs").mkdir()
    (here / "docs" / "picture.png").write_bytes(b"\0\1")
    assert ingested(here, intro="Text.")["skipped"] == [
        {"name": "docs/picture.png", "reason": "is not a text of a known kind"}
    ]
    assert "skipped: docs/picture.png" in run("ingest", "--as", "ann@acme", "docs").stdout


def test_a_filter_narrows(here):
    acl = vectoracl.connect("vectoracl.toml")
    handle = acl.scoped(Principal("ann", "acme", authenticated_by="test"))
    handle.upsert([Chunk(id=str(year), document="d", text="words", metadata={"year": year}) for year in (2019, 2021)])
    where = '{"field": "year", "op": "gte", "value": 2020}'
    hits = run_json("search", "--as", "ann@acme", "words", "--where", where)["hits"]
    assert [hit["id"] for hit in hits] == ["2021"]


@pytest.mark.parametrize(
    "where", ["{", "[]", "{}", '{"$or": []}', '{"field": "tenant_id", "op": "eq", "value": "globex"}']
)
def test_a_forged_filter_is_an_error_in_one_line(here, where):
    result = run("search", "--as", "ann@acme", "words", "--where", where, code=2)
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1


def test_explain_says_why_it_is_empty(here):
    ingested(here, intro="Text.")
    text = " ".join(run("explain", "--as", "ann@globex").stdout.split())
    assert "holds 0 chunks" in text
    assert "another tenant id" in text
    found = run_json("explain", "--as", "ann@acme", "--document", "docs/intro.md")
    assert (found["permit"], found["visible"], found["document_visible"]) == (True, 1, 1)


def test_explain_reads_a_foreign_document_like_a_missing_one(here):
    ingested(here, who="ann@acme", intro="Text.")
    foreign = run_json("explain", "--as", "ann@globex", "--document", "docs/intro.md")
    missing = run_json("explain", "--as", "ann@globex", "--document", "docs/other.md")
    assert foreign["summary"].replace("intro", "other") == missing["summary"]


def test_as_is_recorded_as_an_operator(here):
    log = here / "audit.jsonl"
    with (here / "vectoracl.toml").open("a") as file:
        file.write('[audit]\nsink = "jsonl"\npath = "audit.jsonl"\n')
    run("search", "--as", "ann@example.com@acme", "words")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    who = next(one["decision"]["principal"] for one in records if "decision" in one)
    assert (who["id"], who["tenant"], who["kind"]) == ("ann@example.com", "acme", "operator")
    assert "vectoracl search --as" in who["by"]


# --- errors


@pytest.mark.parametrize("who", ["ann", "@acme", "ann@", "", "ann@a*"])
def test_a_bad_principal_is_one_line(here, who):
    result = run("search", "--as", who, "words", code=2)
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


def test_errors_are_objects_with_json(here):
    found = run_json("search", "--as", "ann", "words", code=2)
    assert found["error"]["code"] == "invalid_input"
    assert run("search", "--as", "ann", "words", "--json", code=2).stderr == ""


def test_a_missing_configuration_says_what_writes_one(here):
    result = run("search", "--as", "ann@acme", "words", "-c", "no.toml", code=2)
    assert "vectoracl init" in result.stderr


def test_a_wrong_configuration_is_told_without_its_values(here):
    (here / "bad.toml").write_text(CONFIG + 'dsn = "postgresql://u:hunter2@h/d"\n')
    result = run("check", "bad.toml", code=2)
    assert "embedder.dsn: is not a known key" in result.stderr
    assert "hunter2" not in result.output


def test_an_adapter_that_is_not_installed_says_what_to_type(here):
    (here / "q.toml").write_text('version = 1\n[stores.main]\nadapter = "acme-db"\n')
    said = run("check", "q.toml", code=2).stderr
    assert "Install the distribution that provides it" in said
    assert "vectoracl-acme-db" not in said


def test_a_store_that_fails_is_not_measured(here, monkeypatch):
    def fail(*_):
        raise StoreError("The store is away.", sent="no")

    monkeypatch.setattr(MemoryPort, "execute", fail)
    for arguments in (["check"], ["search", "--as", "a@b", "words"], ["explain", "--as", "a@b"]):
        assert run(*arguments, code=2).stderr == "error: The store is away.\n"


def test_an_interrupted_command_says_so(here, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryPort, "execute", stop)
    assert run("search", "--as", "a@b", "words", code=130).stderr == "Interrupted.\n"


def test_a_bug_is_not_hidden(here, monkeypatch):
    def bug(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("vectoracl.cli.search.operator", bug)
    result = CliRunner().invoke(app, ["search", "--as", "a@b", "words"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert result.exit_code == 1


def test_no_command_shows_local_variables():
    assert app.pretty_exceptions_enable is False
    assert app.pretty_exceptions_show_locals is False


def test_stored_text_cannot_steer_the_terminal(here):
    ingested(here, evil="Some words \x1b]0;owned\x07\x1b[2Jand [red]markup[/red] \u202egnirts")
    for extra in ([], ["--full"]):
        shown = run("search", "--as", "ann@acme", "words", *extra).stdout
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        assert "[red]markup[/red]" in " ".join(shown.split())


def test_plain_keeps_text_and_line_ends():
    assert plain("a\tb\r\nc – ä 你") == "a b\nc – ä 你"
    assert one_line("a\n b  c", 10) == "a b c"
    assert one_line("abcdef", 4) == "abc…"


@pytest.mark.parametrize(("error", "code"), [(StoreError("away", sent="no"), 2), (KeyboardInterrupt(), 130)])
def test_an_ingest_that_stops_says_what_was_written(here, monkeypatch, error, code):
    right, met = MemoryPort.execute, []

    def execute(self, request, timeout):
        if type(getattr(request, "operation", None)).__name__ == "Replace":
            met.append(1)
            if len(met) > 1:
                raise error
        return right(self, request, timeout)

    (here / "docs").mkdir()
    for name in "abc":
        (here / "docs" / f"{name}.md").write_text(f"# {name}\n\nSome words.")
    monkeypatch.setattr(MemoryPort, "execute", execute)
    said = " ".join(run("ingest", "--as", "ann@acme", "docs", code=code).stderr.split())
    assert "ingest: 1 of 3 documents were written, but not 'docs/b.md'" in said


def test_search_by_words_and_by_both(here):
    ingested(here, intro="# Intro\n\nHow to build an index.", faq="# Questions\n\nError E4711 in the garden.")
    found = run_json("search", "--as", "reader@acme", "--lexical", "E4711")["hits"]
    assert [hit["document"].rpartition("/")[2] for hit in found] == ["faq.md"]
    both = run_json("search", "--as", "reader@acme", "--hybrid", "E4711")["hits"]
    assert both[0]["document"] == found[0]["document"]
    assert len(both) > len(found)
    assert "not both" in run("search", "--as", "reader@acme", "--hybrid", "--lexical", "x", code=2).stderr


# --- check, adapters, operator's commands


def found(*findings, grade="partition"):
    return {"main": Posture(grade, findings, (("store", "memory"),))}


def checked(monkeypatch, postures):
    monkeypatch.setattr(vectoracl.VectorACL, "check_store", lambda _, name: postures[name])


def finding(severity):
    rule = Rule("MM001", "A title", severity, severity == "error", "Why it matters.")
    return Finding(rule, "a table", "Something is open.", "ALTER TABLE t;")


def test_check_of_a_sound_store(here):
    assert "grade partition" in run("check").stdout
    assert run_json("check")["stores"]["main"]["grade"] == "partition"


@pytest.mark.parametrize(
    ("severity", "fail_on", "code"),
    [
        ("error", "error", 1),
        ("warning", "error", 0),
        ("warning", "warning", 1),
        ("note", "warning", 0),
        ("note", "note", 1),
        ("error", "note", 1),
    ],
)
def test_findings_decide_the_exit_code(here, monkeypatch, severity, fail_on, code):
    checked(monkeypatch, found(finding(severity)))
    shown = run("check", "--fail-on", fail_on, code=code).stdout
    assert "MM001" in shown
    assert "ALTER TABLE t;" in shown
    assert run_json("check", "--fail-on", fail_on, code=code)["findings"] == 1


def test_check_as_sarif(here, monkeypatch):
    (here / "vectoracl.toml").write_text(
        'version = 1\ndefault_store = "main"\n'
        + "".join(f'[stores.{name}]\nadapter = "memory"\ndimension = 3\n' for name in ("main", "other"))
    )
    both = {**found(finding("error")), "other": Posture("partition", ())}
    checked(monkeypatch, both)
    log = json.loads(run("check", "--format", "sarif", code=1).stdout)
    assert log["version"] == "2.1.0"
    assert [len(one["results"]) for one in log["runs"]] == [1, 0]
    run("check", "--store", "other")


def test_check_demands_the_minimum_grade(here):
    path = here / "vectoracl.toml"
    path.write_text('version = 1\nminimum_grade = "engine"\n' + path.read_text().replace("version = 1\n", "", 1))
    assert "VA001" in run("check", code=1).stdout
    assert run_json("check", code=1)["stores"]["main"]["findings"][0]["page"] == "rules.md#va001"
    assert "minimum" in run("check", "--explain", "VA001").stdout


def test_check_as_sql(here, monkeypatch):
    script = (("server", "-- once\n"), ("t", "ALTER TABLE t;\n"))
    open_ = Posture("none", (finding("error"),), (), script)
    checked(monkeypatch, {"main": open_})
    assert run("check", "--format", "sql", code=1).stdout == "-- once\n\nALTER TABLE t;\n"
    checked(monkeypatch, found(finding("error")))
    assert "cannot be changed by SQL" in run("check", "--format", "sql", code=2).stderr
    checked(monkeypatch, found())
    assert run("check", "--format", "sql").stdout == ""


def test_check_takes_the_configuration_as_an_argument_too(here):
    (here / "vectoracl.toml").rename(here / "other.toml")
    run("check", "other.toml")
    run("check", "-c", "other.toml")
    run("check", code=2)


def test_rules_are_explained_by_their_id():
    assert "BYPASSRLS" in run("check", "--explain", "pg002").stdout
    assert run_json("check", "--explain", "PG002")["lowers"] is True
    assert "QD001" in run("check", "--explain", "qd001").stdout
    assert "PG001" in run("check", "--explain", "PG999", code=2).stderr


def test_what_an_adapter_cannot_do_is_refused_in_a_line(here):
    assert "needs no provisioning" in run("provision").stdout
    assert "No tenants yet" in run("tenants", "list").stdout
    assert "only check configured stores" in run("check", "--dsn", "x", "--adapter", "memory", code=2).stderr
    assert "--dsn" in run("check", "--table", "public.t", code=2).stderr
    assert "not both" in run("check", "vectoracl.toml", code=2, env={"VECTORACL_CHECK_DSN": "x"}).stderr


def test_adapters_lists_what_is_installed():
    rows = {one["adapter"]: one for one in run_json("adapters")["adapters"]}
    assert rows["memory"]["grade"] == "partition"
    assert rows["memory"]["version"]
    assert "memory" in run("adapters").stdout


def test_a_broken_adapter_does_not_hide_the_others(monkeypatch):
    real = loading.load

    def load(name, distribution=None):
        if name == "memory":
            raise RuntimeError("boom")
        return real(name, distribution)

    monkeypatch.setattr("vectoracl.cli.adapters.load", load)
    rows = {one["adapter"]: one for one in run_json("adapters", code=1)["adapters"]}
    assert rows["memory"]["error"]


class Operator:
    """An operator that keeps what it was asked to do."""

    def __init__(self):
        self.asked = []

    def plan(self, *, adopt=None):
        self.asked.append(("plan", adopt))
        return "CREATE TABLE [red]t[/red] (...);\n"

    def provision(self, *, adopt=None, progress=None, adopted=None):
        progress("copying", 1, 2)
        self.asked.append(("provision", adopt))
        return ["done"]

    def tenants(self):
        return [vectoracl.adapter_api.contract.TenantInfo("acme", 10, "shared"), *self.more]

    more = ()

    def promote(self, tenant, *, progress=None):
        self.asked.append(("promote", tenant))
        return [f"{tenant} moved"]

    def demote(self, tenant, *, progress=None):
        self.asked.append(("demote", tenant))
        return [f"{tenant} moved"]

    def close(self):
        self.asked.append(("close",))


@pytest.fixture
def operator(here, monkeypatch):
    one = Operator()
    monkeypatch.setattr(vectoracl.VectorACL, "operator", lambda *_: one)
    return one


def test_the_list_of_tenants_shows_its_progress(operator, monkeypatch):
    def tenants(*, progress=None):
        progress("counting tenants", 1, 2)
        return []

    monkeypatch.setattr(operator, "tenants", tenants)
    result = run("tenants", "list")
    assert "counting tenants" in result.stderr
    assert "counting tenants" not in result.stdout


def test_provision_prints_its_plan_and_does_nothing(operator):
    assert run("provision", "--sql").stdout == "CREATE TABLE [red]t[/red] (...);\n"
    assert operator.asked == [("plan", None), ("close",)]


def test_provision(operator):
    assert "done" in run("provision").stdout
    assert operator.asked == [("provision", None), ("close",)]


def test_adoption_is_planned_printed_and_needs_a_yes(operator):
    result = run("provision", "--adopt", "public.docs", code=2)
    assert "CREATE TABLE" in result.stdout
    assert "--yes" in result.stderr
    assert ("provision", "public.docs") not in operator.asked
    assert "done" in run("provision", "--adopt", "public.docs", "--yes").stdout
    assert ("provision", "public.docs") in operator.asked


def test_ctrl_c_at_the_question_is_an_interruption(operator, monkeypatch):
    monkeypatch.setattr("vectoracl.cli.provision.interactive", lambda: True)
    result = run("provision", "--adopt", "public.docs", code=130, input="")
    assert "Interrupted." in result.stderr
    assert ("provision", "public.docs") not in operator.asked


class Adopting(Operator):
    """An operator that adopts three rows of two tenants, or stops at *error* after two."""

    error = None

    def provision(self, *, adopt=None, progress=None, adopted=None):
        super().provision(adopt=adopt, progress=progress)
        adopted.tenants, adopted.copied = 2, 2
        if self.error is not None:
            adopted.refused = 5
            raise self.error
        adopted.copied, adopted.there = 3, 1
        return ["done"]


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (None, 0, {"outcome": "ok", "returned": 3, "there": 1, "tenants": 2, "refused": 0}),
        (vectoracl.RefusedError("no"), 2, {"outcome": "error:refused", "returned": 2, "tenants": 2, "refused": 5}),
        (KeyboardInterrupt(), 130, {"outcome": "cancelled", "returned": 2, "tenants": 2, "refused": 5}),
    ],
)
def test_an_adoption_is_recorded_before_it_is_done_and_what_became_of_it(here, monkeypatch, error, code, outcome):
    (here / "routed.toml").write_text(ROUTED)
    one, seen = Adopting(), []
    one.error = error
    records = here / "audit.jsonl"
    right = Adopting.provision
    monkeypatch.setattr(
        Adopting, "provision", lambda self, **more: seen.append(records.read_text()) or right(self, **more)
    )
    monkeypatch.setattr(vectoracl.VectorACL, "operator", lambda *_: one)
    more = ("--adopt", "public.docs", "--yes", "-c", "routed.toml", "--store", "eu")
    run("provision", *more, code=code)
    (line,) = seen[0].splitlines()
    first = json.loads(line)["decision"]
    assert (first["action"], first["store"], first["partitions"]) == ("hazmat.adopt", "eu", ["*"])
    assert "vectoracl provision --adopt 'public.docs', run by" in first["reasons"][0]
    _, line = records.read_text().splitlines()
    found = json.loads(line)["outcome"]
    assert found["decision"] == first["id"]
    assert {key: found[key] for key in outcome} == outcome
    assert one.asked[-1] == ("close",)


class Uncounted(Operator):
    """An operator of an adapter that was written before figures were asked for."""

    def provision(self, *, adopt=None, progress=None):
        return super().provision(adopt=adopt, progress=progress)


def test_the_record_of_an_adoption_has_no_figures_that_the_adapter_does_not_give(here, monkeypatch):
    (here / "routed.toml").write_text(ROUTED)
    one = Uncounted()
    monkeypatch.setattr(vectoracl.VectorACL, "operator", lambda *_: one)
    run("provision", "--adopt", "public.docs", "--yes", "-c", "routed.toml", "--store", "eu")
    assert ("provision", "public.docs") in one.asked
    decided, ended = map(json.loads, (here / "audit.jsonl").read_text().splitlines())
    assert decided["decision"]["action"] == "hazmat.adopt"
    assert ended["outcome"]["outcome"] == "ok"
    assert ended["outcome"]["returned"] is None
    assert not {"there", "tenants", "refused"} & set(ended["outcome"])


def test_without_a_record_nothing_is_adopted(here, monkeypatch):
    one = Adopting()
    monkeypatch.setattr(vectoracl.VectorACL, "operator", lambda *_: one)

    def full(_self, _record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vectoracl.audit.sinks.MemorySink.write", full)
    run("provision", "--adopt", "public.docs", "--yes", code=2)
    assert [what for what, *_ in one.asked] == ["plan", "close"]


def test_tenants(operator):
    assert "acme" in run("tenants", "list").stdout
    operator.more = [vectoracl.adapter_api.contract.TenantInfo("globex", 90_000, "shared", "promote")]
    assert "vectoracl tenants promote globex" in run("tenants", "list", code=1).stdout
    assert run_json("tenants", "list", code=1)["tenants"][1]["advice"] == "promote"
    operator.more = [
        vectoracl.adapter_api.contract.TenantInfo("globex", 9, "shared", "promote", note="it was broken off")
    ]
    shown = " ".join(run("tenants", "list", code=1).stdout.split())
    assert "vectoracl tenants promote globex" in shown
    assert "broken off" in shown
    assert run_json("tenants", "list", code=1)["tenants"][1]["note"] == "it was broken off"
    assert "globex moved" in run("tenants", "promote", "globex").stdout
    assert run_json("tenants", "demote", "globex") == {"done": ["globex moved"]}
    assert ("promote", "globex") in operator.asked


class Moving(Operator):
    """An operator of a store with tenants that are to be moved; `refuses` and `fails` name those that it does not."""

    refuses = fails = ()
    code = "unavailable"

    def __init__(self):
        super().__init__()
        info = vectoracl.adapter_api.contract.TenantInfo
        self.all = {
            "small": info("small", 20, "own", "demote"),
            "tiny": info("tiny", 10, "own", "demote"),
            "big": info("big", 9_000, "shared", "promote"),
            "huge": info("huge", 90_000, "shared", "promote"),
            "begun": info("begun", 50, "shared", "promote", note="a move was interrupted"),
            "fine": info("fine", 500, "shared"),
        }

    def tenants(self):
        return list(self.all.values())

    def _move(self, name, tenant):
        if tenant in self.refuses:
            raise vectoracl.RefusedError("Another transaction held the table.", field="tenant")
        if tenant in self.fails:
            raise vectoracl.StoreError("The server is gone.", code=self.code, sent="no")
        self.asked.append((name, tenant))
        self.all[tenant] = dataclasses.replace(self.all[tenant], advice="", note="")
        return [f"{tenant} moved"]

    def promote(self, tenant, *, progress=None):
        progress("copying", 1, 2)
        return self._move("promote", tenant)

    def demote(self, tenant, *, progress=None):
        return self._move("demote", tenant)

    @property
    def moves(self):
        return [one for one in self.asked if one != ("close",)]


URGENT = [("promote", "begun"), ("promote", "huge"), ("promote", "big"), ("demote", "tiny"), ("demote", "small")]


@pytest.fixture
def moving(here, monkeypatch):
    one = Moving()
    monkeypatch.setattr(vectoracl.VectorACL, "operator", lambda *_: one)
    return one


def test_rebalance_makes_the_advised_moves_and_is_then_silent(moving):
    said = run("tenants", "rebalance")
    assert [line.split()[1] for line in said.stdout.splitlines()] == [tenant for _, tenant in URGENT]
    assert said.stderr == ""  # cron mails what is printed
    assert moving.moves == URGENT
    again = run("tenants", "rebalance")
    assert (again.stdout, again.stderr) == ("", "")
    assert run_json("tenants", "rebalance") == {"moved": [], "refused": [], "left": 0, "stopped": None}
    assert moving.moves == URGENT


def test_rebalance_can_only_list(moving):
    shown = run("tenants", "rebalance", "--dry-run", code=1).stdout
    assert all(f"tenants {action} {tenant}" in shown for action, tenant in URGENT)
    assert "fine" not in shown
    listed = run_json("tenants", "rebalance", "--dry-run", code=1)["tenants"]
    assert [(one["advice"], one["tenant"]) for one in listed] == URGENT
    assert moving.moves == []


def test_rebalance_is_bounded_and_goes_on_with_the_next_run(moving, monkeypatch):
    assert "3 of 5 advised moves are left" in run("tenants", "rebalance", "--limit", "2", code=1).stdout
    assert moving.moves == URGENT[:2]
    clock = itertools.count(0, 5)
    monkeypatch.setattr("vectoracl.cli.tenants.time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    assert run_json("tenants", "rebalance", "--seconds", "12", code=1)["left"] == 2
    assert moving.moves == URGENT[:3]
    run("tenants", "rebalance", "--seconds", "600")
    assert moving.moves == URGENT


def test_a_refused_move_does_not_stop_the_others(moving):
    moving.refuses = ("huge",)
    said = run("tenants", "rebalance", code=1)
    assert "promote huge: Another transaction held the table." in said.stderr
    assert moving.moves == [one for one in URGENT if one[1] != "huge"]
    found = run_json("tenants", "rebalance", code=1)
    assert [(one["tenant"], one["error"]["code"]) for one in found["refused"]] == [("huge", "refused")]
    assert (found["moved"], found["left"]) == ([], 1)


def test_a_refused_move_does_not_use_up_the_limit(moving):
    moving.refuses, moving.fails, moving.code = ("begun",), ("huge",), "copy_differs"
    run("tenants", "rebalance", "--limit", "2", code=1)
    assert moving.moves == URGENT[2:4]
    found = run_json("tenants", "rebalance", "--limit", "2", code=1)
    assert moving.moves == URGENT[2:]
    assert ([one["tenant"] for one in found["refused"]], found["left"]) == (["begun", "huge"], 2)
    assert [
        one["tenant"] for one in run_json("tenants", "rebalance", "--dry-run", "--limit", "1", code=1)["tenants"]
    ] == ["begun"]


def test_a_store_that_fails_ends_it_and_the_moves_before_are_said(moving):
    moving.fails = ("big", "small")
    said = run("tenants", "rebalance", code=2)
    assert "The server is gone." in said.stderr
    assert moving.moves == URGENT[:2]
    moving.fails = ("small",)
    found = run_json("tenants", "rebalance", code=2)
    assert [one["tenant"] for one in found["moved"]] == ["big", "tiny"]
    assert (found["left"], found["error"]["code"]) == (1, "unavailable")


def test_the_list_is_closed_before_the_first_move(moving):
    """The owner's role may have one connection."""
    run("tenants", "rebalance", "--limit", "1", code=1)
    assert moving.asked.index(("close",)) < moving.asked.index(URGENT[0])


def test_each_move_of_a_rebalance_is_recorded(moving, here):
    (here / "vectoracl.toml").write_text(
        (here / "vectoracl.toml").read_text() + '[audit]\nsink = "jsonl"\npath = "audit.jsonl"\n'
    )
    run("tenants", "rebalance")
    lines = [json.loads(line) for line in (here / "audit.jsonl").read_text().splitlines()]
    decided = [one["decision"] for one in lines if "decision" in one and "tenants." in one["decision"]["action"]]
    assert [(one["action"], one["partitions"]) for one in decided] == [
        (f"hazmat.tenants.{action}", [tenant]) for action, tenant in URGENT
    ]
    assert all("tenants rebalance" in str(one) for one in decided)


class Keeper(Operator):
    """An operator of a store that keeps a part for each tenant."""

    def _note(self, name, tenant):
        self.asked.append((name, tenant))
        return [f"{tenant}: {name}"]

    def create(self, tenant):
        return self._note("create", tenant)

    def activate(self, tenant):
        return self._note("activate", tenant)

    def deactivate(self, tenant):
        return self._note("deactivate", tenant)

    def offload(self, tenant):
        return self._note("offload", tenant)

    def remove(self, tenant):
        return self._note("remove", tenant)


def test_a_tenants_life(operator, monkeypatch):
    keeper = Keeper()
    monkeypatch.setattr(vectoracl.VectorACL, "operator", lambda *_: keeper)
    for name in ("create", "deactivate", "offload", "activate"):
        assert f"acme: {name}" in run("tenants", name, "acme").stdout
    assert "--yes" in run("tenants", "remove", "acme", code=2).stderr
    assert ("remove", "acme") not in keeper.asked
    found = run_json("tenants", "remove", "acme", "--yes")
    assert (found.pop("stays") != "", found) == (True, {"done": ["acme: remove"]})
    assert keeper.asked.count(("close",)) == 7


ROUTED = """
version = 1
default_store = "main"
[stores.main]
adapter = "memory"
dimension = 2
[stores.eu]
adapter = "memory"
dimension = 2
[tenants.store]
acme = "eu"
[audit]
sink = "jsonl"
path = "audit.jsonl"
"""


@pytest.mark.parametrize("name", ["promote", "demote", "create", "deactivate", "offload", "activate", "remove"])
def test_what_is_done_to_a_tenant_is_done_where_it_lives_and_recorded_before(here, monkeypatch, name):
    (here / "routed.toml").write_text(ROUTED)
    keeper, stores, seen = Keeper(), [], []
    monkeypatch.setattr(vectoracl.VectorACL, "operator", lambda _self, store=None: stores.append(store) or keeper)
    records = here / "audit.jsonl"
    right = getattr(Keeper, name)

    def act(self, tenant, **more):
        seen.append(records.read_text())
        return right(self, tenant, **more)

    monkeypatch.setattr(Keeper, name, act)
    more = ["--yes"] if name == "remove" else []
    run("tenants", name, "acme", "-c", "routed.toml", *more)
    run("tenants", name, "acme", "-c", "routed.toml", "--store", "main", *more)
    assert list(dict.fromkeys(stores)) == ["eu", "main"]
    first = json.loads(seen[0].splitlines()[0])["decision"]
    assert (first["action"], first["store"], first["partitions"]) == (f"hazmat.tenants.{name}", "eu", ["acme"])
    assert f"vectoracl tenants {name}, run by" in first["reasons"][0]
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert [line["outcome"]["outcome"] for line in lines if "outcome" in line] == ["ok", "ok"]
    assert keeper.asked[-1] == ("close",)


def test_without_a_record_no_tenant_is_removed(here, monkeypatch):
    keeper = Keeper()
    monkeypatch.setattr(vectoracl.VectorACL, "operator", lambda *_: keeper)

    def full(_self, _record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vectoracl.audit.sinks.MemorySink.write", full)
    run("tenants", "remove", "acme", "--yes", code=2)
    assert set(keeper.asked) == {("close",)}


def test_a_store_without_parts_for_tenants_says_what_to_do(operator):
    for name in ("create", "deactivate", "offload", "activate"):
        assert "has no separate part per tenant" in run("tenants", name, "acme", code=2).stderr.replace("\n", " ")
    assert "use a handle of the tenant" in run("tenants", "remove", "acme", "--yes", code=2).stderr.replace("\n", " ")


def test_a_tenant_that_is_not_served_has_no_count(operator):
    operator.more = [vectoracl.adapter_api.contract.TenantInfo("globex", 0, "own", state="inactive")]
    assert "–" in run("tenants", "list").stdout
    row = run_json("tenants", "list")["tenants"][1]
    assert (row["rows"], row["state"]) == (None, "inactive")


# --- help


def commands(group=None, path=()):
    from typer.main import get_command

    group = group or get_command(app)
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*path, name))
        else:
            yield (*path, name)


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_every_command_has_help_and_json(path):
    text = run(*path, "--help", env={"COLUMNS": "80", "TERM": "dumb"}).stdout
    assert "--json" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_the_whole_teaches():
    text = run("--help").stdout
    for word in ("demo", "init", "ingest", "search", "explain", "check", "provision", "tenants", "adapters"):
        assert word in text
    assert run("--version").stdout.startswith("vectoracl 0.")
