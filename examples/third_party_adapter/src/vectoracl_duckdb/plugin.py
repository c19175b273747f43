"""What pluggy sees, and the only place that touches DuckDB."""

import threading
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import duckdb

from vectoracl.adapter_api.contract import Capabilities, OpenContext, Opened, Threaded
from vectoracl.adapter_api.hookspecs import hookimpl
from vectoracl.adapter_api.settings import Model
from vectoracl.errors import DeniedError, StoreError
from vectoracl_duckdb.adapter import DuckAdapter, Row, Transaction

_WRITING = threading.Lock()  # one process has a file open for writing, so its writers take turns here


class DuckConfig(Model):
    """`[stores.NAME]` with adapter = "duckdb"."""

    path: Path
    dimension: int


class DuckPort:
    """Performs each request in one transaction, on a cursor of its own: threads may share the port."""

    parallel = 4

    def __init__(self, path: Path, table: str) -> None:
        self._database = duckdb.connect(path)
        self._database.execute(f"CREATE TABLE IF NOT EXISTS {table}")

    def execute(self, request: Transaction, timeout: float | None) -> list[Row]:
        committing = False
        try:
            with self._database.cursor() as cursor:
                timer = threading.Timer(threading.TIMEOUT_MAX if timeout is None else timeout, cursor.interrupt)
                timer.start()
                try:
                    with _WRITING if request.action else nullcontext():
                        cursor.execute("BEGIN")
                        if request.forbidden and cursor.execute(*request.forbidden).fetchone():
                            raise DeniedError("A chunk is outside of what may be written.", action=request.action)
                        rows = [cursor.execute(*statement).fetchall() for statement in request.statements]
                        if timer.finished.is_set():  # it struck while nothing ran, which DuckDB does not notice
                            raise duckdb.InterruptException
                        committing = True
                        cursor.execute("COMMIT")
                        return rows[-1]
                finally:  # to close the cursor rolls back what was not committed
                    timer.cancel()
                    timer.join()
        except duckdb.Error as error:
            text = f"DuckDB failed ({type(error).__name__})."  # and no more: what it says quotes rows and parameters
            code = "timeout" if isinstance(error, duckdb.InterruptException) else "store"
            raise StoreError(text, code=code, adapter="duckdb", sent="unknown" if committing else "no") from None

    def close(self) -> None:
        self._database.close()


@hookimpl
def vectoracl_config_model() -> type[DuckConfig]:
    return DuckConfig


@hookimpl
def vectoracl_describe() -> Capabilities:
    return DuckAdapter(1, {}).capabilities


@hookimpl
def vectoracl_open(config: DuckConfig, context: OpenContext) -> Opened:
    adapter = DuckAdapter(config.dimension, context.fields)
    port = partial(DuckPort, Path(context.base) / config.path, adapter.table)
    return Opened(adapter, port, lambda: Threaded(port()), server=lambda: f"DuckDB {duckdb.__version__}")
