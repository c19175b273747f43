"""The registry by itself: many writers, a file that is locked, settings that are wrong."""

from __future__ import annotations

import inspect
import sqlite3
import threading

import pytest
import sqlalchemy as sa

import vectoracl as v
from vectoracl import ConfigError, Entry, InvalidInputError, LabelDefinition, RefusedError, StoreError
from vectoracl.registry import database, migrate
from vectoracl.registry import tables as t
from vectoracl.registry.requests import TakeScope
from vectoracl.registry.settings import Attribute, RegistrySettings, check_subject, parse_rule
from vectoracl.registry.sql_registry import Registry
from vectoracl.testing import principal

ANN = principal("ann", "acme", groups=["hr"])
SETTINGS = RegistrySettings(default_label="open", overlay_max=4000)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 120.0)  # many writers on a machine that is busy with other tests
    one = Registry(f"sqlite:///{tmp_path / 'registry.db'}", SETTINGS)
    one.create()
    one.define_label("acme", LabelDefinition("open", entries=(Entry("tenant", write=True),)), "me", "")
    yield one
    one.close()


def write_from_many_threads(registries, tenant="acme", threads=6, changes=12):
    """Change rights from several threads and two connections; return the errors."""
    errors = []

    def work(number):
        registry = registries[number % len(registries)]
        try:
            for i in range(changes):
                name = f"d{number}-{i}"
                (ticket,) = registry.tickets(principal("ann", tenant), tenant, [name])
                assert registry.publish(principal("ann", tenant), tenant, [(ticket, 1)])
                registry.hold(tenant, [name], "m", "me", "r")
                registry.release(tenant, [name], "m", "me", "r")
        except Exception as error:
            errors.append(error)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    return errors


def versions(registry, tenant="acme"):
    with registry.database.read() as connection:
        statement = sa.select(t.history.c.version).where(t.history.c.tenant == tenant).order_by(t.history.c.id)
        return list(connection.execute(statement).scalars())


def test_writers_on_many_threads_and_in_two_processes(registry, tmp_path):
    other = Registry(f"sqlite:///{tmp_path / 'registry.db'}", SETTINGS)
    assert write_from_many_threads([registry, other]) == []
    other.close()
    noted = versions(registry)
    assert noted == sorted(noted)
    assert len(set(noted)) == len(noted) == 1 + 6 * 12 * 2
    assert registry.probe(("acme",)).versions["acme"] == 1 + 6 * 12 * 3  # each publication, hold and release


def test_a_file_that_is_locked_is_an_error_and_reads_go_on(registry, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    impatient = Registry(f"sqlite:///{tmp_path / 'registry.db'}", SETTINGS)
    holder = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError) as locked:
        impatient.hold("acme", ["d"], "m", "me", "r")
    assert (locked.value.code, locked.value.sent) == ("registry", "no")
    assert impatient.take(TakeScope(ANN, ("acme",), False, True)).partitions["acme"].labels == {"open"}
    holder.execute("ROLLBACK")
    holder.close()
    impatient.close()


def test_the_file_is_its_users_alone(registry, tmp_path):
    for path in tmp_path.glob("registry.db*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_change_that_fails_leaves_nothing(registry):
    before = registry.probe(("acme",)).versions
    with pytest.raises(RefusedError):
        registry.hold("acme", ["nothing"], "m", "me", "r")
    with pytest.raises(InvalidInputError):
        registry.define_label("acme", LabelDefinition("x", attributes={"unheard": 1}), "me", "")
    assert registry.probe(("acme",)).versions == before


def test_tables_of_a_later_version_are_left_alone(registry):
    with registry.database.write() as connection:
        connection.execute(sa.text("UPDATE vectoracl_registry_version SET version_num = '9999'"))
    for attempt in (lambda: migrate.check(registry.database), registry.create):
        with pytest.raises(ConfigError, match="later version"):
            attempt()


def test_the_migrations_make_the_tables_that_the_code_expects(registry):
    inspected = sa.inspect(registry.database.engine)
    for table in t.metadata.sorted_tables:
        assert {one["name"] for one in inspected.get_columns(table.name)} == set(table.columns.keys())
        assert {one["name"] for one in inspected.get_indexes(table.name)} == {one.name for one in table.indexes}
        assert inspected.get_pk_constraint(table.name)["constrained_columns"] == [one.name for one in table.primary_key]


def test_the_script_creates_the_same_tables(registry, tmp_path):
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.executescript(migrate.script(registry.database))
        made = {name for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    other.close()
    assert {one.name for one in t.metadata.sorted_tables} <= made


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_cannot_be_a_registry(url):
    with pytest.raises(ConfigError) as refused:
        Registry(url, SETTINGS)
    assert url not in str(refused.value)


def test_a_file_is_for_one_host(tmp_path):
    given = {
        "version": 1,
        "stores": {"main": {"adapter": "qdrant", "url": "http://127.0.0.1:1", "dimension": 3}},
        "registry": {"url": f"sqlite:///{tmp_path / 'r.db'}"},
    }
    with pytest.raises(ConfigError, match="single_host"):
        v.VectorACL(given)


@pytest.mark.parametrize("subject", ["", "hr", "group:", "everyone", "Group:hr", "tenant:x", "team:x"])
def test_a_subject_that_is_none(subject):
    with pytest.raises(InvalidInputError):
        check_subject(subject)


@pytest.mark.parametrize(
    "allow",
    [
        {},
        {"sensitivity": "<= principal.clearance"},
        {"label.unheard": "== principal.id"},
        {"label.sensitivity": "<= 'internal'"},
        {"label.sensitivity": "~ principal.x"},
        {"label.region": "<= principal.x"},
    ],
)
def test_a_rule_that_cannot_be_read(allow):
    attributes = {"sensitivity": Attribute("keyword", ("a", "b")), "region": Attribute("keyword")}
    with pytest.raises(ConfigError):
        parse_rule(allow, attributes, write=False)


def test_no_method_of_a_tenant_reads_without_naming_it():
    """Under row-level security such a method would see nothing, and could take that for an answer."""
    methods = [one for _, one in inspect.getmembers(Registry, inspect.isfunction)]
    of_tenants = [one for one in methods if {"tenant", "tenants"} & set(inspect.signature(one).parameters)]
    assert len(of_tenants) > 20
    assert [one.__name__ for one in of_tenants if "database.read()" in inspect.getsource(one)] == []
