"""Several tenants move together while all of them read and write; a kill at any statement leaves nothing half done."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import RefusedError, StoreError
from vectoracl_pgvector.tiers import move, promotion

from pgvector_support.moving import (
    ACME,
    BETA,
    Crowd,
    History,
    Rows,
    another_move,
    chunks,
    everything,
    fill,
    leftovers,
    owner_of,
)

pytestmark = pytest.mark.server
CARL = testing.principal("carl", "a'; b\"\\ ü")
TOGETHER = [ACME.tenant, BETA.tenant, CARL.tenant]
DORA = testing.principal("dora", "delta")


@pytest.fixture
def owner(store: Any) -> Iterator[psycopg.Connection[Any]]:
    with owner_of(store) as connection:
        yield connection


@pytest.fixture
def acl(store: Any) -> Iterator[v.VectorACL]:
    with v.connect(store.config) as opened:
        yield opened


def test_reads_and_writes_go_on(store: Any, acl: v.VectorACL, owner: psycopg.Connection[Any]) -> None:
    for who in (ACME, BETA, CARL, DORA):
        fill(acl, who, 3, 30)
    others = everything(acl, DORA)
    histories = [History(acl, ACME, 1), History(acl, BETA, 2)]
    still = everything(acl, CARL)
    crowd, quiet = Crowd(), threading.Event()

    def reads(history: History, who: v.Principal) -> None:
        first = history.finished
        history.check(everything(acl, who), first, len(history.states) - 1)

    def snapshot(history: History, who: v.Principal) -> None:
        """The snapshot is taken, then time passes, then the table is touched for the first time."""
        if quiet.is_set():  # one from just before a demotion may find the tenant empty (move.demote says so)
            time.sleep(0.01)
            return
        with psycopg.connect(store.runtime, prepare_threshold=None) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            first = history.finished
            connection.execute("SELECT pg_current_snapshot()")
            last = len(history.states) - 1
            time.sleep(0.3)
            connection.execute("SELECT set_config('vectoracl.tenant', %s, true)", (who.tenant,))
            rows = connection.execute("SELECT document, chunk_id, content FROM vectoracl.chunks").fetchall()
            assert len(rows) == len(set(rows)), "a row was seen twice"
            history.check(frozenset(rows), first, last)

    def writes(history: History) -> None:
        history.write()
        time.sleep(0.01)

    def unmoved() -> None:
        assert everything(acl, DORA) == others
        assert everything(acl, CARL) == still
        time.sleep(0.02)

    for number, (history, who) in enumerate(zip(histories, (ACME, BETA), strict=True)):
        crowd.add(f"read {number}", lambda history=history, who=who: reads(history, who))  # type: ignore[misc]  # mypy does not type a default of a lambda
        crowd.add(f"snapshot {number}", lambda history=history, who=who: snapshot(history, who))  # type: ignore[misc]  # mypy does not type a default of a lambda
        crowd.add(f"write {number}", lambda history=history: writes(history))  # type: ignore[misc]  # mypy does not type a default of a lambda
    crowd.add("unmoved", unmoved)
    with crowd:
        for _ in range(2):
            quiet.clear()
            move.promote_together(owner, store.pg, TOGETHER)
            assert set(move.own_partitions(owner, store.pg)) == set(TOGETHER)
            quiet.set()
            time.sleep(0.5)
            for tenant in TOGETHER:
                move.demote(owner, store.pg, tenant)
    for history, who in zip(histories, (ACME, BETA), strict=True):
        assert everything(acl, who) == history.states[-1]
    assert everything(acl, DORA) == others
    assert not leftovers(owner)
    assert min(crowd.rounds.values()) >= 3
    assert crowd.slowest["unmoved"] < 5


class _KilledError(Exception):
    pass


_IDLE = re.compile(r"set_config|pg_locks|(DROP|CREATE) POLICY|RESET")


def written(acl: v.VectorACL, who: v.Principal, number: int) -> bool:
    """Write a chunk; return False if the last step of a move refuses it, which lasts until the next move or list."""
    try:
        acl.scoped(who).upsert([Chunk("again", f"d{number}", "again", [1.0] * 8)])
    except StoreError as error:
        if error.code != "moving":
            raise
        return False
    return True


def test_killed_at_many_statements(store: Any, acl: v.VectorACL, monkeypatch: pytest.MonkeyPatch) -> None:
    principals = (ACME, BETA, CARL, DORA)
    for who in principals:
        fill(acl, who, 2, 10)
    monkeypatch.setattr(promotion, "_BATCH", 15)
    model: dict[str, Rows] = {who.tenant: everything(acl, who) for who in principals}
    seen: list[str] = []
    with owner_of(store) as owner:
        move.promote_together(owner, store.pg, TOGETHER, step=seen.append)
        for tenant in TOGETHER:
            move.demote(owner, store.pg, tenant)
    statements = [sql for sql in seen if not _IDLE.search(sql)]
    # Each kind of statement once, at its second occurrence where there is one: in the middle of the group.
    kinds: dict[str, list[int]] = {}
    for place, sql in enumerate(statements):
        kinds.setdefault(" ".join(sql.split()[:3]), []).append(place)
    stops = sorted({places[min(1, len(places) - 1)] for places in kinds.values()})
    assert len(stops) > 15
    for number, stop in enumerate(stops):
        victim, left = owner_of(store), stop
        pid = victim.info.backend_pid

        def step(sql: str, victim: psycopg.Connection[Any] = victim) -> None:
            nonlocal left
            if _IDLE.search(sql):
                return
            if left == 0:
                victim.close()
                raise _KilledError
            left -= 1

        with pytest.raises(_KilledError):
            move.promote_together(victim, store.pg, TOGETHER, step=step)
        with owner_of(store) as owner:
            while owner.execute("SELECT true FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
                time.sleep(0.005)
            for who in principals:
                assert everything(acl, who) == model[who.tenant], statements[stop]
                if written(acl, who, number):
                    model[who.tenant] |= {(f"d{number}", "again", "again")}
                else:
                    assert who is not DORA
            if number % 3 == 0:
                acl.operator().tenants()
                move.promote(owner, store.pg, BETA.tenant)  # one of them alone, after the others' leftovers are removed
                move.demote(owner, store.pg, BETA.tenant)
            elif number % 3 == 1:
                move.demote(owner, store.pg, ACME.tenant)
            own = [tenant for tenant in TOGETHER if tenant in move.own_partitions(owner, store.pg)]
            if not own:
                move.promote_together(owner, store.pg, TOGETHER)
                own = TOGETHER
            assert not leftovers(owner), statements[stop]
            for who in principals:
                assert everything(acl, who) == model[who.tenant], statements[stop]
            for tenant in own:
                move.demote(owner, store.pg, tenant)
            assert not leftovers(owner)


def test_the_posture_is_whole_during_the_move(store: Any, acl: v.VectorACL, owner: psycopg.Connection[Any]) -> None:
    for who in (ACME, BETA, CARL):
        fill(acl, who, 1, 20)
    postures: list[Posture] = []

    def step(sql: str) -> None:
        if "WITH batch" in sql or "CREATE INDEX CONCURRENTLY" in sql or "FULL JOIN" in sql:
            postures.append(acl.check()["main"])

    move.promote_together(owner, store.pg, TOGETHER, step=step)
    assert len(postures) > 6
    assert {posture.grade for posture in postures} == {"engine"}
    assert not [one for posture in postures for one in posture.findings if one.rule.lowers]


def test_refusals(store: Any, acl: v.VectorACL, owner: psycopg.Connection[Any]) -> None:
    for who in (ACME, BETA):
        fill(acl, who, 1, 5)
    with pytest.raises(RefusedError, match="none was moved"):
        move.promote_together(owner, store.pg, ["acme", "unknown"])
    for tenants in ([], [f"t{number}" for number in range(21)]):
        with pytest.raises(RefusedError, match="moved together"):
            move.promote_together(owner, store.pg, tenants)
    move.promote(owner, store.pg, "beta")
    with pytest.raises(RefusedError, match="none was moved"):
        move.promote_together(owner, store.pg, ["acme", "beta"])
    owner.execute('CREATE TABLE "vectoracl"."chunks_t_acme" (a int)')
    acl.scoped(DORA).upsert(chunks("d", 3))
    with pytest.raises(RefusedError, match="is taken"):
        move.promote_together(owner, store.pg, ["acme", "delta"])
    owner.execute('DROP TABLE "vectoracl"."chunks_t_acme"')
    with another_move(store), pytest.raises(RefusedError) as refused:
        acl.operator().promote_together(["acme", "delta"])
    assert refused.value.code == "move_in_progress"
    assert move.promote_together(owner, store.pg, ["acme"]) != []
    assert not leftovers(owner)
