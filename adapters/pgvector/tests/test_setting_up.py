"""Each documented way to set up a server of one's own, on a superuser's and on a managed one, old and new."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

import vectoracl as v
from vectoracl import Chunk, Hybrid, testing
from vectoracl.cli import app
from vectoracl_pgvector.embedded.programs import installed

from pgvector_support.plain import KINDS, Plain, start_plain

pytestmark = pytest.mark.server
ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")


@pytest.fixture(scope="module", params=KINDS)
def plain(request: pytest.FixtureRequest) -> Iterator[Plain]:
    with start_plain(request.param) as running:
        yield running


class Site:
    """One database, with roles of its own names, and the folder in which the commands are run."""

    def __init__(self, plain: Plain, database: str, folder: Path) -> None:
        mark = secrets.token_hex(3)
        self.plain, self.database, self.folder = plain, database, folder
        self.owner, self.runtime, self.admin = f"own_{mark}", f"run_{mark}", f"adm_{mark}"
        self.secret = f"pw-{secrets.token_hex(6)}"

    def dsn(self, user: str) -> str:
        return self.plain.dsn(self.database, user, "" if user == "boss" else self.secret)

    def configure(self, owner_dsn: str | None, **more: str) -> None:
        lines = [
            "version = 1", "[stores.main]", 'adapter = "pgvector"', "dimension = 8",
            f'dsn = "{self.dsn(self.runtime)}"',
            f'runtime_role = "{self.runtime}"',
        ]  # fmt: skip
        lines += [f'{name} = "{value}"' for name, value in {"owner_role": self.owner, **more}.items()]
        if owner_dsn is not None:
            lines.append(f'owner_dsn = "{owner_dsn}"')
        (self.folder / "vectoracl.toml").write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, (result.output, result.exception)
        assert self.secret not in result.output
        assert self.plain.secret not in result.output
        return result.output

    def psql(self, user: str, sql: str) -> None:
        program = next(
            path for path in (installed(18) / "psql", Path("/usr/lib/postgresql/15/bin/psql")) if path.exists()
        )
        script = self.folder / "script.sql"
        script.write_text(sql)
        ended = subprocess.run(
            [str(program), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(script), self.dsn(user)],
            capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr

    def password(self, by: str, role: str) -> None:
        """`\\password`, as psql does it: only the verifier is sent."""
        with psycopg.connect(self.dsn(by), autocommit=True) as connection:
            verifier = connection.pgconn.encrypt_password(self.secret.encode(), role.encode(), b"scram-sha-256")
            connection.execute(f"ALTER ROLE {role} PASSWORD '{verifier.decode()}'")

    def make_admin(self) -> None:
        """The administrator of a managed server: no superuser; the database is its own, the extension is there."""
        with psycopg.connect(self.plain.dsn("postgres"), autocommit=True) as boss:
            boss.execute(f"CREATE ROLE {self.admin} LOGIN CREATEROLE CREATEDB PASSWORD '{self.secret}'")
            boss.execute(f"ALTER DATABASE {self.database} OWNER TO {self.admin}")

    def works(self, *, operates: bool = True) -> None:
        """Serve and operate, and find the isolation whole."""
        with v.connect("vectoracl.toml") as acl:
            for who in (ANN, BOB):
                docs = acl.scoped(who)
                docs.upsert([Chunk(f"c{i}", "d", f"of {who.tenant}", np.eye(8)[i]) for i in range(6)])
                assert {hit.text for hit in docs.search(Hybrid("of", np.ones(8)), 20)} == {f"of {who.tenant}"}
            (posture,) = acl.check().values()
            assert posture.grade == "engine"
            assert not [one for one in posture.findings if one.rule.severity == "error"]
            said = [one.message for one in posture.findings if one.rule.id == "PG093"]
            old = dict(posture.facts)["pgvector"] in ("0.8.0", "0.8.1")
            assert any("CVE-2026-3172" in text for text in said) is old
        with psycopg.connect(self.dsn(self.runtime)) as runtime:
            assert runtime.execute("SELECT count(*) FROM vectoracl.chunks").fetchone() == (0,)
        if operates:
            self.run("tenants", "promote", "acme")
            listed = json.loads(self.run("tenants", "list", "--json", code=1))
            assert {(one["tenant"], one["tier"], one["rows"]) for one in listed["tenants"]} == {
                ("acme", "own", 6), ("beta", "shared", 6)
            }  # fmt: skip
            self.run("provision", "--yes")
            self.run("tenants", "demote", "acme")
            self.run("tenants", "remove", "acme", "--yes")

    def drop(self) -> None:
        with psycopg.connect(self.plain.dsn("postgres"), autocommit=True) as boss:
            for role in (self.runtime, self.owner, self.admin):
                if boss.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone():
                    with psycopg.connect(self.plain.dsn(self.database), autocommit=True) as there:
                        there.execute(f"REASSIGN OWNED BY {role} TO boss")
                        there.execute(f"DROP OWNED BY {role} CASCADE")
                    boss.execute(f"ALTER DATABASE {self.database} OWNER TO boss")
                    boss.execute(f"DROP OWNED BY {role} CASCADE")
            for role in (self.runtime, self.owner, self.admin):
                boss.execute(f"DROP ROLE IF EXISTS {role}")


@pytest.fixture
def site(plain: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    with plain.database() as database:
        made = Site(plain, database, tmp_path)
        try:
            yield made
        finally:
            made.drop()


def test_a_superuser_in_owner_dsn(site: Site) -> None:
    """Roles are made, the runtime role with the password of its dsn; the owner never has to log in."""
    site.configure(site.dsn("boss"))
    told = site.run("provision", "--yes")
    assert f"{site.owner} have no password yet" in told.replace("\n", " ") or f"{site.owner} has" in told
    site.works()
    with psycopg.connect(site.dsn("boss")) as boss:
        owners = boss.execute(
            "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'vectoracl'::regnamespace"
        ).fetchall()
        assert owners == [(site.owner,)], "the superuser owns nothing, so that FORCE binds the owner"


def test_the_printed_sql_as_a_superuser(site: Site) -> None:
    site.configure(None)
    sql = site.run("provision", "--sql")
    site.psql("boss", sql)
    site.psql("boss", sql)
    for role in (site.owner, site.runtime):
        site.password("boss", role)
    site.works(operates=False)
    site.configure(site.dsn(site.owner))
    site.works()


def test_the_printed_sql_in_two_halves(site: Site) -> None:
    site.configure(site.dsn(site.owner))
    sql = site.run("provision", "--sql")
    upper, lower = sql.split(f"-- As {site.owner}")
    site.psql("boss", upper)
    for role in (site.owner, site.runtime):
        site.password("boss", role)
    site.psql(site.owner, f"-- As {site.owner}{lower}")
    site.works()


def test_the_printed_sql_as_the_administrator_of_a_managed_server(site: Site) -> None:
    site.make_admin()
    site.configure(site.dsn(site.owner))
    sql = site.run("provision", "--sql")
    site.psql(site.admin, sql)
    site.psql(site.admin, sql)
    for role in (site.owner, site.runtime):
        site.password(site.admin, role)
    site.works()


def test_the_administrator_of_a_managed_server_in_owner_dsn(site: Site) -> None:
    site.make_admin()
    site.configure(site.dsn(site.admin))
    site.run("provision", "--yes")
    site.works()


def test_the_administrator_is_the_owner(site: Site) -> None:
    site.make_admin()
    site.configure(site.dsn(site.admin), owner_role=site.admin)
    site.psql(site.admin, site.run("provision", "--sql"))
    site.password(site.admin, site.runtime)
    site.works()


def test_a_role_that_may_become_the_owner(site: Site) -> None:
    site.configure(site.dsn("boss"))
    site.run("provision", "--yes")
    with psycopg.connect(site.dsn("boss"), autocommit=True) as boss:
        boss.execute(f"CREATE ROLE {site.admin} LOGIN PASSWORD '{site.secret}'")
    site.configure(site.dsn(site.admin))
    told = site.run("tenants", "list", code=2).replace("\n", " ")
    assert site.admin in told
    assert "GRANT" in told
    with psycopg.connect(site.dsn("boss"), autocommit=True) as boss:
        boss.execute(f"GRANT {site.owner} TO {site.admin}")
    site.works()


def test_what_is_missing_is_said(site: Site) -> None:
    with psycopg.connect(site.dsn("boss"), autocommit=True) as boss:
        boss.execute(f"CREATE ROLE {site.admin} LOGIN PASSWORD '{site.secret}'")
        boss.execute("DROP EXTENSION vector")
    site.configure(site.dsn(site.admin))
    told = site.run("provision", "--yes", code=2).replace("\n", " ")
    assert "does not exist" in told
    assert "--sql" in told
