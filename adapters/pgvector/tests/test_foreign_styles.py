"""Policies in the styles that people write, drawn: what is secured is accepted, what can be read is not called safe.

Each draw makes a table, protects it in one of many usual ways, and perhaps breaks it by one step. The judgement is held
against what the application's role can really do: read or write rows of a tenant that it did not set.
"""

from __future__ import annotations

import json
import os
import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from vectoracl.adapter_api.posture import Posture
from vectoracl_pgvector.embedded.server import EmbeddedServer
from vectoracl_pgvector.posture.inspect import inspect

pytestmark = pytest.mark.server
VERSIONS = {"PG090", "PG091", "PG092"}
S = "current_setting('app.t', true)"
J = "current_setting('app.j', true)"
DRAWS = int(os.environ.get("VECTORACL_TEST_STYLES", "24"))


@dataclass(frozen=True)
class Kind:
    """How a table says whose a row is."""

    name: str
    column: str
    tenant: str  # as --tenant-column
    sql: str
    write: str
    cast: str
    tenants: tuple[str, ...]


UUIDS = tuple(f"{one * 8}-{one * 4}-{one * 4}-{one * 4}-{one * 12}" for one in "abc")
KINDS = (
    Kind("text", "tenant_id text NOT NULL CHECK (tenant_id <> '')", "tenant_id", "tenant_id", "{}", "",
         ("a", "b", "ab")),
    Kind("varchar", "org_id varchar(40) NOT NULL", "org_id", "org_id", "{}", "", ("a", "b", "A")),
    Kind("uuid", "company_id uuid NOT NULL", "company_id", "company_id", "{}::uuid", "::uuid", UUIDS),
    Kind("bigint", "account_id bigint NOT NULL", "account_id", "account_id", "{}::bigint", "::bigint",
         ("1", "2", "12")),
    Kind("json", "meta jsonb", "meta->>tenant_id", "(meta ->> 'tenant_id')",
         "json_build_object('tenant_id', {})::jsonb", "", ("a", "b", "ab")),
    Kind("json uuid", "meta jsonb", "meta->>tenant_id", "(meta ->> 'tenant_id')::uuid",
         "json_build_object('tenant_id', {})::jsonb", "::uuid", UUIDS),
    Kind("json int", "meta json", "meta->>tenant_id", "(meta ->> 'tenant_id')::int",
         "json_build_object('tenant_id', {}::int)", "::int", ("1", "2", "12")),
)  # fmt: skip


def conditions(kind: Kind) -> list[str]:
    """The usual ways to say that the row's tenant is the session's."""
    values = [
        f"{S}{kind.cast}",
        f"NULLIF({S}, ''){kind.cast}",
        f"current_setting('app.t'){kind.cast}",
        f"(SELECT NULLIF({S}, ''){kind.cast})",
        f"(SELECT {S}){kind.cast}",
        f"(NULLIF({J}, '')::json ->> 'tenant_id'){kind.cast}",
        f"({J}::jsonb ->> 'tenant_id'){kind.cast}",
        f"({J}::jsonb -> 'app_metadata' ->> 'tenant_id'){kind.cast}",
    ]
    made = [f"{kind.sql} = {value}" for value in values] + [f"{value} = {kind.sql}" for value in values]
    if kind.cast == "":
        made += [f"{kind.sql} = {S} AND {S} <> ''", f"{kind.sql}::text = NULLIF({S}, '')"]
    return made


