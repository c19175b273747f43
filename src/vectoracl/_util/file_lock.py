"""A lock file, held by one thread of one process. A crash releases the lock; releasing it removes the file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from vectoracl._util.private_files import open_private, read_private

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: the file itself is the lock, and has to be removed by hand after a crash
    fcntl = None


_LONGEST = 1_000


class FileLock:
    """Tries to lock *path* without waiting; `held` is whether it succeeded. Raises: OSError if locks are impossible.

    The holder writes *words* into the file; if another process holds the lock, `holder` is its text.
    """

    def __init__(self, path: str, words: str = "") -> None:
        self._path = path
        self._file = -1
        self._process = os.getpid()
        self.holder = ""
        self._try()
        if self.held:
            data = words.encode()
            os.truncate(self._file, 0)
            os.write(self._file, data)
        else:
            with contextlib.suppress(OSError, ValueError):  # it has ended since, or has not written yet
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
            # The former holder removed the file after it was opened here: another file has the name now.

    def _is(self, file: int) -> bool:
        """Return whether the path still names *file*."""
        try:
            return os.path.samestat(os.fstat(file), Path(self._path).lstat())
        except FileNotFoundError:
            return False

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file >= 0

    def release(self) -> None:
        """Remove the file and release the lock, if it is held."""
        if self._file >= 0:
            if self._process == os.getpid():  # else it was copied by a fork, and is the other process's
                with contextlib.suppress(OSError):  # an unlocked file may remain
                    Path(self._path).unlink()
                if fcntl is not None:  # a process that was forked has the file open too, which would keep the lock
                    fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = -1
