"""`vectoracl check` on databases that vectoracl never made: what it says, and the script that it prints, run."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from vectoracl.adapter_api.posture import Posture
from vectoracl.cli.posture_report import Report, render_script
from vectoracl.errors import RefusedError
from vectoracl_pgvector.embedded.server import EmbeddedServer
from vectoracl_pgvector.posture.inspect import inspect

from pgvector_support import layouts
from pgvector_support.layouts import Layout

pytestmark = pytest.mark.server
VERSIONS = {"PG090", "PG091", "PG092"}
SETTING = "vectoracl.tenant"
_numbers = itertools.count(1)


@dataclass
class Foreign:
    """A database that somebody else made, and its application's role."""

    server: EmbeddedServer
    name: str
    app: str

    def dsn(self, user: str | None = None, password: str = "x") -> str:
        known = psycopg.conninfo.conninfo_to_dict(self.server.dsn("bootstrap", self.name))
        if user is not None:
            known |= {"user": user, "password": password}
        return psycopg.conninfo.make_conninfo(**known)

    def connect(self, user: str | None = None, *, autocommit: bool = True) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(user), autocommit=autocommit)

    def run(self, sql: str, user: str | None = None) -> None:
        with self.connect(user) as connection:
            connection.execute(sql.encode())

    def check(
        self, tenant: str | None = None, *, user: str | None = None, role: str | None = None
    ) -> dict[str, Posture]:
        return dict(inspect(self.dsn(user or self.app), None, role, tenant))

    def make(self, layout: Layout, rows: int = 3) -> None:
        """Create the tables, as the application where it does that itself, and some rows of each tenant."""
        self.run(layout.tables.format(app=self.app), self.app if layout.as_app else None)
        with self.connect() as boss:
            for tenant in layout.tenants * rows if layout.tenant else ():
                boss.execute(layout.insert, {"t": tenant})


@pytest.fixture
def foreign(server: EmbeddedServer) -> Iterator[Callable[..., Foreign]]:
    made: list[tuple[str, list[str]]] = []

    def make(options: str = "", database: str = "") -> Foreign:
        number = f"{next(_numbers)}_{secrets.token_hex(3)}"
        name, app = f"f_{number}", f"app_{number}"
        with psycopg.connect(server.dsn("bootstrap", "postgres"), autocommit=True) as boss:
            boss.execute(f"CREATE ROLE {app} LOGIN PASSWORD 'x' {options}".encode())
            boss.execute(f"CREATE DATABASE {name} {database}".format(app=app).encode())
        one = Foreign(server, name, app)
        made.append((name, [app]))
        one.run(
            f"CREATE EXTENSION vector SCHEMA public; GRANT CREATE ON SCHEMA public TO {app}; "
            f"REVOKE TEMP ON DATABASE {name} FROM PUBLIC"
        )
        return one

    yield make
    with psycopg.connect(server.dsn("bootstrap", "postgres"), autocommit=True) as boss:
        for name, roles in made:
            boss.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            for role in (*roles, f"{name}_owner", f"{name}_app"):
                boss.execute(f"DROP ROLE IF EXISTS {role}".encode())


def ids(posture: Posture, *severities: str) -> set[str]:
    return {f.rule.id for f in posture.findings if not severities or f.rule.severity in severities} - VERSIONS


def script_of(found: dict[str, Posture]) -> str:
    return render_script(Report.of(found))


@contextmanager
def acting(connection: psycopg.Connection[Any], tenant: str | None) -> Iterator[psycopg.Connection[Any]]:
    with connection.transaction(force_rollback=True):
        if tenant is not None:
            connection.execute("SELECT set_config(%s, %s, true)", (SETTING, tenant))
        yield connection