def broken_conditions(kind: Kind) -> dict[str, str]:
    """The same with one thing wrong, most of which show or accept rows of another tenant."""
    t, c, b = kind.sql, kind.cast, f"'{kind.tenants[1]}'{kind.cast}"
    value = f"NULLIF({S}, ''){c}"
    made = {
        "or a word": f"{t} = {value} OR {S} = 'all'",
        "or true": f"{t} = {value} OR true",
        "or not null": f"{t} = {value} OR {t} IS NOT NULL",
        "or a row": f"{t} = {value} OR id = 2",
        "or another setting": f"{t} = {value} OR {t} = NULLIF(current_setting('app.other', true), ''){c}",
        "or another column": f"{t} = {value} OR body = 'text'",
        "coalesce to a tenant": f"{t} = COALESCE({value}, {b})",
        "coalesce to the row": f"{t} = COALESCE({value}, {t})",
        "not less": f"{t} >= {value}",
        "another": f"{t} <> {value}",
        "not another is not false": f"({t} = {value}) IS NOT FALSE",
        "a shared tenant": f"{t} = ANY (ARRAY[{value}, {b}])",
        "a shared constant": f"{t} = {value} OR {t} = {b}",
        "case": f"CASE WHEN {S} = 'all' THEN true ELSE {t} = {value} END",
        "set at all": f"{S} IS NOT NULL",
        "constant": f"{t} = {b}",
        "from a query": f"{t} IN (SELECT {b})",
    }
    text = f"({t})::text"
    made |= {
        "list": f"{text} = ANY (string_to_array({S}, ','))",
        "list of all": f"{text} = ANY (string_to_array(NULLIF({S}, ''), ','))",
        "like": f"{text} LIKE {S}",
        "prefix": f"starts_with({text}, {S})",
        "first letter": f"left({text}, 1) = left({S}, 1)",
        "case blind": f"lower({text}) = lower({S})",
        "cut": f"({text})::varchar(1) = {S}",
        "cut setting": f"{text} = {S}::varchar(1)",
        "setting named by the row": f"{text} = NULLIF(current_setting('app.of_' || left({text}, 1), true), '')",
        "key named by the row": f"{text} = ({J}::json ->> body)",
        "position": f"strpos({S}, {text}) > 0",
    }
    return made


class Arrangement:
    """How the condition becomes policies."""

    NAMES = ("all", "using alone", "each command", "wide and narrow", "two bound", "to the role")

    def __init__(self, name: str, table: str, app: str) -> None:
        self.name, self.table, self.app = name, table, app

    def sql(self, condition: str, check: str | None = None) -> Iterator[str]:
        """Yield the policies; *check* is another condition for new rows."""
        on, to = f"ON {self.table}", f"TO {self.app}" if self.name == "to the role" else ""
        check = check or condition
        both = f"USING ({condition}) WITH CHECK ({check})"
        match self.name:
            case "using alone" if check == condition:
                yield f"CREATE POLICY p {on} USING ({condition})"
            case "each command":
                yield f"CREATE POLICY s {on} FOR SELECT USING ({condition})"
                yield f"CREATE POLICY i {on} FOR INSERT WITH CHECK ({check})"
                yield f"CREATE POLICY u {on} FOR UPDATE {both}"
                yield f"CREATE POLICY d {on} FOR DELETE USING ({condition})"
            case "wide and narrow":
                yield f"CREATE POLICY w {on} USING (true) WITH CHECK (true)"
                yield f"CREATE POLICY n {on} AS RESTRICTIVE {both}"
            case "two bound":
                yield f"CREATE POLICY w {on} {both}"
                yield f"CREATE POLICY n {on} AS RESTRICTIVE {both}"
            case _:
                yield f"CREATE POLICY p {on} {to} {both}"


STEPS: dict[str, str] = {
    "off": "ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
    "open policy": "CREATE POLICY extra ON {table} FOR SELECT USING (true)",
    "open insert": "CREATE POLICY extra ON {table} FOR INSERT WITH CHECK (true)",
    "open update": "CREATE POLICY extra ON {table} FOR UPDATE USING (true)",
    "open delete": "CREATE POLICY extra ON {table} FOR DELETE USING (true); CREATE POLICY more ON {table} FOR SELECT "
                   "USING (id > 0)",
    "no narrow": "DROP POLICY IF EXISTS n ON {table}",
    "view": "CREATE VIEW {table}_v AS SELECT * FROM {table}; GRANT SELECT ON {table}_v TO {app}",
    "function": "CREATE FUNCTION {table}_f() RETURNS SETOF {table} LANGUAGE sql SECURITY DEFINER SET search_path = "
                "pg_catalog AS 'SELECT * FROM {table}'",
    "owner": "ALTER TABLE {table} OWNER TO {app}; ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
    "member": "ALTER TABLE {table} OWNER TO {owner}; ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY; "
              "GRANT {owner} TO {app}",
    "matview": "CREATE MATERIALIZED VIEW {table}_v AS SELECT * FROM {table}; GRANT SELECT ON {table}_v TO {app}",
}  # fmt: skip


