"""A store or a registry that was restored from a backup: it is noticed, the tenant stops, and `verify` corrects it."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from dataclasses import replace

import pytest
import sqlalchemy as sa

import vectoracl as v
from tests.test_governance import ANN, BOB, BOSS, Clock, chunk, config, created, opened, rows
from vectoracl import (
    DeniedError,
    Entry,
    HeldError,
    RefusedError,
    ReservedFieldError,
    StoppedTenantError,
    StoreError,
    hazmat,
)
from vectoracl.client.registry_setup import provision_registry
from vectoracl.engine import closing
from vectoracl.registry import tables as t
from vectoracl.registry.restores import MARK_DOCUMENT, VERIFYING
from vectoracl.registry.settings import RegistrySettings
from vectoracl.registry.sql_registry import Registry

REASON = "a test of restored backups"


class Site:
    """One store and one registry, whose backups can be restored at any time."""

    def __init__(self, tmp_path, journal):
        self.path = tmp_path / "registry.db"
        given = config(tmp_path)
        if journal:
            given["registry"]["journal"] = f"sqlite:///{tmp_path / 'journal.db'}"
        self.config, self.clock = created(given), Clock()
        if journal:
            registry = Registry(given["registry"]["url"], RegistrySettings(), journal=given["registry"]["journal"])
            registry.create()
            registry.close()
        self.acl = None
        self.open()

    def open(self):
        """Start a process: it has seen nothing yet."""
        shelf = None if self.acl is None else self.shelf
        if self.acl is not None:
            self.acl.close()
        self.acl = opened(self.config)
        self.acl.registry.database._clock = self.clock
        if shelf is not None:
            self.shelf.partitions, self.shelf.registry = shelf.partitions, shelf.registry
        self.acl.scoped(ANN)

    @property
    def shelf(self):
        named = self.acl._named("main")
        return self.acl._port(named, "port")._shelf

    def store_backup(self):
        return {name: dict(part) for name, part in self.shelf.partitions.items()}

    def restore_store(self, backup):
        self.shelf.partitions.clear()
        self.shelf.partitions.update({name: dict(part) for name, part in backup.items()})
        self.shelf.writes += 1  # it keeps what it found until something is written
        self.acl.pipeline._compared.clear()

    def registry_backup(self, name="backup.db"):
        target = self.path.parent / name
        with sqlite3.connect(self.path) as source, sqlite3.connect(target) as copy:
            source.backup(copy)
        source.close()
        copy.close()
        return target

    def restore_registry(self, backup):
        self.acl.registry.database.engine.dispose()
        self.acl.registry._quick.close()
        for end in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        shutil.copy(backup, self.path)
        self.open()

    @property
    def govern(self):
        return self.acl.governance(BOSS)

    def seen(self, who=BOB):
        docs = self.acl.scoped(who)
        found = sorted({hit.document for hit in docs.search([1.0, 0.0, 0.0], k=100)})
        assert docs.count() == sum(1 for hit in docs.scan())
        return found


@pytest.fixture(params=[False, True], ids=["without_journal", "journal"])
def journal(request):
    return request.param


@pytest.fixture
def site(tmp_path, journal):
    one = Site(tmp_path, journal)
    one.govern.define_label("open", entries=[Entry("tenant", write=True)])
    one.govern.define_label("hr", entries=[Entry("group:hr", write=True)])
    docs = one.acl.scoped(ANN)
    for name in ("a", "b", "c"):
        docs.upsert([chunk(f"{i}", name) for i in range(3)])
    assert one.govern.reconcile().left == 0
    yield one
    one.acl.close()


def dump(registry):
    """Return every table but the ids that the database makes and what ends with a restore."""
    leave = {"id", "ticket", "ticket_at", "floor", "last_generation", "stored_labels", "clock"}
    found = {}
    with registry.database.read() as connection:
        for table in t.metadata.sorted_tables:
            parts = [one for one in table.c if one.name not in leave]
            found[table.name] = sorted(repr(tuple(row)) for row in connection.execute(sa.select(*parts)))
    return found


def assert_stopped(site):
    docs = site.acl.scoped(BOB)
    for call in (
        lambda: docs.search([1.0, 0.0, 0.0]),
        docs.count,
        lambda: list(docs.scan()),
        lambda: docs.fetch([("a", "0")]),
        lambda: docs.upsert([chunk("9", "z")]),
        lambda: docs.delete(document="a"),
        lambda: site.govern.erase("b", reason=REASON),
        site.govern.reconcile,
    ):
        with pytest.raises(StoppedTenantError, match=r"vectoracl registry verify --tenant acme") as caught:
            call()
        assert caught.value.tenant == "acme"
        assert caught.value.code == "stopped"


def test_a_store_from_before_a_revocation_stops_the_tenant(site):
    backup = site.store_backup()
    site.govern.move("a", "hr")
    assert site.govern.reconcile().left == 0
    site.restore_store(backup)
    with pytest.raises(StoppedTenantError):
        site.acl.scoped(BOB).count()
    assert_stopped(site)
    site.govern.hold("b", "matter", reason=REASON)  # a governor is not stopped
    site.govern.release("matter", reason=REASON)
    report = site.govern.verify()
    assert report.corrected == ("a", "b")
    assert report.incomplete == report.deleted == ()
    assert site.govern.reconcile().left == 0
    assert site.seen() == ["b", "c"]
    assert {tag.label for tag in rows(site.acl).values() if tag.document == "a"} == {"hr"}
    assert site.govern.verify().corrected == ()


def test_a_store_from_before_an_erasure(site):
    backup = site.store_backup()
    site.govern.erase("a", reason=REASON)
    site.restore_store(backup)
    assert any(tag.document == "a" for tag in rows(site.acl).values())
    with pytest.raises(StoppedTenantError):
        site.acl.scoped(BOB).search([1.0, 0.0, 0.0])
    report = site.govern.verify()
    assert report.deleted == ("a",)
    assert not any(tag.document == "a" for tag in rows(site.acl).values())
    assert site.seen() == ["b", "c"]


def test_what_the_store_has_lost_is_reported_and_can_be_written_again(site):
    backup = site.store_backup()
    docs = site.acl.scoped(ANN)
    docs.upsert([chunk("0", "new")])
    docs.replace("b", [chunk("9", "b")])
    assert site.govern.reconcile().left == 0
    site.restore_store(backup)
    with pytest.raises(StoppedTenantError):
        docs.count()
    report = site.govern.verify()
    assert sorted(report.incomplete) == ["b", "new"]
    assert report.deleted == ("b",)
    assert site.seen() == ["a", "c"]
    docs.replace("b", [chunk("9", "b")])
    docs.replace("new", [chunk("0", "new")])
    assert site.govern.reconcile().left == 0
    assert site.seen() == ["a", "b", "c", "new"]


def test_a_held_document_keeps_what_is_left_of_it(site):
    backup = site.store_backup()
    site.acl.scoped(ANN).replace("b", [chunk("9", "b")])
    site.govern.hold("b", "matter", reason=REASON)
    assert site.govern.reconcile().left == 0
    site.restore_store(backup)
    before = {key for key in rows(site.acl) if key[0] == "b"}
    report = site.govern.verify()
    assert report.incomplete == ("b",)
    assert {key for key in rows(site.acl) if key[0] == "b"} == before
    assert site.seen() == ["a", "c"]


def test_an_unknown_document_is_deleted(site):
    backup = {name: dict(part) for name, part in site.store_backup().items()}
    key, row = next((key, row) for key, row in backup["acme"].items() if key[0] == "a")
    backup["acme"][("ghost", *key[1:])] = row._replace(tag=row.tag._replace(document="ghost"))
    site.restore_store(backup)
    assert site.govern.verify().deleted == ("ghost",)
    assert not any(tag.document == "ghost" for tag in rows(site.acl).values())


def test_a_restore_is_noticed_by_a_reconcile_and_by_an_erasure(site):
    backup = site.store_backup()
    site.govern.move("a", "hr")
    assert site.govern.reconcile().left == 0
    site.restore_store(backup)
    site.govern.move("b", "hr")
    with pytest.raises(StoppedTenantError):
        site.govern.reconcile()
    site.govern.verify()
    site.govern.erase("c", reason=REASON)
    site.restore_store(backup)
    with pytest.raises(StoppedTenantError):
        site.govern.erase("b", reason=REASON)


def test_a_new_process_notices_it(site):
    backup = site.store_backup()
    site.govern.move("a", "hr")
    assert site.govern.reconcile().left == 0
    site.restore_store(backup)
    site.open()
    with pytest.raises(StoppedTenantError):
        site.acl.scoped(BOB).search([1.0, 0.0, 0.0])


def test_a_registry_from_before_a_revocation(site, journal):
    backup = site.registry_backup()
    site.govern.move("a", "hr")
    site.govern.define_label("open", entries=[Entry("group:hr", write=True)])
    site.govern.hold("b", "matter", reason=REASON)
    site.govern.quarantine("crawler", producer="eve", reason=REASON)
    site.govern.erase("c", reason=REASON)
    assert site.govern.reconcile().left == 0
    now = dump(site.acl.registry)
    site.restore_registry(backup)
    assert_stopped_or_noticed(site)
    if not journal:
        with pytest.raises(RefusedError, match="Restore a later backup"):
            site.govern.verify()
        with pytest.raises(RefusedError, match="Restore a later backup"):
            site.govern.verify(accept_registry=True)  # the store's marks are later than what it would accept
        return
    assert site.acl.registry.replay("acme") > 1
    stop = {row for row in dump(site.acl.registry)["vectoracl_governed_tenants"] if "acme" in row}
    assert "'registry'" in next(iter(stop))
    after = dump(site.acl.registry)
    for name, found in now.items():
        if name != "vectoracl_governed_tenants":
            assert after[name] == found, name
    report = site.govern.verify()
    assert report.corrected == report.deleted == report.incomplete == ()
    assert site.seen() == []
    with pytest.raises(HeldError):
        site.govern.erase("b", reason=REASON)
    assert not site.acl.scoped(ANN).fetch([("c", "0")])


def assert_stopped_or_noticed(site):
    with pytest.raises(StoppedTenantError):
        site.acl.scoped(BOB).search([1.0, 0.0, 0.0])
    assert_stopped(site)


def test_verify_replays_the_journal(site, journal):
    if not journal:
        pytest.skip("without a journal it is refused, see above")
    backup = site.registry_backup()
    site.govern.move("a", "hr")
    site.govern.move("b", "hr")
    docs = site.acl.scoped(ANN)
    docs.replace("c", [chunk("7", "c")])
    site.restore_registry(backup)
    assert site.govern.verify().replayed == 3
    assert site.seen() == ["c"]
    assert site.seen(ANN) == ["a", "b", "c"]
    (hit,) = [one for one in site.acl.scoped(ANN).scan() if one.document == "c"]
    docs = site.acl.scoped(ANN)
    docs.replace("c", [chunk("8", "c")])
    (again,) = [one for one in docs.scan() if one.document == "c"]
    assert again.tag.generation > hit.tag.generation + 1000  # no generation is used again


def test_one_change_whose_commit_failed_is_applied(site, journal):
    if not journal:
        pytest.skip("there is no journal")
    backup = site.registry_backup()
    site.govern.move("a", "hr")
    site.restore_registry(backup)  # as if only the journal's transaction had been committed
    assert site.seen() == ["b", "c"]
    backup = site.registry_backup()
    site.govern.move("b", "hr")
    engine = site.acl.registry.database.engine
    engine.dispose()
    site.acl.registry._quick.close()
    with sqlite3.connect(backup) as old, sqlite3.connect(site.path) as there:
        old.backup(there)
    old.close()
    there.close()
    site.acl.registry._seen.clear()
    site.govern.move("c", "hr")  # a change of a running process finds it, too
    assert site.seen() == []


def test_a_running_process_notices_a_registry_that_goes_back(site, journal):
    backup = site.registry_backup()
    for label in ("hr", "open", "hr"):
        site.govern.move("a", label)
    site.seen()
    site.acl.registry.database.engine.dispose()
    site.acl.registry._quick.close()
    with sqlite3.connect(backup) as old, sqlite3.connect(site.path) as there:
        old.backup(there)
    old.close()
    there.close()
    assert_stopped_or_noticed(site)
    if not journal:
        with pytest.raises(RefusedError, match="accept-registry"):
            site.govern.verify()


def test_both_restored_to_one_moment(site, journal):
    store, registry = site.store_backup(), site.registry_backup()
    site.govern.move("a", "hr")
    assert site.govern.reconcile().left == 0
    site.govern.move("b", "hr")
    site.restore_store(store)
    site.restore_registry(registry)
    if not journal:
        assert site.seen() == ["a", "b", "c"]  # nothing can tell
        return
    with pytest.raises(StoppedTenantError):
        site.seen()
    report = site.govern.verify()
    assert report.corrected == ("a", "b")
    assert site.seen() == ["c"]


def test_a_journal_that_does_not_reach_back_is_refused(site, journal):
    if not journal:
        pytest.skip("there is no journal")
    backup = site.registry_backup()
    for label in ("hr", "open", "hr"):
        site.govern.move("a", label)
    with sqlite3.connect(site.path.parent / "journal.db") as connection:
        connection.execute(
            "DELETE FROM vectoracl_journal WHERE version = (SELECT max(version) - 1 FROM vectoracl_journal)"
        )
    connection.close()
    site.restore_registry(backup)
    with pytest.raises(RefusedError, match="does not reach back"):
        site.govern.verify()
    assert_stopped(site)


def test_without_its_journal_nothing_changes(site, journal):
    if not journal:
        pytest.skip("there is no journal")
    with sqlite3.connect(site.path.parent / "journal.db") as connection:
        connection.execute("DROP TABLE vectoracl_journal")
    connection.close()
    before = dump(site.acl.registry)
    with pytest.raises(Exception, match="journal did not answer") as caught:
        site.govern.move("a", "hr")
    assert caught.value.code == "registry"
    assert dump(site.acl.registry) == before


def test_a_verification_that_stops_half_way_is_run_again(site):
    backup = site.store_backup()
    site.govern.move("a", "hr")
    site.govern.erase("b", reason=REASON)
    site.acl.scoped(ANN).replace("c", [chunk("7", "c")])
    assert site.govern.reconcile().left == 0
    for stop in range(60):
        site.restore_store(backup)
        if interrupted(site, stop):
            break
        with pytest.raises(StoppedTenantError):
            site.seen()
        site.govern.verify()
        assert site.seen() == []
        site.open()
    else:
        raise AssertionError("a verification has no end")
    assert stop > 10
    assert site.seen() == []


def interrupted(site, stop):
    """Verify up to the request with the number *stop*, where the process dies; return whether it ended before."""
    from vectoracl.engine.verifying import Verification

    number = 0
    whole, govern = Verification("acme", accepted=False), site.govern
    while (step := whole.step()) is not None:
        _, flow = govern._step(step, REASON)
        value, error = None, None
        while True:
            try:
                request = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as end:
                whole.take(end.value)
                break
            if number == stop:
                flow.close()
                return False
            number += 1
            port = site.acl._named("main").port if request.port == "store" else None
            if request.port == "registry":
                value = request.perform(site.acl.registry)
            else:
                value = (port or site.acl.core_port).execute(request, None)
    return True


def test_a_second_restore_during_a_verification_is_noticed(site):
    from vectoracl.engine import verifying

    backup = site.store_backup()
    site.govern.move("a", "hr")
    assert site.govern.reconcile().left == 0
    site.restore_store(backup)
    whole, govern = verifying.Verification("acme", accepted=False), site.govern
    with pytest.raises(Exception, match="changed while it was verified"):
        while (step := whole.step()) is not None:
            if getattr(step, "func", None) is verifying.compare_documents:
                site.restore_store(backup)
            whole.take(govern._run(govern._step(step, REASON)))
    with pytest.raises(StoppedTenantError):
        site.seen()
    govern.verify()
    assert site.seen() == ["b", "c"]


def test_of_two_verifications_the_first_gives_way(site):
    from vectoracl.engine.verifying import Verification

    first, govern = Verification("acme", accepted=False), site.govern
    first.take(govern._run(govern._step(first.step(), REASON)))
    second = Verification("acme", accepted=False)
    second.take(govern._run(govern._step(second.step(), REASON)))
    with pytest.raises(RefusedError, match="has begun since"):
        while (step := first.step()) is not None:
            first.take(govern._run(govern._step(step, REASON)))
    while (step := second.step()) is not None:
        second.take(govern._run(govern._step(step, REASON)))
    assert site.seen() == ["a", "b", "c"]


def test_only_governors_verify(site):
    with pytest.raises(DeniedError):
        site.acl.governance(BOB).verify()
    assert site.seen() == ["a", "b", "c"]
    with hazmat_governor(site) as govern:
        assert govern.verify().documents == 3


def hazmat_governor(site):
    import contextlib

    return contextlib.nullcontext(hazmat.govern(site.acl, "acme", reason=REASON))


def test_the_name_of_the_marks_is_reserved(site):
    with pytest.raises(ReservedFieldError):
        site.acl.scoped(ANN).upsert([chunk("0", MARK_DOCUMENT)])
    with pytest.raises(ReservedFieldError):
        site.govern.classify(MARK_DOCUMENT, "hr")
    assert not [hit for hit in site.acl.scoped(ANN).scan() if hit.document == MARK_DOCUMENT]
    assert VERIFYING.endswith(":")


# --- what a reading of the protocol found


def stops(site):
    with sqlite3.connect(site.path) as connection:
        return dict(connection.execute("SELECT tenant, stopped FROM vectoracl_governed_tenants").fetchall())


def marks_of(site):
    return {key[2] for key in site.shelf.partitions["acme"] if key[0] == MARK_DOCUMENT}


@pytest.mark.parametrize("journal", [False])
def test_changes_after_a_restore_do_not_make_an_older_registry_the_present_one(site, journal):
    backup = site.registry_backup()
    site.govern.move("a", "hr")
    assert site.govern.reconcile().left == 0
    site.restore_registry(backup)
    with pytest.raises(StoppedTenantError):
        site.acl.scoped(BOB).search([1.0, 0.0, 0.0])
    assert stops(site)["acme"] == "registry"  # the mark that it requires was replaced by a later one
    for number in range(4):
        site.govern.hold("b", f"matter {number}", reason=REASON)
        with pytest.raises(RefusedError, match="Restore a later backup"):
            site.govern.verify()


def test_a_writer_that_comes_first_does_not_hide_an_older_registry(tmp_path):
    site = Site(tmp_path, journal=False)
    site.govern.define_label("open", entries=[Entry("tenant", write=True)])
    site.govern.define_label("hr", entries=[Entry("group:hr", write=True)])
    backup = site.registry_backup()  # no mark is required yet
    site.acl.scoped(ANN).upsert([chunk("0", "a")])
    site.govern.define_label("open", entries=[Entry("group:hr", write=True)])
    site.govern.move("a", "hr")
    site.govern.reconcile()
    site.restore_registry(backup)
    for number in range(4):
        with contextlib.suppress(StoppedTenantError):
            site.acl.scoped(ANN).upsert([chunk("0", f"x{number}")])
    assert stops(site)["acme"] == "registry"
    with pytest.raises(StoppedTenantError):
        site.acl.scoped(BOB).search([1.0, 0.0, 0.0])
    site.acl.close()


@pytest.mark.parametrize("write", ["upsert", "delete", "update"])
def test_a_copy_does_not_escape_a_quarantine_by_generation(site, write):
    site.govern.quarantine("bad", document="a", generation=0, reason=REASON)
    assert site.seen() == ["b", "c"]
    docs = site.acl.scoped(ANN)
    with contextlib.suppress(RefusedError):
        if write == "upsert":
            docs.upsert([chunk("9", "a")])
        elif write == "delete":
            docs.delete(ids=[("a", "0")])
        else:
            docs.update_metadata("a", {"lang": "fr"})
    assert site.seen() == ["b", "c"]
    docs.replace("a", [chunk("9", "a")])
    assert site.seen() == ["a", "b", "c"]


def test_a_rule_that_comes_during_a_write_is_not_escaped(site, monkeypatch):
    publish = site.acl.registry.publish
    beaten = []

    def late(*given, **named):
        if not beaten:
            beaten.append(given)
            site.govern.quarantine("bad", document="a", generation=0, reason=REASON)
        return publish(*given, **named)

    monkeypatch.setattr(site.acl.registry, "publish", late)
    with pytest.raises((RefusedError, StoreError)):
        site.acl.scoped(ANN).upsert([chunk("9", "a")])
    assert beaten
    assert site.seen() == ["b", "c"]


def test_changes_while_the_journal_is_compared_stop_no_one(tmp_path):
    site = Site(tmp_path, journal=True)
    site.govern.define_label("open", entries=[Entry("tenant", write=True)])
    registry = site.acl.registry
    latest = registry.journal.latest_of_all

    def meanwhile():
        for number in range(3):
            site.govern.define_label(f"label {number}")
        return latest()

    registry.journal.latest_of_all = meanwhile
    registry.compare_journal()
    assert stops(site)["acme"] is None
    site.acl.close()


def test_a_closing_that_did_not_see_its_mark_keeps_those_that_are_required(site, monkeypatch):
    site.govern.move("a", "hr")
    see = closing.see_marks
    with sqlite3.connect(site.path) as connection:
        required = {mark for (mark,) in connection.execute("SELECT mark FROM vectoracl_marks")}

    def without_the_new_one(*args, **given):
        seen = yield from see(*args, **given)
        return seen._replace(names=seen.names & required)

    monkeypatch.setattr(closing, "see_marks", without_the_new_one)
    assert site.govern.reconcile().written == ()
    monkeypatch.undo()
    assert required <= marks_of(site)
    assert site.govern.reconcile().left == 0
    assert stops(site)["acme"] is None


def test_what_cannot_be_finished_leaves_no_marks(site):
    before = len(marks_of(site))
    site.govern.move("a", "hr")
    lost = next(key for key in site.shelf.partitions["acme"] if key[0] == "a")
    del site.shelf.partitions["acme"][lost]
    for _ in range(4):
        assert site.govern.reconcile().incomplete == ("a",)
    assert len(marks_of(site)) == before


def test_an_erasure_that_is_repeated_where_reads_lag_ends(site):
    store = site.acl._named("main").store
    store.adapter._capabilities = replace(store.capabilities, visible="eventual")
    object.__setattr__(site.acl.registry.settings, "max_read_seconds", 30.0)
    assert site.govern.erase("a", reason=REASON).left == ("a",)
    site.clock.now += 20
    assert site.govern.erase("a", reason=REASON).left == ("a",)
    site.clock.now += 20
    assert site.govern.erase("a", reason=REASON).documents == ("a",)


def test_a_new_registry_does_not_take_over_what_another_has_governed(site, tmp_path):
    site.govern.hold("c", "matter", reason=REASON)
    site.govern.reconcile()
    parts = site.store_backup()
    (tmp_path / "other").mkdir()
    with opened(created(config(tmp_path / "other"))) as acl:
        named = acl._named("main")
        shelf = acl._port(named, "port")._shelf
        shelf.partitions.update(parts)
        shelf.registry = None
        shelf.writes += 1
        with pytest.raises(RefusedError, match="governed by a registry before"):
            provision_registry(acl, ["main"])


def test_documents_whose_chunks_expire_at_different_times_are_not_imported(tmp_path):
    given = created(config(tmp_path))
    bare = {**given, "stores": {"main": {**given["stores"]["main"], "expiring": True}}}
    registry = bare.pop("registry")
    with v.connect(bare) as acl:
        lasting, ending = chunk("0", "a"), chunk("1", "a")
        acl.scoped(ANN).upsert([lasting, replace(ending, expires=1_000.0), chunk("0", "b")])
        named = acl._named("main")
        parts = acl._port(named, "port")._shelf.partitions
        with v.VectorACL({**given, "registry": registry}) as setting_up:
            named = setting_up._named("main")
            shelf = setting_up._port(named, "port")._shelf
            shelf.partitions.update(parts)
            shelf.registry = None
            shelf.writes += 1
            with pytest.raises(RefusedError, match="expire at different times") as caught:
                provision_registry(setting_up, ["main"])
            assert "'a'" in str(caught.value)
