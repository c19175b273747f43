"""The tables of a registry in the store's own PostgreSQL, under forced row-level security."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from alembic.runtime.environment import EnvironmentContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, ConfigError, Entry, PostureError, hazmat
from vectoracl.adapter_api.postgres_roles import STRONG_PREDEFINED
from vectoracl.client.registry_setup import provision_registry
from vectoracl.registry import exporting, reading, row_security
from vectoracl.registry import tables as t
from vectoracl.registry.migrate import head, script
from vectoracl.registry.posix import PosixFiles
from vectoracl.registry.sql_registry import Registry
from vectoracl.testing import principal

from pgvector_support.clusters import binaries, start_cluster, stop_cluster
from pgvector_support.stores import REGISTRY_ROLE, registry_urls

BOSS = {name: principal("boss", name, roles=["records"]) for name in ("acme", "globex")}
TABLES = sorted(one.name for one in row_security.PROTECTED)


@pytest.fixture
def governed(store):
    registry = {
        **registry_urls(store),
        "default_label": "open",
        "governors": {"role": "records"},
        "max_read_seconds": 0,
    }
    config = {**store.config, "registry": registry}
    with v.VectorACL(config) as setting_up:
        provision_registry(setting_up, ["main"])
    return config


def fill(acl):
    """Leave at least one row of each tenant in several tables."""
    for name, boss in BOSS.items():
        govern = acl.governance(boss)
        govern.define_label("open", entries=[Entry("tenant", write=True)])
        acl.scoped(boss).upsert([Chunk("1", f"{name}-doc", "a word", [1.0] * 8)])
        govern.hold(f"{name}-doc", "smith", reason="a test of rows")


@pytest.fixture
def acl(governed):
    with v.connect(governed) as acl:
        fill(acl)
        yield acl


def as_role(store):
    """Connect as the role that serves the registry, past the library."""
    dsn = re.sub("//[^@]*@", f"//{REGISTRY_ROLE}:{REGISTRY_ROLE}@", store.runtime)
    return psycopg.connect(dsn, options="-c search_path=vectoracl", autocommit=True)


def name_tenants(connection, tenants):
    text = row_security.array_literal(tenants)
    connection.execute("SELECT set_config(%s, %s, true)", (row_security.SETTING, text))


def counts(connection, tenants=None):
    """Return how many rows of each tenant the connection sees, over all tables."""
    found = {}
    with connection.transaction():
        if tenants is not None:
            name_tenants(connection, tenants)
        for name in TABLES:
            for tenant, number in connection.execute(f"SELECT tenant, count(*) FROM {name} GROUP BY tenant"):
                found.setdefault(tenant, {})[name] = number
    return found


def test_a_row_is_visible_only_where_its_tenant_is_named(acl, store):
    with as_role(store) as connection:
        assert counts(connection) == {}
        both = counts(connection, ["acme", "globex"])
        assert set(both) == {"acme", "globex"}
        assert {"vectoracl_documents", "vectoracl_holds", "vectoracl_history"} <= set(both["globex"])
        assert counts(connection, ["acme"]) == {"acme": both["acme"]}
        assert counts(connection) == {}  # the setting ended with its transaction
        assert counts(connection, []) == {}
        assert counts(connection, ["", "{acme}", "acme,globex", "ACME"]) == {}


def test_no_row_of_another_tenant_is_written(acl, store):
    with as_role(store) as connection:
        written = counts(connection, ["acme"])["acme"]
        for name in TABLES:
            for sql in (f"UPDATE {name} SET tenant = tenant", f"DELETE FROM {name}"):
                with connection.transaction():
                    name_tenants(connection, ["acme"])
                    assert connection.execute(f"{sql} WHERE tenant = 'globex'").rowcount == 0
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(f"TRUNCATE {name}")
            if name in written:
                with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                    name_tenants(connection, ["acme"])
                    connection.execute(f"UPDATE {name} SET tenant = 'globex'")


def changed(acl, **given):
    one = acl.config.registry
    urls = {"url": one.url.reveal(acl._base), "owner_url": one.owner_url.reveal(acl._base)}
    return {**urls, "settings": acl.registry.settings, **given}


def test_the_owner_lists_the_tenants_and_reads_no_more(acl, store):
    listed = {"vectoracl_governed_tenants": 1}
    with psycopg.connect(store.owner, options="-c search_path=vectoracl", autocommit=True) as connection:
        assert counts(connection) == {"acme": listed, "globex": listed}
        assert connection.execute("UPDATE vectoracl_governed_tenants SET version = version + 1").rowcount == 0
    assert acl.registry.tenants() == ["acme", "globex"]
    serving = Registry(**changed(acl, owner_url=None))
    try:
        with serving.database.read("acme") as connection:
            assert connection.execute(sa.select(t.tenants.c.tenant)).scalars().all() == ["acme"]
        with pytest.raises(ConfigError, match="owner_url"):
            serving.tenants()
    finally:
        serving.close()


def second(database, governed):
    """Return the URLs of another, empty database."""
    other = database()
    with psycopg.connect(other.bootstrap, autocommit=True) as connection:
        connection.execute(f'GRANT CONNECT ON DATABASE "{other.name}" TO {REGISTRY_ROLE}')
    old = psycopg.conninfo.conninfo_to_dict(governed["registry"]["owner_url"].replace("+psycopg", ""))["dbname"]
    return other, {key: governed["registry"][key].replace(old, other.name) for key in ("url", "owner_url")}


def test_families_and_exports_name_their_tenants(acl, governed, database):
    shown = hazmat.govern(acl, "globex", reason="a test of rows")
    shown.define_label("open", entries=[Entry("tenant", write=True)], children=True)
    for tenant in BOSS:
        hazmat.govern(acl, tenant, reason="a test of rows").release("smith", reason="a test of rows")
    assert [hit.document for hit in acl.scoped(BOSS["acme"]).search([1.0] * 8)] == ["acme-doc"]
    hazmat.govern(acl, "acme", reason="a test of rows").set_parent("globex")
    assert {hit.document for hit in acl.scoped(BOSS["acme"]).search([1.0] * 8)} == {"acme-doc", "globex-doc"}
    with pytest.raises(v.RefusedError, match="below itself"):
        hazmat.govern(acl, "globex", reason="a test of rows").set_parent("acme")
    lines = list(exporting.lines(acl.registry))
    _, urls = second(database, governed)
    copied = Registry(**changed(acl, **urls))
    try:
        copied.create()
        copied.check_protected()
        assert exporting.load(copied, lines) == len(lines) - 2
        assert copied.tenants() == ["acme", "globex"]
        assert [one.document for one in copied.list_documents("globex")] == ["globex-doc"]
        assert copied.probe(("acme",)).versions == acl.registry.probe(("acme",)).versions
    finally:
        copied.close()


def test_what_a_source_has_said_is_read_from_the_rows_of_the_tenant(governed, tmp_path):
    """Without its records the rights of a file that is not there any more would not end."""
    (tmp_path / "docs").mkdir()
    for name in ("a.md", "b.md"):
        (tmp_path / "docs" / name).write_text("x")
    given = {**governed, "registry": {**governed["registry"], "sources": {"files": {"max_age_seconds": 60}}}}
    files = PosixFiles(tmp_path / "docs", writers=["role:records"])
    with v.connect(given) as acl:
        for name, boss in BOSS.items():
            govern = acl.governance(boss)
            govern.apply_access(files.records(govern.access_records("files")), source="files")
            assert {one.document for one in govern.access_records("files")} >= {"docs/a.md", "docs/b.md"}, name
        (tmp_path / "docs" / "a.md").unlink()
        govern.apply_access(files.records(govern.access_records("files")), source="files")
        assert files.ended == 1


LENIENT = f"(tenant = ANY ((SELECT current_setting('{row_security.SETTING}', true) AS named)::text[]))"


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ("ALTER TABLE vectoracl_documents NO FORCE ROW LEVEL SECURITY", "VA004 vectoracl.vectoracl_documents"),
        ("ALTER TABLE vectoracl_overlay DISABLE ROW LEVEL SECURITY", "VA004 vectoracl.vectoracl_overlay"),
        ("DROP POLICY vectoracl_registry_bounds ON vectoracl_grants", "VA004 vectoracl.vectoracl_grants"),
        ("CREATE POLICY mine ON vectoracl_holds USING (true)", "VA004 vectoracl.vectoracl_holds"),
        ("ALTER POLICY vectoracl_registry_bounds ON vectoracl_labels USING (true)", "VA004 vectoracl.vectoracl_labels"),
        (
            "ALTER POLICY vectoracl_registry_bounds ON vectoracl_labels TO vectoracl_owner",
            "VA004 vectoracl.vectoracl_labels",
        ),
        (
            "ALTER POLICY vectoracl_registry_permits ON vectoracl_quarantine TO vectoracl_owner",
            "VA004 vectoracl.vectoracl_quarantine",
        ),
        (
            f"ALTER POLICY vectoracl_registry_permits ON vectoracl_holds TO {REGISTRY_ROLE}",
            "VA004 vectoracl.vectoracl_holds",
        ),
        (
            "ALTER POLICY vectoracl_registry_permits ON vectoracl_marks TO vectoracl_owner, "
            f"{REGISTRY_ROLE}, vectoracl_runtime",
            "VA004 vectoracl.vectoracl_marks",
        ),
        (
            f"ALTER POLICY vectoracl_registry_lists ON vectoracl_governed_tenants TO {REGISTRY_ROLE}",
            "VA004 vectoracl.vectoracl_governed_tenants",
        ),
        (
            f"ALTER POLICY vectoracl_registry_permits ON vectoracl_labels USING {LENIENT}",
            "VA004 vectoracl.vectoracl_labels",
        ),
        ("CREATE RULE mine AS ON DELETE TO vectoracl_holds DO INSTEAD NOTHING", "VA004 vectoracl.vectoracl_holds"),
        ("CREATE TABLE mine () INHERITS (vectoracl_holds)", "VA004 vectoracl.vectoracl_holds"),
        (
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
            "CREATE TRIGGER mine BEFORE INSERT ON vectoracl_quarantine FOR EACH ROW EXECUTE FUNCTION nothing()",
            "VA004 vectoracl.vectoracl_quarantine",
        ),
        (f"GRANT TRIGGER ON vectoracl_holds TO {REGISTRY_ROLE}", "VA004 vectoracl.vectoracl_holds"),
        ("GRANT UPDATE ON vectoracl_meta TO PUBLIC", "VA004 vectoracl.vectoracl_meta"),
        (f"GRANT CREATE ON SCHEMA vectoracl TO {REGISTRY_ROLE}", "VA004 vectoracl"),
        (f"ALTER SCHEMA vectoracl OWNER TO {REGISTRY_ROLE}", "VA004 vectoracl"),
        (f"GRANT TRUNCATE ON vectoracl_history TO {REGISTRY_ROLE}", "VA004 vectoracl.vectoracl_history"),
        (f"ALTER DATABASE {{database}} SET {row_security.SETTING} = 'acme'", "VA004 the session"),
        (f"ALTER TABLE vectoracl_marks OWNER TO {REGISTRY_ROLE}", f"VA003 {REGISTRY_ROLE}"),
    ],
)
def test_what_is_taken_from_the_tables_is_found_and_refused(governed, store, sql, rule):
    name = psycopg.conninfo.conninfo_to_dict(store.owner)["dbname"]
    with psycopg.connect(store.bootstrap, autocommit=True, options="-c search_path=vectoracl") as connection:
        connection.execute(sql.format(database=f'"{name}"'))
    with pytest.raises(PostureError) as error:
        v.connect(governed)
    assert rule in [f"{one.rule.id} {one.subject}" for one in error.value.findings]
    with v.VectorACL(governed) as acl:
        assert set(error.value.findings) <= set(acl.check()["main"].findings)

    async def checked():
        async with v.AsyncVectorACL(governed) as acl:
            return await acl.check()

    assert set(error.value.findings) <= set(asyncio.run(checked())["main"].findings)


def test_a_check_that_cannot_reach_the_tables_is_not_clean(governed, store):
    def clean(**changed):
        try:
            with v.VectorACL({**governed, "registry": {**governed["registry"], **changed}}) as acl:
                return not [one for one in acl.check()["main"].findings if one.rule.id == "VA004"]
        except v.StoreError as error:
            return error.code != "registry"

    assert clean()
    assert not clean(schema="none")
    assert not clean(url=re.sub(":[0-9]+/", ":1/", governed["registry"]["url"]).replace("host=", "host=/none"))


@pytest.mark.parametrize("sql", ["DROP POLICY vectoracl_registry_lists ON {}", "ALTER TABLE {} OWNER TO CURRENT_USER"])
def test_a_list_that_may_lack_tenants_is_refused(acl, store, sql):
    with psycopg.connect(store.bootstrap, autocommit=True, options="-c search_path=vectoracl") as connection:
        connection.execute(sql.format("vectoracl_governed_tenants"))
    boss = hazmat.govern(acl, "acme", reason="a test of rows")
    for listing in (
        acl.registry.tenants,
        lambda: list(exporting.lines(acl.registry)),
        lambda: exporting.load(acl.registry, exporting_head(acl)),
    ):
        with pytest.raises(PostureError, match="may not see every tenant"):
            listing()
    with pytest.raises((PostureError, v.StoreError)):  # who does not own the tables may not even lock the tenant
        boss.set_parent("globex")


def exporting_head(acl):
    yield json.dumps({"vectoracl_registry": 1, "tables": head(acl.registry.database), "id": "0" * 32})
    yield json.dumps({"rows": 0})


def test_a_connection_that_reaches_other_tables_is_refused(acl, governed, store):
    """As behind a pooler that leaves out the options of a connection."""
    with psycopg.connect(store.bootstrap, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.vectoracl_quarantine (LIKE vectoracl.vectoracl_quarantine)")
    engine = sa.create_engine(governed["registry"]["url"])
    with engine.connect() as connection:
        found = row_security.deviations(connection, "vectoracl")
    engine.dispose()
    assert ("VA004", "vectoracl.vectoracl_quarantine") in [(one.rule.id, one.subject) for one in found]
    with v.connect(governed):
        pass  # with its search_path it reaches its tables


def test_a_migration_changes_rows_of_every_tenant(acl, store, monkeypatch):
    """Row-level security, which is forced, would hide them from it without a word."""

    def changing(context):
        context.execute(sa.text("UPDATE vectoracl_holds SET reason = 'migrated'"))

    run = EnvironmentContext.run_migrations
    monkeypatch.setattr(
        EnvironmentContext, "run_migrations", lambda self, **given: (run(self, **given), changing(self))
    )
    acl.registry.create()
    for tenant in BOSS:
        with acl.registry.database.read(tenant) as connection:
            assert connection.execute(sa.select(t.holds.c.reason)).scalars().all() == ["migrated"]
    with v.VectorACL(acl.config) as again:
        again.registry.check_protected()


def test_provision_mends_the_tables_and_prints_how(governed, store):
    with psycopg.connect(store.owner, autocommit=True, options="-c search_path=vectoracl") as connection:
        connection.execute("ALTER TABLE vectoracl_documents NO FORCE ROW LEVEL SECURITY")
        connection.execute("DROP POLICY vectoracl_registry_bounds ON vectoracl_grants")
    with v.VectorACL(governed) as acl:
        provision_registry(acl, ["main"])
        printed = script(acl.registry.database)
    for name in TABLES:
        assert f'ALTER TABLE "vectoracl".{name} FORCE ROW LEVEL SECURITY' in printed
    with v.connect(governed) as acl:
        fill(acl)


def test_the_printed_script_makes_what_provision_makes(acl, governed, database):
    other, urls = second(database, governed)
    with psycopg.connect(other.owner, autocommit=True) as connection:
        connection.execute(script(acl.registry.database))
    one = Registry(**changed(acl, **urls))
    try:
        one.check_protected()
        assert one.create() == ["the registry's tables have version 0002 already"]
    finally:
        one.close()


@pytest.mark.parametrize("role", ["owner", "bootstrap"])
def test_a_role_that_could_get_around_it_serves_no_registry(governed, store, role):
    url = getattr(store, role).replace("postgresql://", "postgresql+psycopg://", 1)
    with pytest.raises(PostureError, match="VA003"):
        v.connect({**governed, "registry": {**governed["registry"], "url": url}})
    same = {**governed["registry"], "url": governed["registry"]["owner_url"]}
    with v.VectorACL({**governed, "registry": same}) as acl, pytest.raises(ConfigError, match="not the same one"):
        acl.registry.create()


POWERS = ["CREATEROLE", "REPLICATION", *(f"IN ROLE {one}" for one in sorted(STRONG_PREDEFINED) if one[:3] == "pg_")]


def test_a_role_that_can_become_exempt_is_found(governed, store):
    """Each in a transaction that is rolled back: roles belong to the whole server."""
    engine = sa.create_engine(store.bootstrap.replace("postgresql://", "postgresql+psycopg://", 1))
    for power in POWERS:
        for role in ("mighty", "member"):
            with engine.connect() as connection:
                for sql in (
                    f"CREATE ROLE mighty {power}",
                    "CREATE ROLE member NOINHERIT",
                    "GRANT mighty TO member",
                    f"SET LOCAL SESSION AUTHORIZATION {role}",
                ):
                    connection.exec_driver_sql(sql)
                found = row_security.deviations(connection, "vectoracl")
                expected = power.removeprefix("IN ROLE ") if power.startswith("IN") else "mighty"
                assert ("VA003", expected) in [(one.rule.id, one.subject) for one in found], (power, role)
                connection.rollback()
    engine.dispose()


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_a_list_of_any_names_is_read_as_itself(names):
    """PostgreSQL's array syntax by its definition: elements in quotes, in which a backslash takes the next as it is."""
    text = row_security.array_literal(names)
    elements = re.findall(r'"((?:[^"\\]|\\.)*)"(?:,|$)', text[1:-1], re.S)
    assert text == "{" + ",".join(f'"{one}"' for one in elements) + "}"
    assert [re.sub(r"\\(.)", r"\1", one, flags=re.S) for one in elements] == list(dict.fromkeys(names))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), max_size=6))