@dataclass
class Ground:
    """One database, its application's role, and a fresh table for each draw."""

    boss: psycopg.Connection[Any]
    app: psycopg.Connection[Any]
    dsn: str
    name: str
    owner: str

    def make(self, kind: Kind, policies: Callable[[str], Iterator[str]], extra: str = "") -> str:
        table = f"public.t_{secrets.token_hex(4)}"
        with self.boss.transaction():
            self.boss.execute(f"CREATE TABLE {table} (id int, {kind.column}, body text, embedding vector(3))")
            for tenant in kind.tenants:
                row = f"n, {kind.write.format(repr(tenant))}, 'text', '[1,2,3]'"
                self.boss.execute(f"INSERT INTO {table} SELECT {row} FROM generate_series(1, 3) n")
            self.boss.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
            self.boss.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {self.name}")
            for statement in policies(table):
                self.boss.execute(statement.encode())
            if extra:
                self.boss.execute(extra.format(table=table, app=self.name, owner=self.owner).encode())
        return table

    def drop(self, table: str) -> None:
        self.boss.execute(f"DROP TABLE {table} CASCADE")
        self.boss.execute(f"REVOKE {self.owner} FROM {self.name}")

    def check(self, table: str, kind: Kind) -> Posture:
        return inspect(self.dsn, table, None, kind.tenant)[table]

    def exploits(self, table: str, kind: Kind) -> list[str]:
        """Return how rows of a tenant that is not set can be read or written."""
        found = []
        a, b, *_ = kind.tenants
        for value in (*kind.tenants, None, "", "all", "*", "%", f"{a},{b}", f"{a}%", f"{a}_"):
            for source in (table, f"{table}_v", f"{table}_f()"):
                rows = self._as(kind, value, f"SELECT DISTINCT ({kind.sql})::text FROM {source}")
                wrong = {row[0] for row in rows or ()} - {value}
                if wrong:
                    found.append(f"{value!r} reads {sorted(map(str, wrong))} of {source}")
            target = kind.write.format(repr(b))
            column = kind.column.split()[0]
            for what in (
                f"INSERT INTO {table} VALUES (9, {target}, 'text', '[1,2,3]') RETURNING 1",
                f"UPDATE {table} SET {column} = {target} WHERE ({kind.sql})::text = {a!r} RETURNING 1",
                f"UPDATE {table} SET body = 'mine' WHERE ({kind.sql})::text = {b!r} RETURNING 1",
                f"DELETE FROM {table} WHERE ({kind.sql})::text = {b!r} RETURNING 1",
                f"INSERT INTO {table} VALUES (9, {target}, 'text', '[1,2,3]')",
            ):
                if value != b and self._as(kind, value, what):
                    found.append(f"{value!r} can {what}")
        return found

    def _as(self, kind: Kind, value: str | None, sql: str) -> list[tuple[Any, ...]] | None:
        b = kind.tenants[1]
        try:
            with self.app.transaction(force_rollback=True):
                if value is not None:
                    claims = json.dumps({"tenant_id": value, "app_metadata": {"tenant_id": value}, "text": b})
                    both = "SELECT set_config('app.t', %s, true), set_config('app.j', %s, true)"
                    self.app.execute(both, (value, claims))
                # Other settings of the application, which say nothing about whose request it is.
                for name in ("app.other", f"app.of_{b[0]}"):
                    self.app.execute("SELECT set_config(%s, %s, true)", (name, b))
                cursor = self.app.execute(sql.encode())
                return cursor.fetchall() if cursor.description else [()] * cursor.rowcount
        except psycopg.Error:
            return None


