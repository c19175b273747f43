"""`vectoracl tenants remove` over the memory store: what it deletes, asks, says, records and refuses."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import vectoracl
from vectoracl import Chunk, InvalidTenantError, Principal, RefusedError, hazmat
from vectoracl.audit.sinks import MemorySink
from vectoracl.cli import app
from vectoracl.cli import tenants as commands
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


# --- ids that a former version took


FORMER = ("acme\u3164", "a*b", "100%", "x" * 300)


@pytest.fixture
def former(acl, monkeypatch):
    """Tenants whose ids were allowed once; they are written as a former version would have."""
    with monkeypatch.context() as patch:
        patch.setattr("vectoracl.model.identifiers._strict_problem", lambda *_: None)
        for tenant in FORMER:
            handle(acl, tenant).upsert([Chunk("c", "d", "text", [1, 1])])
    return acl


def test_a_tenant_whose_id_is_refused_now_is_listed_and_removed_by_what_is_shown(former):
    rows = {one["tenant"]: one["shown"] for one in json.loads(run("list", "--json").stdout)["tenants"]}
    assert set(rows) == {"acme", "globex", *FORMER}
    assert (rows["acme"], rows["acme\u3164"], rows["a*b"]) == ("acme", "acme%E3%85%A4", "a%2Ab")
    assert len(set(rows.values())) == len(rows)
    shown = run("list", env={"COLUMNS": "900"}).stdout
    assert all(one in shown for one in rows.values())
    for tenant in FORMER:
        assert "removed the tenant" in run("remove", rows[tenant], "--yes").stdout
        assert tenant not in names(former)
    assert names(former) == ["acme", "globex"]
    assert handle(former, "acme").count() == 3


def test_it_is_removed_by_its_exact_id_too_and_nothing_else_is_done_to_it(former):
    for tenant in ("acme\u3164", "100%"):
        for action in ("promote", "demote"):
            assert "tenant id" in run(action, tenant, code=2).stderr
        with pytest.raises(InvalidTenantError):
            handle(former, tenant)
        run("remove", tenant, "--yes")
        assert tenant not in names(former)
        assert "tenant id" in run("remove", tenant, "--yes", code=2).stderr  # it is there no more


def test_a_name_that_can_mean_two_tenants_removes_neither(former, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("vectoracl.model.identifiers._strict_problem", lambda *_: None)
        handle(former, "a%2Ab").upsert([Chunk("c", "d", "text", [1, 1])])
    before = names(former)
    assert "a%252Ab" in run("remove", "a%2Ab", "--yes", code=2).stderr
    assert names(former) == before
    run("remove", "a%252Ab", "--yes")
    run("remove", "a%2Ab", "--yes")
    assert names(former) == [one for one in before if one not in ("a*b", "a%2Ab")]


def test_the_operator_removes_it_and_records_it(former):
    operator = former.operator(reason="a former tenant goes")
    with pytest.raises(InvalidTenantError):
        operator.remove("b*c")
    operator.remove("a*b")
    assert former.sink.records[-1]["partitions"] == ["a*b"]
    assert "a*b" not in names(former)
