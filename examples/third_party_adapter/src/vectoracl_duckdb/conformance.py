"""The harness of the conformance kit: how to make an empty store, and how to read it without the adapter."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np

from vectoracl.records import Record, Tag
from vectoracl_conformance.harness import Harness, Needs, Server, Store


class DuckStore(Store):
    def __init__(self, needs: Needs) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        path = str(Path(self._folder.name) / "kit.duckdb")
        self._database = duckdb.connect(path)
        self.config = {"adapter": "duckdb", "path": path, "dimension": needs.dimension}
        self.single = self.config

    def census(self) -> Sequence[Record]:
        tag = ", ".join(f'"@{name}"' for name in Tag._fields)
        rows = self._database.cursor().execute(f'SELECT {tag}, "@text", "@vector", "@metadata" FROM chunks').fetchall()
        return [Record(Tag(*row[:11]), row[11], np.array(row[12], np.float32), json.loads(row[13])) for row in rows]

    def close(self) -> None:
        self._database.close()
        self._folder.cleanup()


class DuckHarness(Harness):
    adapter = "duckdb"

    def server(self) -> Server:
        return Server("real", f"DuckDB {duckdb.__version__}")

    def fresh(self, needs: Needs) -> Store:
        return DuckStore(needs)


harness = DuckHarness()
