"""The file of per-tenant keys, which the operator writes and the serving process reads.

    {"version": 1, "keys": {"t_acme": "…"}}

The file is created with mode 0600 and replaced atomically; a file that others can read is refused, not repaired. Keys
are never printed: they are stored in this file only.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from vectoracl._util.private_files import make_private_folder, open_private, replace_atomically
from vectoracl.errors import ConfigError, without_context

_LOOSE = stat.S_IRWXG | stat.S_IRWXO


class KeyFile:
    """Reads the file, and again whenever it was replaced: a key that was taken away is not used any more."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: Mapping[str, str] = {}

    def get(self, tenant: str) -> str | None:
        """Return the key of *tenant* (Weaviate's name); None: there is none. Raises: ConfigError."""
        return self._fresh().get(tenant)

    def tenants(self) -> tuple[str, ...]:
        """Return the tenants that there are keys for. Raises: ConfigError."""
        return tuple(sorted(self._fresh()))

    def _fresh(self) -> Mapping[str, str]:
        if self._path is None:
            return self._keys
        with self._lock:
            try:
                status = self._path.stat()
            except FileNotFoundError:
                self._seen, self._keys = None, {}
                return self._keys
            mark = (status.st_ino, status.st_mtime_ns, status.st_mode)
            if mark != self._seen:
                self._keys, self._seen = read(self._path), mark
            return self._keys


NO_KEYS: Final = KeyFile(None)


@without_context
def read(path: Path) -> dict[str, str]:
    """Return the keys by tenant; none if the file does not exist. Raises: ConfigError, which contains no keys."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"The file of tenant_keys cannot be read ({type(error).__name__}).") from None
    if os.name == "posix" and mode & _LOOSE:
        raise ConfigError("Users other than its owner may read the file of tenant_keys: run chmod 600 on it.")
    try:
        content = json.loads(data)
        keys = content["keys"] if content["version"] == 1 else None
    except (ValueError, KeyError, TypeError):
        keys = None
    if not isinstance(keys, dict) or not all(isinstance(one, str) and one for one in keys.values()):
        raise ConfigError("The file of tenant_keys does not have the format (version 1) that vectoracl writes.")
    return {str(name): str(key) for name, key in keys.items()}


@without_context
def _lock_of(path: Path) -> int:
    try:
        make_private_folder(path.parent)
        return open_private(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise ConfigError(f"The lock file of the file of tenant_keys cannot be opened: {error.strerror}.") from None


@contextmanager
def changing(path: Path) -> Iterator[dict[str, str]]:
    """Yield the keys, to one operator at a time, and write them at the end if they were changed."""
    with _exclusive(_lock_of(path)):
        keys = read(path)
        before = dict(keys)
        try:
            yield keys
        finally:
            if keys != before:
                write(path, keys)


@contextmanager
def _exclusive(lock: int) -> Iterator[None]:
    """Hold the open file *lock*, and close it. On a system without file locks, operators must take turns."""
    with os.fdopen(lock, "w") as file:
        try:
            import fcntl
        except ImportError:
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@without_context
def write(path: Path, keys: Mapping[str, str]) -> None:
    """Replace the file atomically, readable by its owner only. Raises: ConfigError."""
    try:
        make_private_folder(path.parent)
        replace_atomically(path, json.dumps({"version": 1, "keys": dict(sorted(keys.items()))}).encode())
    except OSError as error:
        raise ConfigError(f"The file of tenant_keys cannot be written: {error.strerror}.") from None
