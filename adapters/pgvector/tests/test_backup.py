"""What the guide says of backup and restore, with the server's own pg_dump."""

from __future__ import annotations

import os
import secrets
import subprocess
from typing import Any

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, Hybrid, Lexical, testing
from vectoracl_pgvector.embedded.programs import installed

from pgvector_support.databases import new_database

ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(installed(18) / program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "LC_ALL": "C"},
    )


@pytest.fixture(scope="module")
def filled(provisioned: Any) -> Any:
    store = provisioned(metadata={})
    with v.connect(store.config) as acl:
        for who in (ANN, BOB):
            text = f"canary of {who.tenant}"
            acl.scoped(who).upsert([Chunk(f"c{i}", "d", text, np.eye(8)[i]) for i in range(5)])
        operator = acl.operator()
        operator.promote("acme")
        operator.close()
    return store


@pytest.mark.parametrize("role", ["runtime", "owner"])
def test_a_dump_as_who_is_bound_by_the_policies_fails(filled: Any, role: str) -> None:
    ended = run("pg_dump", "--dbname", getattr(filled, role), "--table", "vectoracl.chunks*")
    assert ended.returncode != 0
    assert "row-level security" in ended.stderr or "permission denied" in ended.stderr
    assert "canary" not in ended.stdout


def test_a_dump_with_row_security_on_is_silently_empty(filled: Any) -> None:
    """Why the guide warns of it: it succeeds, and what it holds is what that role may see, here nothing."""
    more = ("--enable-row-security", "--inserts", "--data-only")
    ended = run("pg_dump", "--dbname", filled.owner, *more, "--table", "vectoracl.chunks*")
    assert ended.returncode == 0, ended.stderr
    assert "canary" not in ended.stdout


def test_a_superusers_dump_restores_rows_policies_and_grants(filled: Any, server: Any, tmp_path: Any) -> None:
    archive = tmp_path / "dump"
    ended = run("pg_dump", "--dbname", filled.bootstrap, "--format", "custom", "--file", str(archive))
    assert ended.returncode == 0, ended.stderr
    with new_database(server, f"r_{secrets.token_hex(6)}") as made:
        ended = run("pg_restore", "--clean", "--if-exists", "--exit-on-error", "--dbname", made.bootstrap, str(archive))
        assert ended.returncode == 0, ended.stderr
        config = filled.changed(dsn=made.runtime, owner_dsn=made.owner)
        with v.connect(config) as acl:  # which refuses a store whose posture is weaker than before
            operator = acl.operator()
            assert [(one.tenant, one.rows, one.tier) for one in operator.tenants()] == [
                ("acme", 5, "own"), ("beta", 5, "shared")
            ]  # fmt: skip
            operator.provision()
            operator.close()
            assert {one.grade for one in acl.check().values()} == {"engine"}
            for who in (ANN, BOB):
                docs = acl.scoped(who)
                for query in (np.eye(8)[0], Lexical("canary"), Hybrid("canary", np.eye(8)[0])):
                    hits = docs.search(query, 20)
                    assert len(hits) == 5
                    assert {hit.text for hit in hits} == {f"canary of {who.tenant}"}
                docs.upsert([Chunk("new", "new", "after", np.eye(8)[0])])
                assert docs.count() == 6
        with psycopg.connect(made.runtime) as connection:
            assert connection.execute("SELECT count(*) FROM vectoracl.chunks").fetchone() == (0,)
            assert len(connection.execute("SELECT 1 FROM pg_catalog.pg_roles").fetchall()) > 0