def test_the_short_read_returns_what_the_tables_say(acl, names):
    """It writes values into its one message, so they are quoted there."""
    names = [one for one in dict.fromkeys(names) if len(one.encode()) <= 200]
    registry = acl.registry
    if names:
        registry.classify("acme", names, "open", "me", "a test", create=True)
    asked = [(tenant, one) for one in [*names, "acme-doc", "globex-doc"] for tenant in ("acme", "globex")]
    probe, states = registry._short.read(("acme", "globex", "none"), asked)
    with registry.database.read("acme", "globex", "none") as connection:
        expected = reading.probe(connection, ("acme", "globex", "none"), 0.0)
        assert states == reading.document_states(connection, asked)
    assert len(states) >= len(names) + 2
    assert (probe.versions, probe.stopped) == (expected.versions, expected.stopped)
    assert probe.now >= expected.now
    again, none = registry._short.read(("acme",))
    assert (again.versions, none) == ({"acme": probe.versions["acme"]}, {})


def test_unusual_names_are_named_exactly(acl, store):
    names = ['a"b', "a\\b", "{a}", "a,b", "NULL", " a ", "é", "a'b", "a\nb"]
    with as_role(store) as connection, connection.transaction():
        name_tenants(connection, names)
        row = connection.execute(f"SELECT current_setting('{row_security.SETTING}')::text[]").fetchone()
    assert row == (names,)


