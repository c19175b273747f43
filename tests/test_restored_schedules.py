"""Drawn schedules in which the store is restored, at any step: nothing is shown that was not permitted.

The invariants of the other schedules hold until the restore. After it, an answer may also be a refusal; when everything
is quiet, a verification has to end it, and what it does not report as missing has to be there as the tables say.
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.governed_world import ASK, MAX_READ, Actor, BreachError, Episode, V
from tests.test_governed_schedules import worlds  # noqa: F401 - a fixture
from vectoracl import ALWAYS, StoppedTenantError
from vectoracl.engine import reads, verifying
from vectoracl.engine.verifying import Verification
from vectoracl.registry import marks, tables
from vectoracl.registry.restores import OLDER_REGISTRY
from vectoracl.registry.sql_registry import Registry

SCHEDULES = 40
KINDS = ("transaction", "conditional", "blind")
"""The kinds of stores that carry marks: where reads lag, a mark that is missing would prove nothing."""


class Restored(Episode):
    """An episode whose store goes back to an earlier moment once, between any two steps."""

    def __init__(self, *given, **more):
        self.backup, self.restored, self.noticed, self.lost = None, False, False, set()
        super().__init__(*given, **more)

    def step(self):
        chance = self.random.random()
        if self.backup is None and chance < 0.2:
            self.backup = dict(self.world.rows(self.tenant))
        elif self.backup is not None and not self.restored and chance < 0.02:
            self.restore()
        elif chance > 0.85:
            self.world.clock.now += MAX_READ + 1  # so that more is written to the store between backup and restore
            self.note()
        super().step()

    def restore(self):
        rows = self.world.rows(self.tenant)
        rows.clear()
        rows.update(self.backup)
        self.world.port._shelf.writes += 1  # it keeps what it found until something is written
        self.restored = True
        for actor in self.actors:  # the server has lost what was on its way to it
            actor.pieces.clear()
        self.late.clear()

    def check_held(self):
        if not self.restored:
            super().check_held()

    def judge(self, actor):
        """After a restore chunks may be missing, so less than is permitted may be returned, and never more."""
        if not self.restored:
            super().judge(actor)
            return
        self.note()
        window = self.truths[actor.since :]
        if actor.name == "search":
            for hit in actor.result[0].hits:
                ever = {truth[hit.document][0] for truth in window if hit.document in truth}
                if hit.tag.generation not in ever:
                    raise BreachError(f"I1: {hit.document} was returned, and never permitted since the read began")
        if actor.name == "count":
            most = max(sum(chunks for _, chunks in truth.values()) for truth in window)
            if actor.result > most:
                raise BreachError(f"I1: count returned {actor.result}, at most {most} were permitted")

    def move(self, actor):
        if not actor.pieces and actor.request is not None and self.restored and not actor.ended:
            value, error = self.do(actor.request)  # the rest of a write that was taken apart is sent again
            self.advance(actor, value, error)
            return
        super().move(actor)

    def settle(self):
        if not self.restored:
            if self.backup is None:
                self.backup = dict(self.world.rows(self.tenant))
            self.restore()
        self.notice()
        whole = Verification(self.tenant, accepted=self.taken_for_an_older_registry())
        while (step := whole.step()) is not None:
            whole.take(self.raising(self.govern._step(step, "reason")[1]))
        self.lost = set(whole.result.incomplete)
        for _ in range(12):
            self.world.clock.now += max(MAX_READ, 121)
            report = self.rounds()
            if report.left == len(report.incomplete):
                break
        else:
            raise BreachError(f"I5: {report.left} documents stay in the overlay: {report.incomplete}")
        if not set(report.incomplete) <= self.lost:
            raise BreachError(f"I5: {report.incomplete} are incomplete and {self.lost} were reported")
        self.check_answers()

    def notice(self):
        """A store without a mark that the registry requires is noticed by the next count, at the latest."""
        with self.world.acl.registry.database.read() as connection:
            required = marks.required(connection, self.tenant, "main")
        older = bool(required.keys() - {key[2] for key in self.world.rows(self.tenant)})
        try:
            self.raising(self.world.acl.scoped(self.ann)._count(ALWAYS)[1])  # bob may have no label left
        except StoppedTenantError:
            self.noticed = True
        if older and not self.noticed:
            raise BreachError("I1: a store without a required mark was counted")

    def taken_for_an_older_registry(self):
        """Return whether the tenant was stopped for that: a drain that was cut off by the restore may look like it."""
        with self.world.acl.registry.database.read() as connection:
            c = tables.tenants.c
            reason = connection.execute(sa.select(c.stopped).where(c.tenant == self.tenant)).scalar_one()
        return reason == OLDER_REGISTRY

    def raising(self, flow):
        """Run *flow* alone; an error of it is an error of the test."""
        actor = Actor("verify", flow)
        while not actor.ended:
            self.move(actor)
        if actor.error is not None:
            raise actor.error
        return actor.result

    def check_answers(self):
        self.note()
        truth = {name: one for name, one in self.truths[-1].items() if name not in self.lost}
        result = self.raising(self.world.acl.scoped(self.bob)._search((V,), **ASK)[1])
        found = {}
        for hit in result[0].hits:
            found.setdefault(hit.document, []).append(hit.tag.generation)
        for name, (generation, chunks) in truth.items():
            if found.get(name, []) != [generation] * chunks:
                raise BreachError(f"I3: {found.get(name)} of {name} was returned, {chunks} of {generation} exist")
        if not set(found) <= set(self.truths[-1]):
            raise BreachError(f"I1: {sorted(found)} were returned and {sorted(self.truths[-1])} are permitted")
        number = self.raising(self.world.acl.scoped(self.bob)._count(ALWAYS)[1])
        if number != len(result[0].hits):
            raise BreachError(f"I1: count returned {number} and a search {len(result[0].hits)}")


def run_schedules(world, kind, seeds, only=None):
    stopped = 0
    for seed in seeds:
        episode = Restored(world, seed, seed, only)
        try:
            episode.run(actors=10)
        except BreachError as breach:
            names = [one.name for one in episode.actors]
            raise BreachError(f"{breach}; seed {seed} on {kind}: {names}") from None
        stopped += episode.noticed
    return stopped


@pytest.mark.parametrize("kind", KINDS)
def test_a_restore_shows_nothing_that_is_not_permitted(worlds, kind):  # noqa: F811 - the fixture
    assert run_schedules(worlds(kind), kind, range(SCHEDULES)) >= 5


def marks_are_not_compared(patch):
    patch.setattr(Registry, "compare_marks", lambda *_: None)
    patch.setattr(marks, "close", lambda change, closing: None)


def counts_do_not_look_at_marks(patch):
    def unchanged(plan, store, decision_id):
        return
        yield

    patch.setattr(reads, "confirm_unchanged", unchanged)


def a_verification_corrects_nothing(patch):
    def nothing(store, decision_id, *, tenant, token, after):
        return verifying.Part(None)
        yield

    patch.setattr(verifying, "correct_documents", nothing)
    patch.setattr(
        verifying,
        "compare_documents",
        lambda store, decision_id, *, tenant, after: nothing(0, 0, tenant=0, token=0, after=0),
    )


@pytest.mark.parametrize(
    "mutant", [marks_are_not_compared, counts_do_not_look_at_marks, a_verification_corrects_nothing]
)
def test_without_a_part_of_it_an_invariant_breaks(worlds, monkeypatch, mutant):  # noqa: F811 - the fixture
    mutant(monkeypatch)
    both = [worlds(kind) for kind in KINDS]
    only = {"count", "search", "narrow", "move to hr", "move to open", "hold", "retain", "reconcile", "delete", "erase"}
    with pytest.raises(BreachError, match=r"^I\d"):
        for seed in range(200):
            run_schedules(both[seed % 2], KINDS[seed % 2], [seed], only)
