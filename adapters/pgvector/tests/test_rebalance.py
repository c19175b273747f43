"""`vectoracl tenants rebalance` makes the moves that the list advises, in both directions, with the real moves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl._util import toml
from vectoracl.adapter_api.contract import TenantInfo
from vectoracl.cli import tenants as commands
from vectoracl.cli.app import app

from pgvector_support.moving import another_move, leftovers, owner_of

pytestmark = pytest.mark.server


def test_the_advised_moves_are_made(provisioned: Any, tmp_path: Path) -> None:
    store = provisioned()
    main = {**store.config["stores"]["main"], "promote_rows": 4}
    sizes = {"large": 9, "larger": 12, "small": 3, "shrunk": 6}
    with v.connect({"version": 1, "stores": {"main": main}}) as acl:
        for name, size in sizes.items():
            acl.scoped(testing.principal("ann", name)).upsert(
                [Chunk(f"c{one}", "d", "text", [1.0] * 8) for one in range(size)]
            )
        acl.operator().promote("shrunk")
        acl.scoped(testing.principal("ann", "shrunk")).delete(ids=[f"c{one}" for one in range(5)])
    config = tmp_path / "vectoracl.toml"
    config.write_text(f"version = 1\n[stores.main]\n{toml.lines(main)}\n")

    def run(*more: str) -> Any:
        return CliRunner().invoke(app, ["tenants", "rebalance", "-c", str(config), *more])

    planned = run("--dry-run", "--json")
    moves = [("larger", "promote"), ("large", "promote"), ("shrunk", "demote")]
    assert planned.exit_code == 1, planned.output
    assert [(one["tenant"], one["advice"]) for one in json.loads(planned.stdout)["tenants"]] == moves
    made = run()
    assert made.exit_code == 0, made.output
    assert len(made.stdout.splitlines()) == len(moves)
    with v.connect(config) as acl:
        tiers = {one.tenant: (one.tier, one.rows) for one in acl.operator().tenants()}
        for name in sizes:
            assert acl.scoped(testing.principal("ann", name)).count() == tiers[name][1]
    assert tiers == {"large": ("own", 9), "larger": ("own", 12), "small": ("shared", 3), "shrunk": ("shared", 1)}
    again = run()
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")


Run = Callable[..., Any]


@pytest.fixture
def many(provisioned: Any, tmp_path: Path) -> tuple[Any, Path, Run]:
    """A store with seven tenants past the threshold and one below it, its configuration, and the command."""
    store = provisioned()
    main = {**store.config["stores"]["main"], "promote_rows": 4}
    with v.connect({"version": 1, "stores": {"main": main}}) as acl:
        for number in range(7):
            acl.scoped(testing.principal("ann", f"t{number}")).upsert(
                [Chunk(f"c{one}", "d", "text", [1.0] * 8) for one in range(5 + number)]
            )
        acl.scoped(testing.principal("ann", "small")).upsert([Chunk("c", "d", "text", [1.0] * 8)])
    config = tmp_path / "vectoracl.toml"
    config.write_text(f"version = 1\n[stores.main]\n{toml.lines(main)}\n")
    return store, config, lambda *more: CliRunner().invoke(app, ["tenants", "rebalance", "-c", str(config), *more])


def check_whole(config: Path, own: set[str]) -> None:
    with v.connect(config) as acl:
        listed = acl.operator().tenants()
        assert {one.tenant for one in listed if one.tier == "own"} == own
        assert not [one for one in listed if one.note]
        for number in range(7):
            assert acl.scoped(testing.principal("ann", f"t{number}")).count() == 5 + number
        assert acl.scoped(testing.principal("ann", "small")).count() == 1


ALL = {f"t{number}" for number in range(7)}


def test_small_tenants_move_together(many: tuple[Any, Path, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    store, config, run = many
    monkeypatch.setattr(commands, "_ROWS_TOGETHER", 30)
    made = run("--json", "--limit", "5")
    assert made.exit_code == 1, made.output
    found = json.loads(made.stdout)
    assert [one["tenant"] for one in found["moved"]] == ["t6", "t5", "t4", "t3", "t2"]
    assert all(len(one["done"]) == 1 and one["tenant"] in one["done"][0] for one in found["moved"])
    assert (found["refused"], found["left"], found["stopped"]) == ([], 2, None)
    check_whole(config, {"t6", "t5", "t4", "t3", "t2"})
    assert run().exit_code == 0
    check_whole(config, ALL)
    with owner_of(store) as owner:
        assert not leftovers(owner)


def test_one_that_cannot_be_moved_keeps_no_other_back(many: tuple[Any, Path, Run]) -> None:
    store, config, run = many
    with owner_of(store) as owner:
        owner.execute('CREATE TABLE "vectoracl"."chunks_t_t3" (a int)')
        made = run("--json")
        owner.execute('DROP TABLE "vectoracl"."chunks_t_t3"')
    found = json.loads(made.stdout)
    assert made.exit_code == 1
    assert [one["tenant"] for one in found["refused"]] == ["t3"]
    assert {one["tenant"] for one in found["moved"]} == ALL - {"t3"}
    check_whole(config, ALL - {"t3"})


def test_it_ends_where_another_move_is_in_progress(many: tuple[Any, Path, Run]) -> None:
    store, config, run = many
    with another_move(store):
        made = run()
        assert made.exit_code == 1
        assert made.stderr.splitlines() == [
            "Another move is in progress on this table; try again when it has ended."
        ], made.stderr
        assert made.stdout.splitlines() == ["7 of 7 advised moves are left."]
        found = json.loads(run("--json").stdout)
        assert (found["moved"], found["refused"], found["left"]) == ([], [], 7)
        assert "Another move" in found["stopped"]
    check_whole(config, set())


# The command itself, which says when it comes to a statement and then waits there to be killed.
CHILD = """
import sys, time
from vectoracl_pgvector.tiers.base import Mover
until, turns = sys.argv.pop(1), int(sys.argv.pop(1))
run = Mover._run

