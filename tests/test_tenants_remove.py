"""`vectoracl tenants remove` over the memory store: what it deletes, asks, says, records and refuses."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import vectoracl
from vectoracl import Chunk, Principal, RefusedError, hazmat
from vectoracl.audit import MemorySink
from vectoracl.cli import app
from vectoracl.cli import store as commands
from vectoracl.memory.operator import MemoryOperator

CONFIG = """
version = 1
[stores.main]
adapter = "memory"
dimension = 2
name = "{name}"
[audit]
sink = "jsonl"
path = "audit.jsonl"
"""


@pytest.fixture
def acl(tmp_path, monkeypatch):
    """A store in memory with two tenants, whose configuration is in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    (tmp_path / "vectoracl.toml").write_text(CONFIG.format(name=tmp_path))
    with vectoracl.connect("vectoracl.toml", sink=MemorySink()) as acl:
        for tenant in ("acme", "globex"):
            handle(acl, tenant).upsert([Chunk(f"{n}", "d", "text", [1, n]) for n in range(3)])
        yield acl


def handle(acl, tenant):
    return acl.scoped(Principal("w", tenant, authenticated_by="test"))


def run(*arguments, code=0, **given):
    result = CliRunner().invoke(app, ["tenants", *arguments], **given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def records(tmp_path):
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


def names(acl):
    return [one.tenant for one in acl.operator().tenants()]


def test_it_deletes_the_tenant_and_its_name_and_no_other(acl):
    said = run("remove", "acme", "--yes").stdout
    assert "removed the tenant acme with 3 chunks" in said
    assert "audit records" in said
    assert names(acl) == ["globex"]
    assert handle(acl, "acme").count() == 0
    assert handle(acl, "globex").count() == 3


def test_it_is_recorded_before_it_is_done(acl, tmp_path):
    run("remove", "acme", "--yes")
    first, second = records(tmp_path)[:2]
    decision, outcome = first["decision"], second["outcome"]
    assert (decision["action"], decision["partitions"]) == ("hazmat.tenants.remove", ["acme"])
    assert (outcome["decision"], outcome["outcome"]) == (decision["id"], "ok")


def test_an_unknown_tenant_is_refused(acl):
    assert "holds nothing of the tenant nemo" in run("remove", "nemo", "--yes", code=2).stderr
    run("remove", "acme", "--yes")
    assert "holds nothing" in run("remove", "acme", "--yes", code=2).stderr
    assert run("remove", "a\nb", "--yes", code=2).stderr.startswith("error")
    assert names(acl) == ["globex"]


def test_without_consent_nothing_is_done(acl, monkeypatch):
    assert "--yes" in run("remove", "acme", code=2).stderr
    monkeypatch.setattr(commands, "interactive", lambda: True)
    assert "Nothing was done" in run("remove", "acme", code=2, input="n\n").stderr
    assert names(acl) == ["acme", "globex"]
    assert "acme" in run("remove", "acme", input="y\n").output
    assert names(acl) == ["globex"]


def test_json_has_what_was_done_and_what_stays(acl):
    found = json.loads(run("remove", "acme", "--yes", "--json").stdout)
    assert found["done"] == ["removed the tenant acme with 3 chunks"]
    assert "backups" in found["stays"]


def test_an_emptied_tenant_is_listed_until_it_is_removed(acl):
    handle(acl, "acme").delete(document="d")
    assert names(acl) == ["acme", "globex"]
    run("remove", "acme", "--yes")
    assert names(acl) == ["globex"]


def test_ctrl_c_is_told_and_the_command_can_be_run_again(acl, monkeypatch):
    real = MemoryOperator.remove

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(MemoryOperator, "remove", stop)
    assert "Interrupted" in run("remove", "acme", "--yes", code=130).stderr
    monkeypatch.setattr(MemoryOperator, "remove", real)
    run("remove", "acme", "--yes")
    assert names(acl) == ["globex"]


def test_what_has_no_life_is_refused(acl):
    assert "tenants remove" in run("deactivate", "acme", code=2).stderr
    operator = acl.operator()
    for act in (operator.promote, operator.demote):
        with pytest.raises(RefusedError):
            act("acme")
    with pytest.raises(RefusedError):
        operator.plan(adopt="other")


def test_it_can_be_done_from_python(acl):
    lines = hazmat.on_tenant(
        acl, lambda one: one.remove("acme"), action="remove", tenant="acme", reason="the contract has ended"
    )
    assert lines == ["removed the tenant acme with 3 chunks"]
    assert names(acl) == ["globex"]
