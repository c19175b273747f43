"""The lock of `ingest`: one process per tenant of a store, for one user on one machine."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import typer

from vectoracl._util.file_lock import FileLock
from vectoracl._util.private_files import take_folder
from vectoracl.cli.common import one_line, person
from vectoracl.errors import RefusedError, without_context


def folder() -> Path:
    """Return the folder of the locks; it is the user's, since two configurations may name one store."""
    state = os.environ.get("XDG_STATE_HOME")
    return Path(state if state else Path.home() / ".local" / "state") / "vectoracl"


@contextmanager
def alone(places: Iterable[str], tenant: str) -> Iterator[None]:
    """Lock the tenant in the store identified by *places* (`VectorACL.store_identity`).

    If a store is reached in two ways, the two sets have a text in common, so each text is locked separately. A crash
    releases the locks. If locks are impossible, a line on standard error reports it and the work continues.

    Raises: RefusedError if another `ingest` writes there; it names the holder.
    """
    held: list[FileLock] = []
    try:
        for path in sorted({_path(place, tenant) for place in places}):
            lock, why = _taken(path)
            if lock is None:
                typer.echo(f"A concurrent ingest cannot be detected: {folder()} {why}.", err=True)
                break
            if not lock.held:
                raise RefusedError(
                    f"Another `vectoracl ingest` is writing to the tenant {one_line(tenant, 60)} of this store: "
                    f"{one_line(lock.holder, 200) or 'unknown process'}. Nothing was written. Wait until it ends.",
                    field="paths",
                )
            held.append(lock)
        yield
    finally:
        for lock in held:
            lock.release()


def _path(place: str, tenant: str) -> str:
    key = blake2b(f"{len(place)}:{place}{tenant}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    return f"ingest-{key}.lock"


@without_context
def _taken(name: str) -> tuple[FileLock | None, str]:
    """Return the lock *name*, held or not; None and the reason if locks are impossible."""
    words = f"process {os.getpid()} on {socket.gethostname()}, run by {person()} since "
    words += datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        take_folder(folder(), lambda one: one.endswith(".lock"))
        return FileLock(str(folder() / name), words), ""
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        return None, f"cannot be used ({getattr(error, 'strerror', None) or type(error).__name__})"
