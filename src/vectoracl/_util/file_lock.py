"""A lock that one process, and one thread in it, holds by a file; a crash releases it, its end removes the file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from vectoracl._util.private_files import open_private, read_private

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: the file itself is the lock there, and one that a crash left behind is removed by hand
    fcntl = None


_LONGEST = 1_000


class FileLock:
    """Tries to hold *path* at once; `held` says whether it did. Raises: OSError where there can be no lock.

    Whoever holds it leaves *words* in the file, and `holder` is what the one that does had left.
    """

    def __init__(self, path: str, words: str = "") -> None:
        self._path = path
        self._file = -1
        self.holder = ""
        self._try()
        if self.held:
            data = words.encode()
            os.truncate(self._file, 0)
            os.write(self._file, data)
        else:
            with contextlib.suppress(OSError, ValueError):  # it ended meanwhile, or has left nothing yet
                self.holder = (read_private(path) or b"").decode()[:_LONGEST]

    def _try(self) -> None:
        path = self._path
        exclusive = os.O_EXCL if fcntl is None else 0
        while True:
            try:
                file = open_private(path, os.O_RDWR | os.O_CREAT | exclusive)
            except FileExistsError:
                return
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is(file):
                    self._file = file
                    return
            except BlockingIOError:
                return
            finally:
                if self._file != file:
                    os.close(file)
            # Whoever held it removed the file between our opening it and holding it: another one has the name now.

    def _is(self, file: int) -> bool:
        """Whether *file* is still what the path names."""
        try:
            return os.path.samestat(os.fstat(file), Path(self._path).lstat())
        except FileNotFoundError:
            return False

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file >= 0

    def release(self) -> None:
        """Remove the file and end the lock; nothing if it is not held."""
        if self._file >= 0:
            with contextlib.suppress(OSError):  # what is left is an empty file that nobody holds
                Path(self._path).unlink()
            os.close(self._file)
            self._file = -1
