"""Reads of pgvector that assert the registry's version in their own statement, where both are one database."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, Entry, F, RefusedError, StoreError
from vectoracl.adapter_api.versions import COLUMNS, ExpectedVersion, VersionTable
from vectoracl.client.registry_setup import provision_registry
from vectoracl.registry.sql_registry import Registry
from vectoracl.testing import principal
from vectoracl_pgvector.requests import Statement, Transaction

from pgvector_support.proxy import Proxy
from pgvector_support.stores import REGISTRY_ROLE, registry_urls

BOSS = principal("boss", "acme", roles=["records"])
BOB = principal("bob", "acme")
VECTOR = [1.0] * 8
DOCUMENTS = ("d0", "d1", "d2")
TABLE = VersionTable("vectoracl", "vectoracl_governed_tenants")


def configured(store, **registry):
    given = {
        **registry_urls(store),
        "default_label": "open",
        "governors": {"role": "records"},
        "max_read_seconds": 0,
        **registry,
    }
    return {**store.config, "registry": given}


def provisioned_by(config):
    with v.VectorACL(config) as setting_up:
        return provision_registry(setting_up, ["main"])


@pytest.fixture
def governed(store):
    config = configured(store)
    lines = provisioned_by(config)
    assert "reads of the store main assert the registry's versions: vectoracl_runtime may read them" in lines
    return config


def fill(acl):
    govern = acl.governance(BOSS)
    govern.define_label("open", entries=[Entry("tenant", write=True)])
    govern.define_label("closed", entries=[Entry("user:nobody")])
    acl.scoped(BOB).upsert([Chunk(str(i), f"d{i}", f"word {i}", VECTOR, metadata={"lang": "en"}) for i in range(3)])


@pytest.fixture
def acl(governed):
    with v.connect(governed) as acl:
        fill(acl)
        yield acl


READS = {
    "search": lambda docs: sorted(hit.document for hit in docs.search(VECTOR)),
    "exactly": lambda docs: sorted(hit.document for hit in docs.search(VECTOR, exact=True)),
    "grouped": lambda docs: sorted(hit.document for hit in docs.search(VECTOR, group_by="document")),
    "by words": lambda docs: sorted(hit.document for hit in docs.search(v.Lexical("word"))),
    "hybrid": lambda docs: sorted(hit.document for hit in docs.search(v.Hybrid("word", VECTOR))),
    "like": lambda docs: sorted({hit.document for hit in docs.search(v.Like("2", "d2"))} | {"d2"}),
    "fetch": lambda docs: sorted(hit.document for hit in docs.fetch(["0", "1", "2"])),
    "count": lambda docs: [f"d{i}" for i in range(docs.count())][::-1],
    "facets": lambda docs: [f"d{i}" for one in docs.facets("lang") for i in range(one.count)][::-1],
    "scan": lambda docs: sorted(hit.document for hit in docs.scan(size=1)),
    "page": lambda docs: sorted(hit.document for hit in docs.page(size=10).hits),
}


class Watch:
    """Notes the requests to a port and what became of them, and lets something happen before the next one."""

    def __init__(self, acl, monkeypatch):
        self.port = acl._stores["main"].port
        self.sent, self.rows, self.before = [], [], None
        self._execute = self.port.execute
        monkeypatch.setattr(self.port, "execute", self.execute)

    def execute(self, request, timeout):
        if self.before is not None:
            before, self.before = self.before, None
            before()
        try:
            reply = self._execute(request, timeout)
        except StoreError as error:
            self.sent.append((request, error.code))
            raise
        self.sent.append((request, None))
        self.rows += [row for rows in reply if isinstance(rows, list) for row in rows]
        return reply


def noted(acl, monkeypatch):
    """Return a list of the questions for versions, which is filled from now on."""
    probes, probe = [], acl.registry.probe

    def ask(tenants):
        probes.append(tenants)
        return probe(tenants)

    monkeypatch.setattr(acl.registry, "probe", ask)
    return probes


def assertions(request):
    return [one for one in request.statements if "vectoracl:rights_changed" in one.sql]


@pytest.mark.parametrize("name", READS)
def test_a_revocation_between_scope_and_statement_returns_no_chunk(acl, governed, monkeypatch, name):
    read, docs = READS[name], acl.scoped(BOB)
    assert len(set(read(docs))) == 3  # the scope is in the cache now
    watch = Watch(acl, monkeypatch)
    with v.connect(governed) as other:

        def revoke():
            other.governance(BOSS).move("d0", "closed")

        probes = noted(acl, monkeypatch)
        watch.before = revoke
        found = read(docs)
    assert "d0" not in found or name in ("count", "facets")
    assert len(set(found)) == 2
    assert watch.sent[0][1] == "rights_changed"  # the first statement has returned nothing
    assert all(assertions(request) for request, _ in watch.sent)
    assert not [row for row in watch.rows if "d0" in row]
    assert len(probes) == 1  # before the second attempt


@pytest.mark.parametrize("name", READS)
def test_a_grant_between_scope_and_statement_is_seen(acl, governed, monkeypatch, name):
    acl.governance(BOSS).move("d0", "closed")
    read, docs = READS[name], acl.scoped(BOB)
    assert len(set(read(docs))) == 2
    watch = Watch(acl, monkeypatch)
    with v.connect(governed) as other:
        watch.before = lambda: other.governance(BOSS).move("d0", "open")
        assert len(set(read(docs))) == 3
    assert watch.sent[0][1] == "rights_changed"


def test_an_assertion_changes_neither_hits_nor_their_order(acl):
    docs = acl.scoped(BOB)
    docs.upsert([Chunk(str(i), f"e{i % 7}", "word " * (i % 5 + 1), [1.0, i / 10, *([0.5] * 6)]) for i in range(40)])
    ways = {
        "nearest": lambda: docs.search(VECTOR, k=12),
        "exact": lambda: docs.search(VECTOR, k=12, exact=True),
        "grouped": lambda: docs.search(VECTOR, k=5, group_by="document", per_group=3),
        "by words": lambda: docs.search(v.Lexical("word"), k=12),
        "hybrid": lambda: docs.search(v.Hybrid("word", VECTOR), k=12, where=F["@document"] != "e3"),
        "page": lambda: docs.page(size=12).hits,
    }

    def all_of_them():
        found = {name: [(hit.document, hit.id, hit.score, hit.text) for hit in ask()] for name, ask in ways.items()}
        return found, docs.count(), docs.facets("lang")

    asserted = all_of_them()
    assert all(len(hits) >= 5 for hits in asserted[0].values())
    acl._stores["main"].asserts = None
    assert all_of_them() == asserted


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["d0", "d1", "d2"]),
            st.sampled_from(["open", "closed", "hold", "release"]),
            st.booleans(),
            st.sampled_from(sorted(READS)),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_change_at_any_moment_is_in_force_at_the_next_read(acl, governed, steps):
    """Each change is made by another process, before the call or between its scope and its first statement."""
    with v.connect(governed) as other, pytest.MonkeyPatch.context() as patch:
        govern, watch, labels, held = other.governance(BOSS), Watch(acl, patch), dict.fromkeys(DOCUMENTS, "open"), set()
        for name in DOCUMENTS:
            govern.move(name, "open")
        for document, what, between, name in steps:

            def change(document=document, what=what):
                if what == "hold" and document not in held:
                    held.add(document)
                    govern.hold(document, f"matter {document}", reason="a test")
                elif what == "release" and document in held:
                    held.discard(document)
                    govern.release(f"matter {document}", reason="a test")
                elif what in ("open", "closed"):
                    labels[document] = what
                    govern.move(document, what)

            if between:
                watch.before = change
            else:
                change()
            found = set(READS[name](acl.scoped(BOB)))
            visible = {one for one in DOCUMENTS if labels[one] == "open" and one not in held}
            if name in ("count", "facets"):
                assert len(found) == len(visible)
            elif name == "like":
                assert found - {"d2"} == (visible - {"d2"} if "d2" in visible else set())
            else:
                assert found == visible
            if watch.before is not None:  # nothing was sent
                watch.before = None
                change()
        for document in sorted(held):
            govern.release(f"matter {document}", reason="a test")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE vectoracl_governed_tenants SET stopped = 'store'",
        "UPDATE vectoracl_governed_tenants SET clock = 253402300799",
        "UPDATE vectoracl_governed_tenants SET version = version - 1",
        "DELETE FROM vectoracl_governed_tenants",
    ],
)
def test_whatever_ends_a_scope_ends_the_statement(acl, store, monkeypatch, change):
    docs = acl.scoped(BOB)
    assert docs.count() == 3
    watch = Watch(acl, monkeypatch)
    with psycopg.connect(store.bootstrap, autocommit=True, options="-c search_path=vectoracl") as connection:
        connection.execute(change)
    with suppress(v.StoppedTenantError, StoreError):
        docs.count()
    assert watch.sent[0][1] == "rights_changed"


def test_the_second_lock_asks_about_what_the_statement_returned(acl, governed, monkeypatch):
    docs = acl.scoped(BOB)
    docs.search(VECTOR)
    confirmed = []
    original = Registry.confirm

    def confirm(registry, asked, scope, hits):
        if not confirmed:
            with v.connect(governed) as other:
                other.governance(BOSS).move("d0", "closed")
        confirmed.append(hits)
        return original(registry, asked, scope, hits)

    monkeypatch.setattr(Registry, "confirm", confirm)
    assert sorted(hit.document for hit in docs.search(VECTOR)) == ["d1", "d2"]
    assert len(confirmed) == 2


def test_async_reads_assert_it_too(acl, governed, monkeypatch):
    async def read():
        async with v.aconnect(governed) as reader:
            docs = reader.scoped(BOB)
            assert len(await docs.search(VECTOR)) == 3
            probes = noted(reader, monkeypatch)
            sent, port = [], reader._stores["main"].aport
            execute = port.execute

            async def changed_before(request, timeout):
                if not sent:
                    await asyncio.to_thread(acl.governance(BOSS).move, "d0", "closed")
                sent.append(bool(assertions(request)))
                return await execute(request, timeout)

            monkeypatch.setattr(port, "execute", changed_before)
            found = sorted([hit.document for hit in await docs.search(VECTOR)])
            return found, tuple(sent), len(probes), await docs.count()

    assert asyncio.run(read()) == (["d1", "d2"], (True, True), 1, 2)


def test_it_is_only_where_both_are_one_database(governed, store, database, tmp_path):
    def asserts(config):
        with v.connect(config) as acl:
            return acl._stores["main"].asserts

    assert asserts(governed) == TABLE
    assert asserts({**governed, "registry": {**governed["registry"], "assert_versions": False}}) is None

    async def opened():
        async with v.aconnect(governed) as acl:
            await acl.open()
            return acl._stores["main"].asserts

    assert asyncio.run(opened()) == TABLE
    with psycopg.connect(store.bootstrap, autocommit=True) as connection:
        connection.execute("REVOKE SELECT (stopped) ON vectoracl.vectoracl_governed_tenants FROM vectoracl_runtime")
        assert asserts(governed) is None
        connection.execute("GRANT SELECT (stopped) ON vectoracl.vectoracl_governed_tenants TO vectoracl_runtime")
        assert asserts(governed) == TABLE
        # A copy of the table in the store's database is not the registry's.
        connection.execute("ALTER TABLE vectoracl.vectoracl_governed_tenants RENAME TO moved")
        connection.execute("CREATE TABLE vectoracl.vectoracl_governed_tenants (LIKE vectoracl.moved)")
        with v.VectorACL(governed) as acl:
            named = acl._named("main")
            copied = acl.witness(named)
            connection.execute("DROP TABLE vectoracl.vectoracl_governed_tenants")
            connection.execute("ALTER TABLE vectoracl.moved RENAME TO vectoracl_governed_tenants")
            assert acl.registry.witness().place != copied.place


def test_a_registry_in_another_database_or_a_file_is_asked_first(provisioned, database, tmp_path, monkeypatch):
    first, second = provisioned(), provisioned()
    for config in (
        {**first.config, "registry": configured(second)["registry"]},
        configured(provisioned(), url=f"sqlite:///{tmp_path / 'registry.db'}", owner_url=None, single_host=True),
    ):
        registry = {key: value for key, value in config["registry"].items() if value is not None}
        config = {**config, "registry": registry}
        provisioned_by(config)
        with v.connect(config) as acl:
            assert acl._stores["main"].asserts is None
            fill(acl)
            acl.scoped(BOB).search(VECTOR)
            watch, probes = Watch(acl, monkeypatch), noted(acl, monkeypatch)
            assert len(acl.scoped(BOB).search(VECTOR)) == 3
            assert len(probes) == 1
            assert not any(assertions(request) for request, _ in watch.sent)


def test_the_runtime_role_sees_the_version_of_its_own_tenant_alone(acl, store):
    acl.governance(principal("boss", "globex", roles=["records"])).define_label("open", entries=[Entry("tenant")])
    read = f"SELECT {', '.join(COLUMNS)} FROM vectoracl.vectoracl_governed_tenants"
    with psycopg.connect(store.runtime, autocommit=True) as connection:
        assert connection.execute(read).fetchall() == []
        with connection.transaction():
            connection.execute("SELECT set_config('vectoracl.tenant', 'globex', true)")
            assert [row[0] for row in connection.execute(read)] == ["globex"]
        for refused in (
            "SELECT parent FROM vectoracl.vectoracl_governed_tenants",
            "UPDATE vectoracl.vectoracl_governed_tenants SET version = 0",
            "SELECT 1 FROM vectoracl.vectoracl_documents",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(refused)
    found = acl.check()["main"].findings
    assert not [one for one in found if one.rule.lowers or one.rule.id in ("PG130", "VA003", "VA004")]


def test_a_parents_partition_asserts_its_own_version(acl, governed, monkeypatch):
    parent = principal("boss", "globex", roles=["records"])
    acl.governance(parent).define_label("open", entries=[Entry("tenant", write=True)], children=True)
    acl.scoped(parent).upsert([Chunk("1", "g", "word", VECTOR)])
    v.hazmat.govern(acl, "acme", reason="a test of families").set_parent("globex")
    docs = acl.scoped(BOB)
    assert len(docs.search(VECTOR)) == 4
    watch = Watch(acl, monkeypatch)
    assert len(docs.search(VECTOR)) == 4
    assert sorted(request.partition for request, _ in watch.sent) == ["acme", "globex"]
    assert all(assertions(request) for request, _ in watch.sent)
    with v.connect(governed) as other:
        watch.before = lambda: other.governance(parent).hold("g", "smith", reason="a hold of the parent's")
        assert sorted(hit.document for hit in docs.search(VECTOR)) == ["d0", "d1", "d2"]


def test_writes_and_several_statements_assert_nothing(acl):
    adapter = acl._stores["main"].store.adapter
    expected = ExpectedVersion(TABLE, "acme", 1, 1.0)
    one = Statement("SELECT 1", ())
    for request in (
        Transaction("acme", (one,), read_only=False),
        Transaction("acme", (one, one)),
        Transaction("globex", (one,)),
    ):
        with pytest.raises(RefusedError):
            adapter.asserted(request, expected)
    assert assertions(adapter.asserted(Transaction("acme", (one,)), expected))


def test_lost_connections_of_the_registry_cost_one_failed_call(acl, store):
    docs = acl.scoped(BOB)
    with acl.registry.database.read("acme"), acl.registry.database.read("acme"):  # two connections in the pool
        assert len(docs.search(VECTOR)) == 3
    with psycopg.connect(store.bootstrap, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = %s AND datname = current_database()",
            (REGISTRY_ROLE,),
        )
    with pytest.raises(StoreError) as error:
        docs.search(VECTOR)
    assert (error.value.code, error.value.sent) == ("registry", "no")
    assert len(docs.search(VECTOR)) == 3


def answers(proxy):
    """Return the number of answers to Sync that the server sent: one for each exchange."""
    number = 0
    for link in proxy.links:
        data, at = bytes(link.sent["server"]), 0
        while data[at : at + 1] == b"N" and data[at + 1 : at + 2] in (b"N", b"R"):  # no encryption
            at += 1
        while at + 5 <= len(data):
            number += data[at : at + 1] == b"Z"
            at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
    return number


def test_a_read_takes_one_exchange_with_the_store_and_one_with_the_registry(governed, store, server):
    name = psycopg.conninfo.conninfo_to_dict(store.runtime)["dbname"]
    with Proxy(server.host, server.port) as to_store, Proxy(server.host, server.port) as to_registry:
        dsn = to_store.dsn(server.dsn("runtime", name, tcp=True))
        url = re.sub(r"@/([^?]*)\?.*", rf"@{to_registry.host}:{to_registry.port}/\1", governed["registry"]["url"])
        main = {**governed["stores"]["main"], "dsn": dsn, "pool_min": 1, "pool_max": 1}
        config = {**governed, "stores": {"main": main}, "registry": {**governed["registry"], "url": url}}
        with v.connect(config) as acl:
            fill(acl)
            docs = acl.scoped(BOB)
            for _ in range(3):
                docs.search(VECTOR)
                docs.fetch(["0"])
            before = answers(to_store), answers(to_registry)
            for _ in range(5):
                docs.search(VECTOR)
                docs.fetch(["0"])
            assert (answers(to_store) - before[0], answers(to_registry) - before[1]) == (10, 10)
            monkey = acl._stores["main"]
            monkey.asserts = None
            before = answers(to_store), answers(to_registry)
            for _ in range(5):
                docs.search(VECTOR)
                docs.fetch(["0"])
            assert (answers(to_store) - before[0], answers(to_registry) - before[1]) == (10, 20)
