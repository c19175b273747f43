"""The kit's harness: how to make an empty store, to read it without the adapter, and to spoil it."""

import tempfile
from typing import Any

import duckdb
import numpy as np

from vectoracl.adapter_api import Record, Tag, check_fields, load_metadata
from vectoracl_conformance import Harness, Needs, Server, Store, Weakening


class DuckStore(Store):
    def __init__(self, needs: Needs) -> None:
        self._fields, self._folder = check_fields(needs.metadata), tempfile.TemporaryDirectory()
        path = f"{self._folder.name}/kit.duckdb"
        self.config = self.single = {"adapter": "duckdb", "path": path, "dimension": needs.dimension}
        self._database = duckdb.connect(path)

    def outside(self) -> dict[str, Any]:
        return {**self.config, "path": f"{self._folder.name}/outside.duckdb"}

    def census(self) -> list[Record]:
        tag = ", ".join(f'"@{name}"' for name in Tag._fields)
        rows = self._database.execute(f'SELECT "@text", "@vector", "@metadata", {tag} FROM chunks').fetchall()
        return [Record(Tag(*t), x, np.array(v, np.float32), load_metadata(m, self._fields)) for x, v, m, *t in rows]

    def carries(self, request: Any, tenant: str) -> bool:
        sql, values = request.forbidden or request.statements[0]
        before, found, _ = sql.partition('FROM chunks WHERE "@tenant" = ? AND ')
        return bool(found) and values[before.count("?")] == tenant

    def weakenings(self) -> list[Weakening]:
        def collate(name: str) -> None:
            self._database.execute(f"SET GLOBAL default_collation = '{name}'")

        return [Weakening("a collation that folds case", lambda: collate("NOCASE"), lambda: collate(""))]

    def close(self) -> None:
        self._database.close()
        self._folder.cleanup()


class DuckHarness(Harness):
    adapter = "duckdb"

    def server(self) -> Server:
        return Server("real", f"DuckDB {duckdb.__version__}")

    def fresh(self, needs: Needs) -> Store:
        return DuckStore(needs)
