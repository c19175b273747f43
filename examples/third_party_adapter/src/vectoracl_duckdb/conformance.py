"""The kit's harness: how to make an empty store, to read it without the adapter, and to spoil it."""

import tempfile
from typing import Any

import duckdb

from vectoracl_conformance import Harness, Needs, Server, Store, Weakening

# One process may have the file open, and that is the adapter's: what reads or spoils it is run there.
CENSUS = """
import duckdb, numpy
from vectoracl.adapter_api import Record, Tag, check_fields, load_metadata
def census(client):
    fields, tag = check_fields({fields!r}), ", ".join(f'"@{{name}}"' for name in Tag._fields)
    with duckdb.connect({path!r}) as database:
        rows = database.execute(f'SELECT "@text", "@vector", "@metadata", {{tag}} FROM chunks').fetchall()
    return [Record(Tag(*t), x, numpy.array(v, "f4"), load_metadata(m, fields)) for x, v, m, *t in rows]
"""
COLLATION = """
import duckdb
def work(client):
    duckdb.connect({path!r}).execute("SET GLOBAL default_collation = '{name}'")
"""


class DuckStore(Store):
    def __init__(self, needs: Needs) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = f"{self._folder.name}/chunks.duckdb"
        self.config = self.single = {"adapter": "duckdb", "path": self._path, "dimension": needs.dimension}
        self.census_source = CENSUS.format(path=self._path, fields=dict(needs.metadata))

    def carries(self, request: Any, tenant: str) -> bool:
        sql, values = request.forbidden or request.statements[0]
        before, found, _ = sql.partition('FROM chunks WHERE "@tenant" = ? AND ')
        return bool(found) and values[before.count("?")] == tenant

    def weakenings(self) -> list[Weakening]:
        texts = (COLLATION.format(path=self._path, name=name) for name in ("NOCASE", ""))
        return [Weakening("a collation that folds case", *texts)]

    def close(self) -> None:
        self._folder.cleanup()


class DuckHarness(Harness):
    adapter = "duckdb"
    thousands = False  # each statement is planned again, and a read of 64 partitions is 64 statements

    def server(self) -> Server:
        return Server("real", f"DuckDB {duckdb.__version__}")

    def fresh(self, needs: Needs) -> Store:
        return DuckStore(needs)
