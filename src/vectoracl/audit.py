"""Where decisions are recorded. A record that cannot be written stops the operation before anything is sent.

A record is one JSON object, keys sorted: {"id", "time", "action", "permit", "reasons", "policy", "store",
"partitions", "scope", "principal": {"id", "tenant", "kind", "by"}}; `scope` is a digest of the scope's JSON form.
An outcome is {"decision", "outcome", "returned", "ms"}; `outcome` is "ok", "empty", "denied", "violation",
"cancelled", "explained" (decided and not acted upon) or "error:CODE", also where the scope has no form on the store.
That of an adoption has "there", "tenants" and "refused" too (`hazmat.adopt`), and `returned` is what was copied.
Neither holds query text, chunk text, metadata or vectors.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from vectoracl.errors import ConfigError, StoreError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None

_log = logging.getLogger("vectoracl")
AuditRecord = Mapping[str, Any]


class Sink(Protocol):
    """Takes the records. `write` may raise, and then nothing is sent; `note` must neither raise nor block."""

    def write(self, record: AuditRecord) -> None:
        """Keep the record of a decision before it is acted upon."""
        ...

    def note(self, outcome: AuditRecord) -> None:
        """Keep, in memory, what became of a decision; written at the next opportunity."""
        ...

    def close(self) -> None:
        """Write what is noted and release everything. Raises: StoreError if something could not be written."""
        ...


class MemorySink:
    """Keeps the newest records in memory; `records` and `outcomes` are oldest first."""

    def __init__(self, keep: int = 10_000) -> None:
        self.records: deque[AuditRecord] = deque(maxlen=keep)
        self.outcomes: deque[AuditRecord] = deque(maxlen=keep)

    def write(self, record: AuditRecord) -> None:
        """Keep *record*."""
        self.records.append(record)

    def note(self, outcome: AuditRecord) -> None:
        """Keep *outcome*."""
        self.outcomes.append(outcome)

    def close(self) -> None:
        """Keep everything readable; there is nothing to release."""


def canonical(record: AuditRecord) -> bytes:
    """Return *record* as JSON with sorted keys and no blanks, in UTF-8."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)


class JsonlSink:
    """Appends one line a record to a file of mode 0600; safe for threads, and for processes by O_APPEND and a lock.

    Lines are {"decision": …} and {"outcome": …}. An outcome is written with the next decision or at close, so that
    the end of an operation never waits for a disk. `fsync` makes each decision durable before it is acted upon.

    Each batch of whole lines is one write. A disk that fills in the middle of it can leave the beginning of a line
    behind: what follows, by whichever process, begins a line of its own, and no line is written twice.
    """

    def __init__(self, path: str | Path, *, fsync: bool = False) -> None:
        self._path = Path(path)
        self._fsync = fsync
        self._lock = threading.Lock()
        self._noted: deque[AuditRecord] = deque()
        self._torn = False
        self._closed = False
        self._reader = -1
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            mode = os.fstat(self._file).st_mode
            if os.name == "posix" and mode & 0o077:
                os.fchmod(self._file, 0o600)  # one that was made by other means is closed to others too
        except OSError as error:
            raise ConfigError(f"The audit file {self._path} cannot be written: {error.strerror}.") from None
        if stat.S_ISREG(mode):  # a pipe has no end to look at; one that may only be appended to is not read
            with contextlib.suppress(OSError):
                self._reader = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def write(self, record: AuditRecord) -> None:
        """Append *record*, after the outcomes noted so far. Raises: OSError, and then it was not kept whole."""
        with self._lock:
            self._append(b'{"decision":' + canonical(record) + b"}\n")

    def note(self, outcome: AuditRecord) -> None:
        """Keep *outcome* for the next write; of one that comes after `close`, only a log line says that it is lost."""
        self._noted.append(outcome)
        if self._closed:
            with contextlib.suppress(ValueError):  # `close` has still written it
                self._noted.remove(outcome)
                _log.error("the outcome of decision %s came after the audit file was closed", outcome.get("decision"))

    def close(self) -> None:
        """Write the noted outcomes and close the file, which is closed in any case.

        Raises: StoreError with the code "audit" if outcomes could not be written, with how many.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            why = None
            try:
                self._append(b"")
            except OSError as error:
                why = error.strerror
            for file in (self._file, self._reader):
                if file >= 0:
                    try:
                        os.close(file)
                    except OSError as error:
                        why = why or error.strerror
            self._file = self._reader = -1
            lost = len(self._noted)
            self._noted.clear()
        if why is not None:
            raise StoreError(
                f"The audit file {self._path} could not be written to its end ({why}): the outcomes of {lost:,} "
                "decisions are missing there. The decisions themselves are recorded.",
                code="audit",
                sent="no",
            )

    def _append(self, line: bytes) -> None:
        """Append what is noted and *line*. Raises: OSError; what was written whole is then not kept for later."""
        noted = len(self._noted)
        waiting = [b'{"outcome":' + canonical(self._noted[place]) + b"}\n" for place in range(noted)]
        if line:
            waiting.append(line)
        if not waiting:
            return
        held = _lock(self._file)
        try:
            while waiting:
                fresh = b"\n" if self._ends_torn() else b""
                data = fresh + b"".join(waiting)
                written = os.write(self._file, data)
                self._torn = data[written - 1 : written] != b"\n"
                written -= len(fresh)
                # A line that lacks only its end is whole: what comes next begins with a new line.
                while waiting and written >= len(waiting[0]) - 1:
                    written -= len(waiting.pop(0))
                    if noted:
                        self._noted.popleft()
                        noted -= 1
        finally:
            if held:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        if self._fsync and line:
            os.fsync(self._file)

    def _ends_torn(self) -> bool:
        """Whether the file ends within a line: one that this process or another one could not finish."""
        if self._reader < 0:
            return self._torn
        size = os.lseek(self._reader, 0, os.SEEK_END)
        return size > 0 and os.pread(self._reader, 1, size - 1) != b"\n"


def _lock(file: int) -> bool:
    """Hold *file* among processes, so that its end stays what it is; False where the file system has no locks.

    Raises: OSError if the file is closed.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
        return False
    return True