@pytest.mark.parametrize("major", [15, 16])
def test_every_version_prints_the_conditions_as_expected(major):
    programs = binaries(major)
    if programs is None:
        pytest.skip(f"PostgreSQL {major} is not installed")
    folder = Path(tempfile.mkdtemp())
    _, dsn = start_cluster(folder, programs)
    owners = ["vectoracl_owner", "o'w", "o\\w", "ö:w", "o%w"]
    try:
        with psycopg.connect(f"{dsn} user=boss dbname=postgres", autocommit=True) as connection:
            connection.execute("CREATE TABLE one (tenant text)")
            for owner in owners:
                for policy in row_security._policies(t.tenants, owner):
                    connection.execute(f"CREATE POLICY mine ON one USING ({policy.using.sql})".encode())
                    printed = connection.execute("SELECT pg_get_expr(polqual, polrelid) FROM pg_policy").fetchone()
                    connection.execute("DROP POLICY mine ON one")
                    assert printed == (policy.using.printed,)
    finally:
        stop_cluster(folder, programs)


def test_a_store_is_not_opened_as_one_without_a_registry_while_that_does_not_answer(governed):
    """It would stay so when the registry is back."""
    gone = re.sub(":[0-9]+/", ":1/", governed["registry"]["url"]).replace("host=", "host=/none")
    with v.VectorACL({**governed, "registry": {**governed["registry"], "url": gone}}) as acl:
        with pytest.raises(v.StoreError) as error:
            acl.scoped(BOSS["acme"]).search([1.0] * 8)
        assert (error.value.code, acl._stores) == ("registry", {})
