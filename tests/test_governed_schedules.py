"""I1 to I5 hold in drawn schedules of the real flows, and each rule that is taken away breaks one of them.

`VECTORACL_SCHEDULES` is the number of schedules of each kind of store, and `VECTORACL_SCHEDULES_FROM` the first seed.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tests import test_governance
from tests.governed_world import MAX_READ, SOURCES, BreachError, Episode, World
from tests.test_governance import Clock, config, opened
from vectoracl import Entry
from vectoracl.engine import facets, governed_reads, governed_store, governed_writes, reads
from vectoracl.filters.predicate import ALWAYS, Eq, F, Range, conjunction, disjunction
from vectoracl.registry import documents, leases, reading, scopes, sources
from vectoracl.registry.database import Database
from vectoracl.registry.scopes import GovernedScope, PartitionScope
from vectoracl.registry.settings import RegistrySettings

KINDS = ("transaction", "conditional", "blind", "lagging")
SCHEDULES = int(os.environ.get("VECTORACL_SCHEDULES", "25"))
FIRST = int(os.environ.get("VECTORACL_SCHEDULES_FROM", "0"))


@pytest.fixture
def worlds(tmp_path):
    made = []

    def make(kind):
        path = tmp_path / f"{kind}{len(made)}"
        path.mkdir()
        ages = {name: {"max_age_seconds": age} for name, age in SOURCES.items()}
        acl = opened(config(path, max_read_seconds=MAX_READ, sources=ages))
        sa.event.listen(acl.registry.database.engine, "connect", unsynchronised)
        made.append(acl)
        return World(acl, Clock(), kind)

    yield make
    for one in made:
        one.close()


def unsynchronised(connection, _):
    connection.execute("PRAGMA synchronous = OFF")  # the process is not killed here, and a flush takes milliseconds


@pytest.mark.parametrize("kind", KINDS)
def test_the_invariants_hold(worlds, kind):
    world = worlds(kind)
    ended = 0
    for seed in range(FIRST, FIRST + SCHEDULES):
        episode = Episode(world, seed, seed)
        try:
            episode.run()
        except BreachError as breach:
            raise AssertionError(f"seed {seed} on {kind}: {breach}; {[one.name for one in episode.actors]}") from None
        ended += sum(one.ended == "done" for one in episode.actors)
    assert ended > 3 * SCHEDULES  # most actors do what they came for


def without_row(patch):
    def changed(change, database, names, **given):
        documents.update(change, names, rev=change.version, **given)

    patch.setattr(documents, "changed", changed)


def without_rev(patch):
    def changed(change, database, names, **given):
        documents.update(change, names, **given)
        documents.enter(change, database, names)

    patch.setattr(documents, "changed", changed)


def without_comparing_rev(patch):
    clear = documents.clear

    def blind(change, given):
        rows = documents.rows_by_name(change.connection, change.tenant, [one.document for one in given])
        return clear(change, [one._replace(rev=rows[one.document].rev) for one in given if one.document in rows])

    patch.setattr(documents, "clear", blind)


def any_generation_is_granted(patch):
    def predicate(self):
        by_label = conjunction(
            (F["@label"].in_(sorted(self.labels)), Range("@expires", gt=self.now), ~F["@document"].in_(self.overlay))
        )
        visible = disjunction((by_label, F["@document"].in_([document for document, _ in self.granted])))
        return conjunction((visible, ~self._exclusion())) if self.rules else visible

    patch.setattr(PartitionScope, "predicate", predicate)
    without_second_lock(patch)


def nothing_is_granted(patch):
    init = reading._partition
    patch.setattr(reading, "_partition", lambda *given: replace(init(*given), granted=()))


def without_second_lock(patch):
    def nothing(plan, store, hits, decision_id):
        return
        yield

    for module in (governed_reads, reads, governed_writes):
        patch.setattr(module, "confirm_hits", nothing)


def versions_are_not_probed(patch):
    patch.setattr(GovernedScope, "holds", lambda self, found: self.now <= found.now < self.valid_until)


def an_expiry_does_not_end_a_cached_scope(patch):
    patch.setattr(GovernedScope, "holds", lambda self, found: self.versions == found.versions)
    without_second_lock(patch)


def a_hold_does_not_stop_publication(patch):
    blind_to_holds(patch, "publish")


def a_hold_does_not_stop_deletion(patch):
    blind_to_holds(patch, "begin_erasing")


def blind_to_holds(patch, name):
    inner, rows_of = getattr(documents, name), documents.rows_by_name

    class Free:
        def __init__(self, row):
            self.row = row

        def __getattr__(self, column):
            return 0 if column == "held" else getattr(self.row, column)

    def blind(*given, **named):
        documents.rows_by_name = lambda *a: {key: Free(row) for key, row in rows_of(*a).items()}
        try:
            return inner(*given, **named)
        finally:
            documents.rows_by_name = rows_of

    patch.setattr(documents, name, blind)


def a_label_is_written_whatever_the_chunk_carries(patch):
    patch.setattr(World, "apply", unconditional(World.apply))


def unconditional(apply):
    def blind(self, piece):
        change = getattr(piece, "change", None)
        if change is None:
            apply(self, piece)
            return
        rows = self.rows(piece.partition)
        key = (change.document, change.generation, piece.chunk)
        if key in rows:
            tag = rows[key].tag._replace(label=change.label, expires=change.expires, rev=change.rev)
            rows[key] = rows[key]._replace(tag=tag)
        self.port._shelf.writes += 1

    return blind


def chunks_are_not_staged(patch):
    patch.setattr(
        governed_store, "staged", lambda tag, generation: tag._replace(generation=generation, label="open", rev=0)
    )


def any_release_frees(patch):
    release = documents.release

    def frees(change, database, names, matter):
        chosen = release(change, database, names, matter)
        documents.changed(change, database, chosen, held=0)
        return chosen

    patch.setattr(documents, "release", frees)


def a_deletion_takes_later_generations(patch):
    patch.setattr(governed_store, "generations_until", lambda document, last: Eq("@document", document))


def no_wait_before_old_generations_go(patch):
    pending = documents.pending
    patch.setattr(
        documents, "pending", lambda c, s, *rest: pending(c, replace_settings(s, max_read_seconds=0.0), *rest)
    )


def replace_settings(settings, **given):
    values = {name: getattr(settings, name) for name in RegistrySettings.__slots__}
    return RegistrySettings(**{**values, **given})


def a_definition_raises_no_version(patch):
    change = Database.change
    patch.setattr(Database, "change", lambda self, tenant, raises=True: change(self, tenant, raises=False))


def quarantine_only_in_the_label_branch(patch):
    def predicate(self):
        by_label = conjunction(
            (
                F["@label"].in_(sorted(self.labels)),
                Range("@expires", gt=self.now),
                ~F["@document"].in_(self.overlay),
                ~self._exclusion() if self.rules else ALWAYS,
            )
        )
        granted = F["@docgen"].in_([scopes.docgen(document, generation) for document, generation in self.granted])
        return disjunction((by_label, granted))

    patch.setattr(PartitionScope, "predicate", predicate)
    without_second_lock(patch)


def expired_is_granted(patch):
    take = reading._partition

    def later(connection, settings, tenant, labels, found):
        scope = take(connection, settings, tenant, labels, found._replace(now=0.0))
        return replace(scope, now=found.now)

    patch.setattr(reading, "_partition", later)
    without_second_lock(patch)


def slow_reads_are_delivered(patch):
    confirm = governed_reads.confirm_hits

    def patient(plan, store, hits, decision_id):
        part = plan.governance
        slow = replace_settings(part.settings, max_read_seconds=1e9)
        return confirm(replace(plan, governance=replace(part, settings=slow)), store, hits, decision_id)

    patch.setattr(reads, "confirm_hits", patient)


def superseded_chunks_stay(patch):
    patch.setattr(governed_store, "superseded", lambda one: None)
    patch.setattr(governed_store, "census", lambda store, partition, given, decision_id: whole(given))


def whole(given):
    return given
    yield


def an_ended_ticket_publishes(patch):
    publish = documents.publish

    def blind(change, database, given, writable):
        rows = documents.rows_by_name(change.connection, change.tenant, [ticket.document for ticket, _ in given])
        mine = [(ticket._replace(base=rows[ticket.document].generation), n) for ticket, n in given]
        for ticket, _ in mine:
            documents.update(change, [ticket.document], ticket=ticket.token, state="live")
        return publish(change, database, mine, writable)

    patch.setattr(documents, "publish", blind)


def labels_are_written_without_a_lease(patch):
    patch.setattr(leases, "take", lambda *given: 0.0)
    a_lease_is_not_renewed(patch)


def what_is_under_way_is_not_waited_for(patch):
    take = leases.take
    patch.setattr(leases, "take", lambda c, d, s, token: take(c, d, replace_settings(s, request_seconds=0.0), token))


def a_lease_is_not_renewed(patch):
    patch.setattr(leases, "renew", lambda *given: None)


def numbers_are_the_store_s(patch):
    for module in (reads, facets):
        patch.setattr(module, "by_rows", lambda plan, store: False)


def what_has_changed_in_the_meantime_is_returned(patch):
    patch.setattr(governed_reads, "changed_since", lambda *given: False)


def a_stale_source_vouches(patch):
    patch.setattr(reading, "withdrawn", lambda *given: frozenset())


def staleness_ends_no_cached_scope(patch):
    boundary, freshness = reading.boundary, reading.freshness

    def blind(*given):
        reading.freshness = lambda *_: {}
        try:
            return boundary(*given)
        finally:
            reading.freshness = freshness

    patch.setattr(reading, "boundary", blind)


def the_oldest_record_is_in_force(patch):
    def oldest(self):
        return min((at, name, said) for name, (at, said) in self.items())[1:] if self else None

    patch.setattr(sources._Stored, "in_force", oldest)


def a_move_by_a_governor_is_no_record(patch):
    patch.setattr(sources, "governor_said", lambda *given: None)


READS = {"search", "count"}
FEEDS = {"feed", "heartbeat", "move to hr", "move to open", "reconcile", *READS}
MUTANTS = {
    without_row: ("I", None),
    without_rev: ("I", None),
    without_comparing_rev: ("I", {"move to hr", "move to open", "hold", "release", "reconcile", *READS}),
    any_generation_is_granted: ("I", None),
    nothing_is_granted: ("I3", None),
    versions_are_not_probed: ("I", None),
    an_expiry_does_not_end_a_cached_scope: ("I1", {"retain", *READS}),
    a_hold_does_not_stop_publication: ("I2", {"hold", "upsert", "replace"}),
    a_hold_does_not_stop_deletion: ("I2", {"hold", "delete", "erase"}),
    chunks_are_not_staged: ("I", {"upsert", "replace", *READS}),
    a_definition_raises_no_version: ("I", {"narrow", "widen", *READS}),
    quarantine_only_in_the_label_branch: ("I1", {"quarantine", "move to hr", "move to open", *READS}),
    expired_is_granted: ("I1", {"retain", *READS}),
    superseded_chunks_stay: ("I", {"replace", "reconcile", *READS}),
    a_stale_source_vouches: ("I", FEEDS),
    the_oldest_record_is_in_force: ("I", FEEDS),
    a_move_by_a_governor_is_no_record: ("I", FEEDS),
}
"""The rules that are taken away: the invariant that breaks ("I" for any), and the actors among which it does."""
DIRECTED = {
    a_label_is_written_whatever_the_chunk_carries: ("late_label", "conditional"),
    a_deletion_takes_later_generations: ("late_deletion", "transaction"),
    labels_are_written_without_a_lease: ("late_label", "blind"),
    what_is_under_way_is_not_waited_for: ("late_label", "blind"),
    a_lease_is_not_renewed: ("paused_writer", "blind"),
    what_has_changed_in_the_meantime_is_returned: ("half_published", "conditional"),
    numbers_are_the_store_s: ("stale_replica", "lagging"),
    without_second_lock: ("stale_replica", "lagging"),
    staleness_ends_no_cached_scope: ("stale_source", "transaction"),
    any_release_frees: ("two_matters", "transaction"),
    no_wait_before_old_generations_go: ("quick_read", "transaction"),
    slow_reads_are_delivered: ("slow_read", "transaction"),
    an_ended_ticket_publishes: ("stopped_writer", "transaction"),
}
"""Rules that only rare schedules need: the schedule, and the kind of store."""
MOST = 200


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.__name__)
def test_without_a_rule_an_invariant_breaks(worlds, monkeypatch, mutant):
    mutant(monkeypatch)
    invariant, only = MUTANTS[mutant]
    both = [worlds(kind) for kind in KINDS[:2]]
    with pytest.raises(BreachError, match=f"^{invariant}"):
        for seed in range(MOST):
            Episode(both[seed % 2], seed, seed, only, crash=0.05).run()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("schedule", sorted(name for name, _ in DIRECTED.values()))
def test_what_arrives_late_changes_nothing(worlds, schedule, kind):
    there = {  # elsewhere labels are one request, there is no lease, or nothing is labelled at once
        "late_label": KINDS[1:],
        "paused_writer": ("blind", "lagging"),
        "half_published": ("conditional", "blind"),
        "stale_replica": ("lagging",),
    }
    if kind in there.get(schedule, KINDS):
        getattr(Episode(worlds(kind), 0, 0), schedule)()


@pytest.mark.parametrize("mutant", DIRECTED, ids=lambda one: one.__name__)
def test_without_a_rule_what_arrives_late_breaks_an_invariant(worlds, monkeypatch, mutant):
    mutant(monkeypatch)
    schedule, kind = DIRECTED[mutant]
    with pytest.raises(BreachError, match=r"^I\d"):
        getattr(Episode(worlds(kind), 0, 0), schedule)()


def test_without_the_second_lock_a_restored_chunk_is_read(tmp_path, monkeypatch):
    without_second_lock(monkeypatch)
    with opened(config(tmp_path)) as acl:
        govern = acl.governance(test_governance.BOSS)
        govern.define_label("open", entries=[Entry("tenant", write=True)])
        govern.define_label("hr", entries=[Entry("group:hr", write=True)])
        with pytest.raises(AssertionError):
            test_governance.test_the_second_lock_does_not_believe_chunks(acl, govern)