def isolated(base: Foreign, layout: Layout, user: str) -> None:
    """The application reads and writes its own rows under its scope, nothing without one, and nobody else's."""
    with base.connect(user) as app:
        for tenant in layout.tenants:
            (other,) = set(layout.tenants) - {tenant}
            with acting(app, tenant):
                assert app.execute(layout.read).fetchall() == [(tenant,)]
                app.execute(layout.insert, {"t": tenant})
                with pytest.raises(psycopg.errors.InsufficientPrivilege), app.transaction():
                    app.execute(layout.insert, {"t": other})
                if layout.change:
                    value = f'"{other}"' if "{{" in layout.change else other
                    with pytest.raises(psycopg.errors.InsufficientPrivilege), app.transaction():
                        app.execute(layout.change.replace("{{", "{").replace("}}", "}"), {"t": value})
        with acting(app, None):
            assert app.execute(layout.read).fetchall() == []
            with pytest.raises(psycopg.errors.InsufficientPrivilege), app.transaction():
                app.execute(layout.insert, {"t": layout.tenants[0]})
        with acting(app, ""):
            assert app.execute(layout.read).fetchall() == []


@pytest.mark.parametrize("layout", layouts.ALL, ids=lambda layout: layout.name)
def test_the_printed_script_secures_a_real_layout(foreign: Callable[..., Foreign], layout: Layout) -> None:
    base = foreign()
    base.make(layout)
    before = base.check(layout.tenant)
    assert before[layout.table].grade == "none"
    with base.connect(base.app) as app:
        seen = app.execute(layout.read).fetchall()
        assert len(seen) == 2  # the application reads everybody's rows
    script = script_of({layout.table: before[layout.table]})
    with base.connect() as boss:
        objects = boss.execute(_OBJECTS).fetchall()
        boss.execute(script.encode())
        assert set(objects) <= set(boss.execute(_OBJECTS).fetchall())  # no key, index or column is dropped
    after = base.check(layout.tenant)[layout.table]
    assert ids(after, "error", "warning") <= layout.left, script
    for rule in ids(after):
        assert rule in script or rule in _BY_DESIGN, (rule, script)
    isolated(base, layout, base.app)
    for finding in after.findings:
        if finding.rule.id == "PG100":  # another table of the tenants', of which the script only speaks
            base.run(finding.fix)
    after = base.check(layout.tenant)[layout.table]
    assert after.grade == "engine", (after.findings, script)
    isolated(base, layout, base.app)
    again = script_of({layout.table: after})
    base.run(again)  # it can be run again
    isolated(base, layout, base.app)


_BY_DESIGN = {"PG039", "PG106"}
_OBJECTS = """SELECT 'constraint', conname::text, conrelid::text FROM pg_constraint WHERE connamespace >= 16384
    OR connamespace = 'public'::regnamespace
    UNION ALL SELECT 'index', indexrelid::regclass::text, indrelid::text FROM pg_index WHERE indexrelid >= 16384
    UNION ALL SELECT 'column', attname::text, attrelid::text FROM pg_attribute JOIN pg_class ON attrelid = pg_class.oid
     WHERE attnum > 0 AND attrelid >= 16384 AND relkind IN ('r', 'p', 'v')"""


def test_rows_without_a_tenant_stop_the_script_before_it_changes_anything(foreign: Callable[..., Foreign]) -> None:
    for layout, orphan in (
        (layouts.LANGCHAIN, "INSERT INTO langchain_pg_embedding (id, cmetadata) VALUES ('o', '{}'), ('p', NULL)"),
        (layouts.PLAIN, "INSERT INTO chunks (tenant_id) VALUES (NULL), ('')"),
        (layouts.PARTITIONED, None),
    ):
        base = foreign()
        base.make(layout)
        if orphan is None:
            continue
        base.run(orphan)
        script = script_of(base.check(layout.tenant))
        with base.connect() as boss:
            before = boss.execute(_STATE).fetchall()
            with pytest.raises(
                psycopg.errors.RaiseException, match=f"2 rows of {layout.table} have no tenant"
            ) as caught:
                boss.execute(script.encode())
            boss.execute("ROLLBACK")
            assert boss.execute(_STATE).fetchall() == before
            query = str(caught.value).split("Look at them: ")[1].split(";")[0]
            assert len(boss.execute(query.encode()).fetchall()) == 2  # the statement that it names shows them
            boss.execute(query.replace("SELECT *", "DELETE").encode())
            boss.execute(script.encode())
        isolated(base, layout, base.app)


