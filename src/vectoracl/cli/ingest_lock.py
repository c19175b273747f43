"""The lock of `ingest`: one process per tenant of a store, for one user on one machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import typer

from vectoracl._util.file_lock import FileLock
from vectoracl._util.private_files import take_folder
from vectoracl.cli.common import one_line, person
from vectoracl.cli.shards import Which
from vectoracl.errors import RefusedError, without_context

_PATIENCE = 10.0
_PAUSE = 0.02


def folder() -> Path:
    """Return the folder of the locks; it is the user's, since two configurations may name one store."""
    state = os.environ.get("XDG_STATE_HOME")
    return Path(state if state else Path.home() / ".local" / "state") / "vectoracl"


@contextmanager
def alone(places: Iterable[str], tenant: str, part: Which | None = None) -> Iterator[None]:
    """Lock the tenant in the store identified by *places* (`VectorACL.store_identity`), or a *part* of its documents.

    Parts of the same number can run next to each other, but neither next to an ingest of all documents nor next to
    parts of another number.

    If a store is reached in two ways, the two sets have a text in common, so each text is locked separately. A crash
    releases the locks. If locks are impossible, a line on standard error reports it and the work continues.

    Raises: RefusedError if another `ingest` writes there; it names the holder.
    """
    held: list[FileLock] = []
    try:
        for key in sorted({_key(place, tenant) for place in places}):
            gate, why = _gate(key, tenant)
            if gate is None:
                typer.echo(f"A concurrent ingest cannot be detected: {folder()} {why}.", err=True)
                break
            try:
                held.append(_free(_name(key, part), tenant))
                for name in _excluded(key, part):
                    _free(name, tenant).release()
            finally:
                gate.release()
        yield
    finally:
        for lock in held:
            lock.release()


def _gate(key: str, tenant: str) -> tuple[FileLock | None, str]:
    """Return the lock under which the other ones are taken; None and the reason if locks are impossible.

    Whether another lock is free is found by taking it for a moment, which parts that start at once must not see.

    Raises: RefusedError if it does not become free.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        lock, why = _taken(f"gate-{key}.lock")
        if lock is None or lock.held:
            return lock, why
        if time.monotonic() > until:
            raise _other(tenant, lock)
        time.sleep(_PAUSE)


def _free(name: str, tenant: str) -> FileLock:
    """Return the lock *name*, held. Raises: RefusedError if another process holds it, or locks have failed since."""
    lock, why = _taken(name)
    if lock is None:
        raise RefusedError(
            f"The locks of `ingest` fail: {folder()} {why}. Nothing was written. Run the same command again.",
            field="paths",
        )
    if not lock.held:
        raise _other(tenant, lock)
    return lock


def _other(tenant: str, lock: FileLock) -> RefusedError:
    return RefusedError(
        f"Another `vectoracl ingest` is writing to the tenant {one_line(tenant, 60)} of this store: "
        f"{one_line(lock.holder, 200) or 'unknown process'}. Nothing was written. Wait until it ends.",
        field="paths",
    )


def _key(place: str, tenant: str) -> str:
    return blake2b(f"{len(place)}:{place}{tenant}".encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _name(key: str, part: Which | None) -> str:
    return f"ingest-{key}.lock" if part is None else f"ingest-{key}-{part.number}of{part.of}.lock"


def _excluded(key: str, part: Which | None) -> list[str]:
    """Return the names of the existing locks that must not be held next to *part*."""
    pattern = f"ingest-{key}-*.lock"
    names = [path.name for path in folder().glob(pattern)]
    if part is None:
        return names
    return [_name(key, None), *(name for name in names if not name.endswith(f"of{part.of}.lock"))]


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
