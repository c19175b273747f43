"""The kit's harness: how to make an empty store, to read it without the adapter, and to spoil it."""

import tempfile
from functools import cached_property
from typing import Any

import duckdb
import numpy as np

from vectoracl.adapter_api import Record, Tag, check_fields, load_metadata
from vectoracl_conformance import Harness, Needs, Server, Store, Weakening

CENSUS = """
import duckdb
import numpy as np
from vectoracl.adapter_api import Record, Tag, check_fields, load_metadata

def census(client):
    fields, tag = check_fields({fields!r}), ", ".join(f'"@{{name}}"' for name in Tag._fields)
    with duckdb.connect({path!r}) as database:
        rows = database.execute(f'SELECT "@text", "@vector", "@metadata", {{tag}} FROM chunks').fetchall()
    return [Record(Tag(*t), x, np.array(v, np.float32), load_metadata(m, fields)) for x, v, m, *t in rows]
"""

COLLATION = """
import duckdb

def work(client):
    with duckdb.connect({path!r}) as database:
        database.execute("SET GLOBAL default_collation = '{name}'")
"""


class DuckStore(Store):
    def __init__(self, needs: Needs) -> None:
        self._fields, self._folder = check_fields(needs.metadata), tempfile.TemporaryDirectory()
        path = f"{self._folder.name}/kit.duckdb"
        self.config = self.single = {"adapter": "duckdb", "path": path, "dimension": needs.dimension}
        # One process may have the file open: where the adapter runs in another one, its rows are read there.
        self.census_source = CENSUS.format(path=path, fields=dict(needs.metadata))

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect(self.config["path"])

    def census(self) -> list[Record]:
        tag = ", ".join(f'"@{name}"' for name in Tag._fields)
        rows = self._database.execute(f'SELECT "@text", "@vector", "@metadata", {tag} FROM chunks').fetchall()
        return [Record(Tag(*t), x, np.array(v, np.float32), load_metadata(m, self._fields)) for x, v, m, *t in rows]

    def carries(self, request: Any, tenant: str) -> bool:
        sql, values = request.forbidden or request.statements[0]
        before, found, _ = sql.partition('FROM chunks WHERE "@tenant" = ? AND ')
        return bool(found) and values[before.count("?")] == tenant

    def weakenings(self) -> list[Weakening]:
        texts = (COLLATION.format(path=self.config["path"], name=name) for name in ("NOCASE", ""))
        return [Weakening("a collation that folds case", *texts)]

    def close(self) -> None:
        if "_database" in vars(self):
            self._database.close()
        self._folder.cleanup()


class DuckHarness(Harness):
    adapter = "duckdb"

    def server(self) -> Server:
        return Server("real", f"DuckDB {duckdb.__version__}")

    def fresh(self, needs: Needs) -> Store:
        return DuckStore(needs)
