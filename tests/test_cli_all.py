"""`--all`: one command over every configured store, of which some cannot be reached."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import vectoracl
from vectoracl import RefusedError, ScopeViolationError, StoreError
from vectoracl.adapter_api.contract import TenantInfo
from vectoracl.adapter_api.posture import Finding, Posture, Rule
from vectoracl.cli import app

NAMES = ("eu", "main", "us")
CONFIG = 'version = 1\ndefault_store = "main"\n[tenants.store]\nacme = "eu"\n' + "".join(
    f'[stores.{name}]\nadapter = "memory"\ndimension = 3\n' for name in NAMES
)
AWAY = StoreError("The store is away.", code="unreachable", sent="no")
RULE = Rule("MM001", "A title", "warning", False, "Why it matters.")
OPEN = Posture("partition", (Finding(RULE, "a table", "Something is open.", "Close it."),))
SOUND = Posture("partition", ())
CALLS = [["provision"], ["provision", "--sql"], ["check"], ["tenants", "list"]]
ERRORS = [(AWAY, 2), (RefusedError("It has no operator."), 2), (ScopeViolationError("A foreign row."), 1)]


class Operator:
    """An operator of a store that works, fails, or advises a move."""

    def __init__(self, name, calls, result):
        self._name, self._calls, self._result = name, calls, result

    def _of(self, answer):
        self._calls.append(self._name)
        if isinstance(self._result, BaseException):
            raise self._result
        return answer

    def plan(self, *, adopt=None):
        assert adopt is None
        return self._of(f"CREATE {self._name};\n")

    def provision(self, *, progress=None):
        return self._of([f"made {self._name}"])

    def tenants(self):
        advice = "promote" if self._result == "findings" else ""
        return self._of([TenantInfo(one, 1, "shared", advice) for one in ("acme", "globex")])

    def close(self):
        self._calls.append(f"{self._name} closed")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Return a function that sets what each store does, and the list of the stores that were asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectoracl.toml").write_text(CONFIG)
    results, calls = {}, []

    def operator(self, name=None, **_):
        return Operator(name, calls, results.get(name))

    def check_store(self, name):
        calls.append(name)
        result = results.get(name)
        if isinstance(result, BaseException):
            raise result
        return OPEN if result == "findings" else SOUND

    monkeypatch.setattr(vectoracl.VectorACL, "operator", operator)
    monkeypatch.setattr(vectoracl.VectorACL, "check_store", check_store)
    return results, calls


def run(*arguments):
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100", "TERM": "dumb"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_store_is_asked_once_and_named(world, call):
    _, calls = world
    result = run(*call, "--all")
    assert result.exit_code == 0, result.output
    assert [one for one in calls if not one.endswith("closed")] == list(NAMES)
    assert all(name in result.stdout for name in NAMES)
    data = json.loads(run(*call, "--all", "--json").stdout)
    assert list(data["stores"]) == list(NAMES)
    assert "error" not in data


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
@pytest.mark.parametrize("broken", NAMES)
@pytest.mark.parametrize(("error", "code"), ERRORS, ids=lambda one: type(one).__name__)
def test_a_store_that_fails_hides_no_other(world, call, broken, error, code):
    results, calls = world
    results[broken] = error
    result = run(*call, "--all")
    assert result.exit_code == code
    assert [one for one in calls if not one.endswith("closed")] == list(NAMES)
    assert f"error: store {broken}: {error}" in result.stderr
    assert result.stderr.count("error:") == 1
    assert all(name in result.stdout for name in NAMES if name != broken)
    as_json = run(*call, "--all", "--json")
    assert as_json.exit_code == code
    assert as_json.stderr == ""
    data = json.loads(as_json.stdout)
    assert list(data["stores"]) == list(NAMES)
    assert {name for name, one in data["stores"].items() if "error" in one} == {broken}
    assert data["stores"][broken]["error"]["message"] == str(error)
    assert data["error"]["store"] == broken


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_every_operator_is_closed(world, call):
    results, calls = world
    results["main"] = AWAY
    run(*call, "--all")
    closed = [one.removesuffix(" closed") for one in calls if one.endswith("closed")]
    assert closed == ([] if call == ["check"] else list(NAMES))


@pytest.mark.parametrize("call", [["check"], ["tenants", "list"]], ids=" ".join)
@pytest.mark.parametrize(
    ("states", "code"),
    [
        ({"eu": "findings"}, 1),
        ({"us": "findings"}, 1),
        ({"eu": "findings", "us": AWAY}, 2),
        ({"eu": AWAY, "us": "findings"}, 2),
        ({"eu": AWAY, "main": AWAY, "us": AWAY}, 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst(world, call, states, code):
    results, _ = world
    results.update(states)
    assert run(*call, "--all").exit_code == code
    assert run(*call, "--all", "--json").exit_code == code


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_all_and_a_named_store_are_refused_together(world, call):
    _, calls = world
    for store in ("main", "nowhere"):
        result = run(*call, "--all", "--store", store)
        assert result.exit_code == 2
        assert "not both" in result.stderr
    assert calls == []


def test_adoption_is_into_one_store(world):
    _, calls = world
    result = run("provision", "--all", "--adopt", "public.documents", "--yes")
    assert result.exit_code == 2
    assert "--adopt imports into one store" in result.stderr
    assert calls == []


def test_check_without_a_store_is_check_of_all(world):
    results, calls = world
    results["eu"] = AWAY
    assert run("check").stdout == run("check", "--all").stdout
    assert run("check", "--store", "main").exit_code == 0
    assert calls == [*NAMES, *NAMES, "main"]
    assert run("check", "--dsn", "postgresql://x", "--all").exit_code == 2


def test_sarif_has_a_run_of_a_store_that_failed(world):
    results, _ = world
    results.update(eu=AWAY, us="findings")
    log = json.loads(run("check", "--all", "--format", "sarif").stdout)
    done = [one["invocations"][0]["executionSuccessful"] for one in log["runs"]]
    assert done == [False, True, True]
    text = log["runs"][0]["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    assert text == "The store eu could not be checked: The store is away."
    assert [len(one["results"]) for one in log["runs"]] == [0, 0, 1]


def test_an_advised_command_acts_in_the_store_where_the_tenant_is(world):
    results, _ = world
    results.update(us="findings", eu="findings")
    lines = [
        line.split("vectoracl ")[1]
        for line in run("tenants", "list", "--all").stdout.splitlines()
        if "vectoracl " in line
    ]
    assert [line.strip() for line in lines] == [
        "tenants promote acme",  # the configuration routes it to eu
        "tenants promote globex --store eu",
        "tenants promote acme --store us",
        "tenants promote globex --store us",
    ]


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
@pytest.mark.parametrize("as_json", [False, True])
def test_an_interruption_names_the_stores_that_are_finished(world, call, as_json):
    results, calls = world
    results["main"] = KeyboardInterrupt()
    result = run(*call, "--all", *["--json"] * as_json)
    assert result.exit_code == 130
    assert "us" not in calls
    assert "Stores that were finished before: eu." in result.stderr


def test_a_configuration_that_is_wrong_is_one_error(world, tmp_path):
    (tmp_path / "vectoracl.toml").write_text("version = 1\n")
    for call in CALLS:
        data = json.loads(run(*call, "--all", "--json").stdout)
        assert set(data) == {"error"}


def test_over_real_stores_an_adapter_that_is_missing_hides_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vectoracl.toml").write_text(CONFIG + '[stores.gone]\nadapter = "nowhere"\n')
    for call in CALLS:
        data = json.loads(run(*call, "--all", "--json").stdout)
        assert [name for name, one in data["stores"].items() if "error" in one] == ["gone"], call
