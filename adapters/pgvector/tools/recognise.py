"""Make `recognised.json`: what the extensions of a server, and the scripts of managed services, create.

    python adapters/pgvector/tools/recognise.py DSN [DSN ...] [--service NAME=FILE.sql ...]
    python adapters/pgvector/tools/recognise.py DSN --add EXTENSION [--add EXTENSION ...]

Each DSN is a superuser's, of an empty server that has the extensions' files; several servers add up (their versions are
kept side by side). A service's file is the SQL that the service runs in a fresh database; it is run in a scratch
database and rolled back, and the SECURITY DEFINER functions that it leaves outside extensions are recorded with their
owners.

With --add the table stays and gets these extensions. Being in it means that the native code is the makers', and that
somebody has read what an ordinary role can do with it: a new one is added by name, never with all that a server has.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from vectoracl_pgvector.posture import reach_sql
from vectoracl_pgvector.posture.sql import SAFE_PATH

TABLE = Path(__file__).parent.parent / "src" / "vectoracl_pgvector" / "posture" / "recognised.json"
# ruff: noqa: S608, T201 - the only text put in is reach_sql's own; it is a command of the maintainers
OF_EXTENSION = f"""SELECT {reach_sql.IDENTITY} FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  JOIN pg_catalog.pg_depend x ON x.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND x.objid = p.oid
   AND x.deptype = 'e' JOIN pg_catalog.pg_extension e ON e.oid = x.refobjid
 WHERE e.extname = %s AND p.prokind <> 'a'
   AND (p.prosecdef OR p.proleakproof OR NOT l.lanpltrusted OR l.lanname = 'internal') ORDER BY 1"""
RELATIONS = """SELECT c.relname::text FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_depend x ON x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND x.objid = c.oid
   AND x.deptype = 'e' AND x.objsubid = 0 JOIN pg_catalog.pg_extension e ON e.oid = x.refobjid
 WHERE e.extname = %s AND c.relkind IN ('r', 'v', 'm') ORDER BY 1"""
DEFINERS = f"""SELECT pg_catalog.pg_get_userbyid(p.proowner)::text, n.nspname::text, p.proname::text,
       {reach_sql.IDENTITY}
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.prosecdef AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.objid = p.oid AND x.deptype = 'e'
   AND x.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass) ORDER BY 2, 3, 4"""


def main() -> None:
    """Add what the given servers and scripts create to the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dsn", nargs="+")
    parser.add_argument("--service", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("--add", action="append", default=[], metavar="EXTENSION")
    given = parser.parse_args()
    if given.add:
        table = json.loads(TABLE.read_text(encoding="utf-8"))
        for name in given.add:
            extension(table["extensions"], given.dsn[0], name)
        written(table)
        return
    table = {"date": "", "servers": [], "extensions": {}, "services": {}, "leakproof": []}
    leakproof: set[int] = set()
    for dsn in given.dsn:
        with psycopg.connect(dsn, autocommit=True) as server:
            table["servers"].append(server.execute("SHOW server_version").fetchone()[0])
            for (oids,) in server.execute(reach_sql.SYSTEM_LEAKPROOF):
                leakproof |= set(oids)
            names = [row[0] for row in server.execute("SELECT name FROM pg_available_extensions ORDER BY 1")]
        for name in names:
            extension(table["extensions"], dsn, name)
    for service in given.service:
        name, _, file = service.partition("=")
        table["services"][name] = definers(given.dsn[0], Path(file).read_text(encoding="utf-8"))
    table["leakproof"] = sorted(leakproof)
    written(table)


def written(table: dict[str, Any]) -> None:
    """Write *table* with today's date."""
    table["date"] = dt.datetime.now(dt.UTC).date().isoformat()
    TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{TABLE}: {len(table['extensions'])} extensions, {len(table['services'])} services")


def extension(table: dict[str, dict[str, dict[str, list[str]]]], dsn: str, name: str) -> None:
    """Record one extension, created in a scratch database with what it needs."""
    with scratch(dsn) as connection:
        try:
            connection.execute(sql.SQL("CREATE EXTENSION IF NOT EXISTS {} CASCADE").format(sql.Identifier(name)))
        except psycopg.Error as error:
            print(f"{name}: left out ({str(error).splitlines()[0]})")
            return
        connection.execute(SAFE_PATH.replace("true", "false"))
        version = connection.execute("SELECT extversion FROM pg_extension WHERE extname = %s", [name]).fetchone()[0]
        functions = [row[0] for row in connection.execute(OF_EXTENSION, [name])]
        relations = [row[0] for row in connection.execute(RELATIONS, [name])]
    known = table.setdefault(name, {}).setdefault(version, {"functions": [], "relations": []})
    known["functions"] = sorted({*known["functions"], *functions})
    known["relations"] = sorted({*known["relations"], *relations})


def definers(dsn: str, script: str) -> list[dict[str, str]]:
    """Record the SECURITY DEFINER functions that a service's script leaves."""
    # Rolled back, as roles are the whole server's.
    with scratch(dsn) as connection, connection.transaction(force_rollback=True):
        connection.execute(script.encode())
        connection.execute(SAFE_PATH)
        rows = connection.execute(DEFINERS).fetchall()
    return [dict(zip(("owner", "schema", "name", "digest"), row, strict=True)) for row in rows]


class scratch:  # noqa: N801 - used as a context manager
    """A database that is dropped at the end."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __enter__(self) -> psycopg.Connection[tuple[object, ...]]:
        """Create it and connect."""
        with psycopg.connect(self._dsn, autocommit=True) as server:
            server.execute("DROP DATABASE IF EXISTS recognise WITH (FORCE)")
            server.execute("CREATE DATABASE recognise TEMPLATE template0")
        self._connection = psycopg.connect(self._dsn, autocommit=True, dbname="recognise")
        return self._connection

    def __exit__(self, *_: object) -> None:
        """Drop it."""
        self._connection.close()
        with psycopg.connect(self._dsn, autocommit=True) as server:
            server.execute("DROP DATABASE IF EXISTS recognise WITH (FORCE)")


if __name__ == "__main__":
    main()
