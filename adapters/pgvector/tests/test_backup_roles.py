"""Who may dump or restore everything is named in the configuration or reported; the page's commands are run."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.cli import app
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.embedded.programs import installed

from pgvector_support.databases import new_database
from pgvector_support.plain import Plain, start_plain

pytestmark = pytest.mark.server
ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")
PAGE = Path(__file__).parents[3] / "docs" / "backups.md"


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Plain, dict[str, Any]]]:
    """A server of its own, as roles belong to the whole of it, with a provisioned store."""
    with start_plain("wheel 18") as plain, plain.database() as name:
        runtime = plain.dsn(name, "vectoracl_runtime", "served")
        main = {"adapter": "pgvector", "dimension": 8, "dsn": runtime, "owner_dsn": plain.dsn(name)}
        config = {"version": 1, "stores": {"main": main}}
        operator: Any = v.VectorACL(config).operator()
        operator.provision()
        operator.close()
        yield plain, config


def reported(config: dict[str, Any], *names: str) -> dict[str, str]:
    main = {**config["stores"]["main"], "backup_roles": names}
    with v.VectorACL({**config, "stores": {"main": main}}) as acl:
        (posture,) = acl.check().values()
    assert posture.grade == "engine"
    found = [one for one in posture.findings if one.rule.id == "PG140"]
    assert all("backup_roles" in one.fix for one in found)
    return {one.subject: one.message for one in found}


POWERS = {
    "SUPERUSER": "superuser",
    "BYPASSRLS": "BYPASSRLS",
    "REPLICATION": "REPLICATION",
    "IN ROLE pg_read_server_files": "pg_read_server_files",
    "IN ROLE pg_execute_server_program": "pg_execute_server_program",
    "IN ROLE vectoracl_owner": "owns the table",
}
HARMLESS = ("", "CREATEDB", "CREATEROLE", "IN ROLE pg_read_all_data", "IN ROLE pg_monitor", "NOLOGIN BYPASSRLS")


def test_nobody_is_reported_where_there_is_nobody(site: Any) -> None:
    assert reported(site[1]) == {}, "the superuser that made the cluster, and the owner, are not"


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from([*POWERS, *HARMLESS]), st.booleans()), min_size=1, max_size=5))
def test_each_that_may_is_reported_unless_it_is_named(site: Any, drawn: list[tuple[str, bool]]) -> None:
    plain, config = site
    made = {f"r_{secrets.token_hex(4)}": (power, named) for power, named in drawn}
    with psycopg.connect(plain.dsn("postgres"), autocommit=True) as boss:
        try:
            for name, (power, _) in made.items():
                login = "" if "NOLOGIN" in power else "LOGIN "
                boss.execute(f"CREATE ROLE {name} {login}{power}")
            found = reported(config, *(name for name, (_, named) in made.items() if named))
        finally:
            for name in made:
                boss.execute(f"DROP ROLE IF EXISTS {name}")
    assert found.keys() == {name for name, (power, named) in made.items() if power in POWERS and not named}
    for name, text in found.items():
        assert POWERS[made[name][0]] in text


def test_through_another_role_and_by_pattern(site: Any) -> None:
    plain, config = site
    with psycopg.connect(plain.dsn("postgres"), autocommit=True) as boss:
        boss.execute("CREATE ROLE strong NOLOGIN BYPASSRLS; CREATE ROLE mid NOLOGIN; CREATE ROLE ops_ann LOGIN")
        boss.execute("GRANT strong TO mid; GRANT mid TO ops_ann")
        try:
            assert reported(config) == {"ops_ann": "ops_ann can act as strong."}
            assert reported(config, "ops_*") == {}
            assert reported(config, "strong") != {}
        finally:
            boss.execute("DROP ROLE ops_ann, mid, strong")


def test_the_embedded_server_has_none(provisioned: Any) -> None:
    store = provisioned()
    with v.connect(store.config) as acl:
        (posture,) = acl.check().values()
    assert not [one for one in posture.findings if one.rule.id == "PG140" and one.subject.startswith("vectoracl_")]


def test_the_pages_commands(server: Any, provisioned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = provisioned(dimension=384, metadata={})
    with v.connect(store.config) as acl:
        for who in (ANN, BOB):
            acl.scoped(who).upsert([Chunk(f"c{i}", "d", f"of {who.tenant}", np.eye(384)[i]) for i in range(4)])
        operator: Any = acl.operator()
        operator.promote("acme")
        operator.close()
    tokens = MarkdownIt().parse(PAGE.read_text(encoding="utf-8"))
    blocks = {one.info.strip(): one.content for one in tokens if one.type == "fence"}
    name, secret = f"backup_{secrets.token_hex(3)}", secrets.token_hex(8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        database = boss.info.dbname
        try:
            boss.execute(blocks["sql"].replace("backup", name))
            boss.execute(f"ALTER ROLE {name} PASSWORD '{secret}'")
            boss.execute(f"GRANT CONNECT ON DATABASE {database} TO {name}")
            with new_database(server, f"r_{secrets.token_hex(5)}") as made:
                monkeypatch.setenv("BACKUP_DSN", f"postgresql://{name}:{secret}@{server.host}:{server.port}/{database}")
                monkeypatch.setenv("RESTORE_DSN", made.bootstrap)
                monkeypatch.setenv("VECTORACL_DSN", made.runtime)
                monkeypatch.setenv("OWNER", made.owner)
                toml = blocks["toml"].replace('["backup"]', f'["{name}", "*"]') + 'owner_dsn = { env = "OWNER" }\n'
                (tmp_path / "vectoracl.toml").write_text(toml)
                for line in blocks["console"].splitlines():
                    command = line.removeprefix("$ ")
                    if command.startswith("vectoracl "):
                        arguments = command.split()[1:] + (["--yes"] if "provision" in command else [])
                        result = CliRunner().invoke(app, arguments)
                        assert result.exit_code in ((0, 1) if "check" in command else (0,)), result.output
                        continue
                    ended = subprocess.run(
                        ["/bin/sh", "-c", command],
                        env={**os.environ, "PATH": f"{installed(18)}:{os.environ['PATH']}", "LC_ALL": "C"},
                        capture_output=True, text=True, check=False, timeout=120,
                    )  # fmt: skip
                    assert ended.returncode == 0, ended.stderr
                with v.connect("vectoracl.toml") as acl:
                    for who in (ANN, BOB):
                        hits = acl.scoped(who).search(np.eye(384)[0], 20)
                        assert {hit.text for hit in hits} == {f"of {who.tenant}"}
                        assert len(hits) == 4
        finally:
            boss.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_the_pages_configuration_is_valid() -> None:
    import tomllib

    from vectoracl.config import Config

    tokens = MarkdownIt().parse(PAGE.read_text(encoding="utf-8"))
    (text,) = [one.content for one in tokens if one.type == "fence" and one.info.strip() == "toml"]
    (store,) = Config.model_validate(tomllib.loads(text)).stores.values()
    assert PgvectorConfig.model_validate(store.own()).backup_roles == ("backup",)