_STATE = """SELECT relname, relowner, relrowsecurity, relforcerowsecurity, relacl::text, (SELECT count(*) FROM pg_policy
    WHERE polrelid = pg_class.oid), (SELECT count(*) FROM pg_constraint WHERE conrelid = pg_class.oid)
    FROM pg_class WHERE oid >= 16384 ORDER BY oid"""


def test_a_table_without_a_tenant_gets_a_column_that_is_filled_first(foreign: Callable[..., Foreign]) -> None:
    base, layout = foreign(), layouts.NO_TENANT
    base.make(layout)
    base.run("INSERT INTO notes (body) VALUES ('old')", base.app)
    found = base.check()
    assert "PG060" in ids(found[layout.table])
    script = script_of(found)
    with base.connect() as boss:
        with pytest.raises(psycopg.errors.RaiseException, match="1 rows of public"):
            boss.execute(script.encode())
        boss.execute("ROLLBACK; UPDATE notes SET tenant_id = 'acme'")
        boss.execute(script_of(base.check("tenant_id")).encode())
        for tenant in layout.tenants:
            boss.execute(layout.insert, {"t": tenant})
    isolated(base, layout, base.app)
    with base.connect(base.app) as app, acting(app, "beta"):
        app.execute("INSERT INTO notes (body) VALUES ('new')")  # names no tenant: it is the scope's
        assert app.execute("SELECT DISTINCT tenant_id FROM notes").fetchall() == [("beta",)]
    assert base.check("tenant_id")[layout.table].grade == "engine"


def test_an_application_that_owns_its_database_hands_it_over(foreign: Callable[..., Foreign]) -> None:
    base, layout = foreign(), layouts.LANGCHAIN
    base.run(f"ALTER DATABASE {base.name} OWNER TO {base.app}")
    base.make(layout)
    before = base.check(layout.tenant)
    assert "PG081" in ids(before[layout.table])
    base.run(script_of(before))
    after = base.check(layout.tenant)[layout.table]
    assert (after.grade, ids(after, "error", "warning")) == ("engine", set())
    isolated(base, layout, base.app)
    with base.connect(base.app) as app, pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("DROP TABLE langchain_pg_embedding")


@pytest.mark.parametrize("options", ["SUPERUSER", "BYPASSRLS", "SUPERUSER REPLICATION"])
def test_an_application_that_is_too_strong_keeps_its_role(foreign: Callable[..., Foreign], options: str) -> None:
    base, layout = foreign(options), layouts.MEM0
    base.make(layout)
    before = base.check(layout.tenant)
    base.run(script_of(before))
    after = base.check(layout.tenant)[layout.table]
    assert (after.grade, ids(after, "error", "warning")) == ("engine", set())
    isolated(base, layout, base.app)


def test_an_administrator_is_left_alone_and_the_application_gets_a_role(foreign: Callable[..., Foreign]) -> None:
    """A server like RDS: the master user is no superuser, makes roles, and the application connects as it."""
    base, layout = foreign("CREATEROLE CREATEDB"), layouts.DJANGO
    with base.connect() as boss:
        boss.execute(f"ALTER DATABASE {base.name} OWNER TO {base.app}".encode())
    base.make(layout)
    script = script_of(base.check(layout.tenant))
    base.run(script, base.app)  # the master user itself runs it
    web = f"{base.name}_app"
    base.run(f"ALTER ROLE {web} PASSWORD 'x'", base.app)
    after = base.check(layout.tenant, user=web)[layout.table]
    assert (after.grade, ids(after, "error", "warning")) == ("engine", set()), script
    isolated(base, layout, web)


