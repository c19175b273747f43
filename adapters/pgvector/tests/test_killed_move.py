"""`vectoracl tenants promote` and `demote` whose process is killed: `check` says it, a command ends it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

import vectoracl as v
from vectoracl.cli import app
from vectoracl_pgvector.tiers import move

from pgvector_support.moving import ACME, BETA, Crowd, History, chunks, everything, fill, leftovers, owner_of

pytestmark = pytest.mark.server

# The command itself, which says when it comes to a statement and then waits there to be killed.
_CHILD = """
import sys, time
from vectoracl_pgvector.tiers import promotion
from vectoracl_pgvector.tiers.base import Mover
until, turns = sys.argv.pop(1), int(sys.argv.pop(1))
run, promotion._BATCH = Mover._run, 40

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
# (direction, the statement before which it dies and which time it comes to it, whether a copy is left, whether it keeps
# its tenant from writing, the command that comes then)
POINTS = [
    ("promote", "CREATE TRIGGER", 1, False, False, "promote"),
    ("promote", "WITH batch", 1, True, False, "demote"),
    ("promote", "WITH batch", 3, True, False, "promote"),
    ("promote", "CREATE INDEX CONCURRENTLY", 1, True, False, "demote"),
    ("promote", "FULL JOIN", 1, True, False, "promote"),
    ("promote", "DELETE FROM ONLY", 1, True, True, "demote"),
    ("promote", "VALIDATE CONSTRAINT", 1, True, True, "promote"),
    ("promote", "ATTACH PARTITION", 1, True, True, "promote"),
    ("promote", "ANALYZE", 1, False, False, "demote"),
    ("demote", "DETACH PARTITION", 1, False, False, "demote"),
    ("demote", "INSERT INTO", 1, False, False, "promote"),
    ("demote", 'DROP TABLE "vectoracl"."chunks_t', 1, False, False, "demote"),
]


def command(*arguments: str, code: int) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def said_by_check(path: Path) -> list[Any]:
    result = CliRunner().invoke(app, ["check", str(path), "--json"])
    (store,) = json.loads(result.stdout)["stores"].values()
    return [one for one in store["findings"] if one["rule"] == "PG120"]


@pytest.mark.parametrize(("direction", "point", "turn", "left", "blocks", "then"), POINTS)
def test_a_killed_command_is_named_and_ended_by_the_next(
    store: Any, tmp_path: Path, direction: str, point: str, turn: int, *, left: bool, blocks: bool, then: str
) -> None:
    path = tmp_path / "vectoracl.toml"
    main = store.config["stores"]["main"]
    fields = "".join(f"{key} = {value!r}\n" for key, value in main["metadata"].items())
    path.write_text(
        f"version = 1\n[stores.main]\nadapter = 'pgvector'\ndimension = 8\ndsn = {json.dumps(main['dsn'])}\n"
        f"owner_dsn = {json.dumps(main['owner_dsn'])}\n[stores.main.metadata]\n{fields}"
    )
    with v.connect(store.config) as acl, owner_of(store) as owner:
        fill(acl, ACME)
        acl.scoped(ACME).upsert(
            chunks("kept", 150)
        )  # which the writer leaves alone: several batches whatever it deletes
        fill(acl, BETA, 1, 20)
        others = everything(acl, BETA)
        if direction == "demote":
            move.promote(owner, store.pg, "acme")
        history, crowd = History(acl, ACME, 3), Crowd()

        def read() -> None:
            first = history.finished
            history.check(everything(acl, ACME), first, len(history.states) - 1)

        def write() -> None:
            history.write()
            time.sleep(0.01)

        def others_too() -> None:
            assert everything(acl, BETA) == others
            time.sleep(0.02)

        for work in (read, write, others_too):
            crowd.add(work.__name__, work)
        with crowd:
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, point, str(turn), "tenants", direction, "acme", "-c", str(path)],
                stdout=subprocess.PIPE,
            )
            try:
                assert child.stdout is not None
                assert child.stdout.readline() == b"here\n"
                if not (blocks or direction == "demote"):  # else it holds locks, or its last moment is over soon
                    assert said_by_check(path) == [], "a mover that is alive is no finding"
                    if left:
                        (one,) = [row for row in command("tenants", "list", "-c", str(path), code=0)["tenants"]
                                  if row["note"]]  # fmt: skip
                        assert (one["tenant"], one["advice"]) == ("acme", "")
            finally:
                child.send_signal(signal.SIGKILL)
                child.wait(30)
                if child.stdout is not None:
                    child.stdout.close()
            _ended(owner)
            refused, until = history.refused, time.monotonic() + (30 if blocks else 0.3)
            while history.refused == refused and time.monotonic() < until:
                time.sleep(0.02)
            assert (history.refused > refused) == blocks
            found = said_by_check(path)
            assert len(found) == left
            if left:
                assert "vectoracl tenants list" in found[0]["fix"]
                assert ("cannot write" in found[0]["message"]) == blocks
                listed = command("tenants", "list", "-c", str(path), code=1)["tenants"]
                assert [(row["tenant"], row["advice"]) for row in listed if row["note"]] == [("acme", "promote")]
                refused = history.refused + 1  # one may be under way
                time.sleep(0.2)
                assert history.refused <= refused, "the list lets the tenant write again"
            command("tenants", then, "acme", "-c", str(path), code=0)
            assert set(move.own_partitions(owner, store.pg)) == ({"acme"} if then == "promote" else set())
            time.sleep(0.1)
        assert not said_by_check(path)
        assert everything(acl, ACME) == history.states[-1]
        assert everything(acl, BETA) == others
        assert not leftovers(owner)
        assert min(crowd.rounds.values()) >= 5


def _ended(owner: psycopg.Connection[Any]) -> None:
    """Wait until the server has noticed that the mover is gone: its lock goes with its session."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        held = owner.execute(
            "SELECT true FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid() AND "
            "(classid::int8 << 32 | objid::int8) = hashtextextended('vectoracl-move:vectoracl:vectoracl.chunks', 0)"
        ).fetchone()
        if held is None:
            return
        time.sleep(0.02)
    raise AssertionError("the session of the killed process does not end")