def step(self, sql, params=()):
    global turns
    if until in sql:
        turns -= 1
        if turns == 0:
            print("here", flush=True)
            time.sleep(600)
    return run(self, sql, params)

Mover._run = step
from vectoracl.cli import main
main()
"""


@pytest.mark.parametrize(("point", "turn"), [("WITH batch", 3), ("VALIDATE CONSTRAINT", 1), ("ATTACH PARTITION", 4)])
def test_a_killed_one_is_completed_by_the_next(many: tuple[Any, Path, Run], point: str, turn: int) -> None:
    store, config, run = many
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, point, str(turn), "tenants", "rebalance", "-c", str(config)],
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        if child.stdout is not None:
            child.stdout.close()
    with owner_of(store) as owner:
        while owner.execute(
            "SELECT true FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE "
            "datname = current_database()) AND pid <> pg_backend_pid()"
        ).fetchone():
            pass
        made = run("--json")
        assert made.exit_code == 0, made.output
        assert {one["tenant"] for one in json.loads(made.stdout)["moved"]} == ALL
        assert not leftovers(owner)
    check_whole(config, ALL)


def test_the_advice_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(commands.time, "monotonic", lambda: now[0])
    advice = {"big": 900, "shrinks": 800, "small": 10, "other": 10}
    plan = commands._Plan(lambda: [TenantInfo(name, rows, "shared", "promote") for name, rows in advice.items()], 3)
    monkeypatch.setattr(commands, "_ROWS_TOGETHER", 100)
    assert [one.tenant for one in plan.next(limit=None)] == ["big"]
    del advice["shrinks"], advice["big"]
    now[0] = 30.0
    assert plan.total == 4
    assert [one.tenant for one in plan.next(limit=0)] == []
    now[0] = 60.0
    assert [one.tenant for one in plan.next(limit=1)] == ["small"]
    assert [one.tenant for one in plan.next(limit=None)] == ["other"]
    assert plan.next(limit=None) == []
    assert plan.total == 3