def test_a_master_user_secures_a_table_that_its_application_owns(foreign: Callable[..., Foreign]) -> None:
    master, layout = foreign("CREATEROLE CREATEDB"), layouts.LANGCHAIN
    app = master.app + "_web"
    with master.connect() as boss:
        boss.execute(
            f"ALTER DATABASE {master.name} OWNER TO {master.app}; ALTER SCHEMA public OWNER TO {master.app}".encode()
        )
    master.run(f"CREATE ROLE {app} LOGIN PASSWORD 'x'; GRANT CREATE, USAGE ON SCHEMA public TO {app}", master.app)
    base = Foreign(master.server, master.name, app)
    try:
        base.make(layout)
        script = script_of(base.check(layout.tenant))
        base.run(script, master.app)
        after = base.check(layout.tenant)[layout.table]
        assert (after.grade, ids(after, "error", "warning")) == ("engine", set()), script
        isolated(base, layout, app)
    finally:
        with master.connect() as boss:
            boss.execute(f"DROP OWNED BY {app} CASCADE; DROP ROLE {app}".encode())


def test_names_with_quotes_and_dollars_stay_names(foreign: Callable[..., Foreign]) -> None:
    base = foreign()
    odd = "we\"ird$do$ 'x; --"
    sql = '"' + odd.replace('"', '""') + '"'
    layout = Layout(
        "odd",
        f"CREATE TABLE public.{sql} (id bigserial PRIMARY KEY, {sql} text, embedding vector(3))",
        f"public.{odd}",
        odd,
        f"INSERT INTO public.{sql} ({sql}) VALUES (%(t)s::text)",
        f"SELECT DISTINCT {sql} FROM public.{sql}",
    )
    base.make(layout)
    base.run(script_of(base.check(odd)))
    assert base.check(odd)[f"public.{odd}"].grade == "engine"
    isolated(base, layout, base.app)


# --- guesses


@pytest.mark.parametrize("layout", layouts.ALL, ids=lambda layout: layout.name)
def test_a_guess_is_said_and_proves_nothing(foreign: Callable[..., Foreign], layout: Layout) -> None:
    base = foreign()
    base.make(layout)
    guessed = base.check()[layout.table]
    assert "PG111" in ids(guessed)
    assert "a guess" in dict(guessed.facts)["tenant column"]
    base.run(script_of(base.check(layout.tenant)))
    if "PG100" in layout.left:
        base.run(next(f.fix for f in base.check(layout.tenant)[layout.table].findings if f.rule.id == "PG100"))
    guessed = base.check()[layout.table]  # the constraint and the policies name a JSON key
    assert dict(guessed.facts)["tenant column"].startswith(layout.tenant + " (a guess")
    assert guessed.grade == "none"
    assert ids(guessed, "error", "warning") - layout.left == {"PG111"}
    assert "a guess" in script_of(base.check())
    said = base.check(layout.tenant)[layout.table]
    assert "PG111" not in ids(said)
    assert "guess" not in dict(said.facts)["tenant column"]
    assert said.grade == "engine"


def test_what_is_the_same_everywhere_is_told_once(foreign: Callable[..., Foreign]) -> None:
    base = foreign("BYPASSRLS")
    for layout in (layouts.LANGCHAIN, layouts.MEM0, layouts.DJANGO):
        base.make(layout)
    report = Report.of(base.check())
    common = {finding.rule.id for finding, names in report.common if len(names) == 3}
    assert "PG002" in common
    assert all("PG002" not in {f.rule.id for f in findings} for findings in report.own.values())
    script = render_script(report)
    assert script.count("ALTER ROLE") == 1
    base.run(script)
    for table, tenant in (("mem0", "payload->>user_id"), ("search_chunk", "tenant_id")):
        assert base.check(tenant)[f"public.{table}"].grade == "engine"


def test_a_table_that_is_not_there_is_refused(foreign: Callable[..., Foreign]) -> None:
    base = foreign()
    with pytest.raises(RefusedError, match="no table with a vector column"):
        base.check()