@pytest.fixture(scope="module")
def ground(server: EmbeddedServer) -> Iterator[Ground]:
    tag = secrets.token_hex(4)
    app, owner, name = f"styles_{tag}", f"styles_owner_{tag}", f"styles_{tag}"
    with psycopg.connect(server.dsn("bootstrap", "postgres"), autocommit=True) as boss:
        boss.execute(f"CREATE ROLE {app} LOGIN PASSWORD 'x'; CREATE ROLE {owner}")
        boss.execute(f"CREATE DATABASE {name}")
    known = psycopg.conninfo.conninfo_to_dict(server.dsn("bootstrap", name))
    dsn = psycopg.conninfo.make_conninfo(**(known | {"user": app, "password": "x"}))
    with psycopg.connect(server.dsn("bootstrap", name), autocommit=True) as boss:
        boss.execute("CREATE EXTENSION vector SCHEMA public")
        boss.execute(f"REVOKE TEMP ON DATABASE {name} FROM PUBLIC; GRANT CREATE ON SCHEMA public TO {owner}")
        with psycopg.connect(dsn, autocommit=True) as connection:
            yield Ground(boss, connection, dsn, app, owner)
    with psycopg.connect(server.dsn("bootstrap", "postgres"), autocommit=True) as boss:
        boss.execute(f"DROP DATABASE {name} WITH (FORCE)")
        boss.execute(f"DROP ROLE {app}, {owner}")


def test_what_is_secured_in_a_usual_style_is_accepted(ground: Ground) -> None:
    draw = random.Random(14)
    cases = [(kind, condition) for kind in KINDS for condition in conditions(kind)]
    draw.shuffle(cases)
    for number, (kind, condition) in enumerate(cases[:DRAWS]):
        arrangement = Arrangement.NAMES[number % len(Arrangement.NAMES)]
        table = ground.make(kind, lambda t, a=arrangement, c=condition: Arrangement(a, t, ground.name).sql(c))
        found = ground.check(table, kind)
        alarms = [(f.rule.id, f.subject, f.message) for f in found.findings if f.rule.severity != "note"]
        alarms = [one for one in alarms if one[0] not in VERSIONS]
        assert (found.grade, alarms) == ("engine", []), (kind.name, arrangement, condition)
        assert ground.exploits(table, kind) == [], (kind.name, arrangement, condition)
        ground.drop(table)


def test_what_can_be_read_or_written_is_never_called_safe(ground: Ground) -> None:
    draw = random.Random(13)
    cases = [(kind, name, condition) for kind in KINDS for name, condition in broken_conditions(kind).items()]
    draw.shuffle(cases)
    open_ = 0
    for kind, name, condition in cases[: DRAWS * 2]:
        arrangement = draw.choice(Arrangement.NAMES)
        table = ground.make(kind, lambda t, a=arrangement, c=condition: Arrangement(a, t, ground.name).sql(c))
        found, ways = ground.check(table, kind), ground.exploits(table, kind)
        assert not ways or found.grade == "none", (kind.name, arrangement, name, condition, ways)
        open_ += bool(ways)
        ground.drop(table)
    assert open_ > DRAWS  # the draws are dangerous: most of them let rows out


@pytest.mark.parametrize("step", STEPS)
def test_one_step_that_opens_a_sound_table_is_found(ground: Ground, step: str) -> None:
    draw = random.Random(step)
    for arrangement in Arrangement.NAMES:
        kind = draw.choice(KINDS)
        condition = draw.choice(conditions(kind))
        table = ground.make(
            kind, lambda t, a=arrangement, c=condition: Arrangement(a, t, ground.name).sql(c), STEPS[step]
        )
        found, ways = ground.check(table, kind), ground.exploits(table, kind)
        assert not ways or found.grade == "none", (kind.name, arrangement, condition, ways)
        ground.drop(table)


def test_a_looser_check_than_using_is_found(ground: Ground) -> None:
    draw = random.Random(15)
    for kind in KINDS:
        for arrangement in ("all", "each command", "two bound", "to the role"):
            condition = draw.choice(conditions(kind))
            wide = draw.choice(["true", f"{kind.sql} IS NOT NULL", "id > 0", f"{S} IS NOT NULL"])
            table = ground.make(
                kind, lambda t, a=arrangement, c=condition, w=wide: Arrangement(a, t, ground.name).sql(c, w)
            )
            found, ways = ground.check(table, kind), ground.exploits(table, kind)
            assert ways, (kind.name, arrangement, condition, wide)
            assert found.grade == "none", (kind.name, arrangement, condition, wide, ways)
            ground.drop(table)
