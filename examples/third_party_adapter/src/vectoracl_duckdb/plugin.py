"""The hooks, and the port: the only place that touches DuckDB."""

import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import duckdb

import vectoracl.adapter_api as api
from vectoracl_duckdb.adapter import DuckAdapter, Transaction

_WRITING = threading.Lock()  # one process has a file open for writing, so its writers take turns here


class DuckConfig(api.Model):
    path: Path
    dimension: int


class DuckPort:
    """Performs each request in one transaction, on a separate cursor: threads may share the port."""

    parallel = 4

    def __init__(self, path: Path, table: str) -> None:
        self._database = duckdb.connect(path)
        self._database.execute(f"CREATE TABLE IF NOT EXISTS {table}")

    def execute(self, request: Transaction, timeout: float | None) -> list[object]:
        sent, turn = "no", _WRITING if request.action else nullcontext()
        try:
            # To close the cursor rolls back what was not committed.
            with self._database.cursor() as cursor, api.interrupted_after(timeout, cursor.interrupt) as late, turn:
                cursor.execute("BEGIN")
                if request.forbidden and cursor.execute(*request.forbidden).fetchone():
                    raise api.DeniedError("A chunk is outside of what may be written.", action=request.action)
                rows = [cursor.execute(*statement).fetchall() for statement in request.statements]
                if late.is_set():  # DuckDB does not notice an interruption while nothing runs
                    raise duckdb.InterruptException
                sent = "unknown"
                cursor.execute("COMMIT")
                return rows[-1]
        except duckdb.Error as error:  # its text quotes rows and parameters, so it is dropped
            code = "timeout" if isinstance(error, duckdb.InterruptException) else "store"
            raise api.StoreError(f"DuckDB: {type(error).__name__}.", code=code, adapter="duckdb", sent=sent) from None

    def close(self) -> None:
        self._database.close()


@api.hookimpl
def vectoracl_config_model() -> type[DuckConfig]:
    return DuckConfig


@api.hookimpl
def vectoracl_describe() -> api.Capabilities:
    return DuckAdapter(1, {}).capabilities


@api.hookimpl
def vectoracl_open(config: DuckConfig, context: api.OpenContext) -> api.Opened:
    adapter = DuckAdapter(config.dimension, context.fields)
    port = partial(DuckPort, Path(context.base) / config.path, adapter.table)
    return api.Opened(adapter, port, lambda: api.Threaded(port()), server=lambda: f"DuckDB {duckdb.__version__}")
