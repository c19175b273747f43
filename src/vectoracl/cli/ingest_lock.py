"""One `ingest` at a time into one tenant of one store, on one machine and by one user."""

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
    """Return the folder of the locks: of the user, because two configurations in two folders may name one store."""
    state = os.environ.get("XDG_STATE_HOME")
    return Path(state if state else Path.home() / ".local" / "state") / "vectoracl"


@contextmanager
def alone(places: Iterable[str], tenant: str) -> Iterator[None]:
    """Hold the tenant in the store at *places* (`VectorACL.places`), or refuse: another `ingest` writes there.

    A store that is reached in two ways has a place in common, so each place is held by itself. A crash ends the locks.
    Where there can be none, a line on standard error says so and the work goes on.

    Raises: RefusedError, which says who holds it.
    """
    held: list[FileLock] = []
    try:
        for path in sorted({_path(place, tenant) for place in places}):
            lock, why = _taken(path)
            if lock is None:
                typer.echo(f"Another ingest at the same time would not be noticed: {folder()} {why}.", err=True)
                break
            if not lock.held:
                raise RefusedError(
                    f"Another `vectoracl ingest` writes to the tenant {one_line(tenant, 60)} of this store: "
                    f"{one_line(lock.holder, 200) or 'it says not which'}. Nothing was written. Wait for its end.",
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
    """Return the lock *name*, held or not; None and why where there can be none."""
    words = f"process {os.getpid()} on {socket.gethostname()}, run by {person()} since "
    words += datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        take_folder(folder(), lambda one: one.endswith(".lock"))
        return FileLock(str(folder() / name), words), ""
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        return None, f"cannot be used ({getattr(error, 'strerror', None) or type(error).__name__})"
