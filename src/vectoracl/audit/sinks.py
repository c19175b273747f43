"""Where decisions are recorded. A record that cannot be written stops the operation before anything is sent.

A record is one JSON object, keys sorted: {"id", "time", "action", "permit", "reasons", "policy", "store",
"partitions", "scope", "principal": {"id", "tenant", "kind", "by"}}; `scope` is a digest of the scope's JSON form.
An outcome is {"decision", "outcome", "returned", "ms"}; `outcome` is "ok", "empty", "denied", "violation",
"cancelled", "rolled_back", "unknown", "explained" (decided and not acted upon) or "error:CODE", also where the scope
has no form on the store.
A write in the caller's own transaction is "ok" when that was committed, "rolled_back" when it, or a savepoint around
the write, was not, and "unknown" where nobody can tell (the connection was lost, or the sink closed before).
What was permitted and then refused by the rows themselves (a chunk outside of what may be written) is "denied" too. An
outcome that has no form in JSON is replaced by {"decision", "outcome": "unwritable", "why"}; outcomes that could not be
written for so long that they were too many to keep, by {"outcome": "lost", "lost": how many}.
Where a store is looked at and the configuration accepts findings (`accept`), a record with the action
"connect.accepted" or "check.accepted" names them and why, in `reasons`; without it the store is not served.
That of an adoption has "there", "tenants" and "refused" too (`hazmat.adopt`), and `returned` is what was copied.
With `[audit] returned = "hashed"` that of a read of chunks has "ids": {"key", "hashes", "more"} (see `returned`).
Neither holds query text, chunk text, metadata or vectors.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from vectoracl._util.private_files import make_private_folder, open_private
from vectoracl.errors import ConfigError, StoreError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None

_log = logging.getLogger("vectoracl")
_MOST_NOTED = 10_000
_CLOSING = 10.0
_STUCK = "a write to it does not end"
AuditRecord = Mapping[str, Any]


class Sink(Protocol):
    """Takes the records. `write` may raise, and then nothing is sent; `note` must neither raise nor block.

    `write` runs in a thread of ours, so that a `timeout` holds; a sink that has to be called in its caller's thread has
    an attribute `same_thread = True`.
    """

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
    """Return *record* as JSON with sorted keys and no blanks, in UTF-8; NumPy's numbers are numbers."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)


class JsonlSink:
    """Appends one line a record to a file of mode 0600; safe for threads, and for processes by O_APPEND and a lock.

    Lines are {"decision": …} and {"outcome": …}. An outcome is written with the next decision or at close, so that
    the end of an operation never waits for a disk. `fsync` makes each decision durable before it is acted upon.

    Each batch of whole lines is one write. A disk that fills in the middle of it can leave the beginning of a line
    behind: what follows, by whichever process, begins a line of its own, and no line is written twice.

    Before each write the path is looked at: a file that was renamed, removed or replaced is left, and the one that has
    its name now is opened, or made. It may be truncated in place. No link is followed, at any of these times. Folders
    that are missing are made with mode 0700, at the beginning only.
    """

    def __init__(self, path: str | Path, *, fsync: bool = False) -> None:
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 - a link in it stays what it is, and is refused
        self._name = str(self._path)
        self._fsync = fsync
        self._lock = threading.Lock()
        self._noted: deque[tuple[str, bytes]] = deque()
        self._lost = 0
        self._torn = False
        self._closed = False
        self._file = self._reader = -1
        self._end = 0
        try:
            if not self._path.parent.exists():
                make_private_folder(self._path.parent)
            self._open()
            return
        except OSError as error:
            why = _why(error)
        raise ConfigError(f"The audit file {self._path} cannot be written: {why}.")

    def _open(self) -> None:
        """Open what the path names now, in place of what is open. Raises: OSError; then that stays."""
        file, reader = open_private(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, regular=False), -1
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode):  # a pipe has no end to look at
            with contextlib.suppress(OSError):  # one that may only be appended to is not read
                reader = open_private(self._path, os.O_RDONLY)
            if reader >= 0 and not os.path.samestat(os.fstat(reader), found):
                os.close(reader)
                reader = -1
        before = (self._file, self._reader)
        self._file, self._reader, self._stat, self._torn, self._end = file, reader, found, False, found.st_size
        for one in before:
            if one >= 0:
                with contextlib.suppress(OSError):
                    os.close(one)

    def write(self, record: AuditRecord, *, timeout: float | None = None) -> None:
        """Append *record*, after the outcomes noted so far; wait for the locks for *timeout* seconds at the most.

        Raises: OSError, and then it was not kept whole; TimeoutError is one of them.
        """
        line = b'{"decision":' + canonical(record) + b"}\n"
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError(errno.ETIMEDOUT, "another thread holds the file")
        try:
            if self._closed:
                raise OSError(errno.EBADF, "the file was closed")
            self._append(line, deadline)
        finally:
            self._lock.release()

    def note(self, outcome: AuditRecord) -> None:
        """Keep *outcome* for the next write; of one that comes after `close`, only a log line says that it is lost."""
        noted = _noted(outcome)
        self._noted.append(noted)
        if self._closed:
            with contextlib.suppress(ValueError):  # `close` has still written it
                self._noted.remove(noted)
                _log.error("the outcome of decision %s came after the audit file was closed", noted[0])

    def close(self) -> None:
        """Write the noted outcomes and close the file, which is closed in any case.

        Raises: StoreError with the code "audit" if outcomes could not be written, with how many.
        """
        if not self._lock.acquire(timeout=_CLOSING):
            why: str | None = _STUCK
            lost = len(self._noted)
        else:
            try:
                if self._closed:
                    return
                self._closed = True
                why = self._ended()
                lost = len(self._noted)
                self._noted.clear()
            finally:
                self._lock.release()
        if why is not None:
            raise StoreError(
                f"The audit file {self._path} could not be written to its end ({why}): the outcomes of {lost:,} "
                "decisions are missing there. The decisions themselves are recorded.",
                code="audit",
                sent="no",
            )

    def _ended(self) -> str | None:
        """Write what is noted and close the file; return why that did not go well.

        In a thread, which a disk or pipe that does not answer keeps, and the file with it.
        """
        failed: list[str] = []

        def end() -> None:
            try:
                self._append(b"", time.monotonic() + _CLOSING)
            except OSError as error:
                failed.append(_why(error))

        if self._noted:
            thread = threading.Thread(target=end, name="vectoracl-audit", daemon=True)
            thread.start()
            thread.join(_CLOSING + 1)
            if thread.is_alive():
                return _STUCK
        for file in (self._file, self._reader):
            if file >= 0:
                try:
                    os.close(file)
                except OSError as error:
                    failed.append(_why(error))
        self._file = self._reader = -1
        return failed[0] if failed else None

    def _append(self, line: bytes, deadline: float | None) -> None:
        """Append what is noted and *line*. Raises: OSError; what was written whole is then not kept for later.

        Outcomes can wait, a decision cannot: where both together do not get in, the decision is tried alone.
        """
        noted = len(self._noted)
        if not noted and not line:
            return
        held = self._hold(deadline)
        try:
            why = ""
            try:
                self._write([self._noted[place][1] for place in range(noted)], line)
            except OSError as error:
                if not line or not noted:
                    raise
                why = _why(error)
            if why:
                self._write([], line)
                _log.error("the outcomes of %d decisions could not be written yet: %s", len(self._noted), why)
                self._shed()
        finally:
            if held:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        if self._fsync and line:
            os.fsync(self._file)

    def _write(self, waiting: list[bytes], line: bytes) -> None:
        """Write *waiting*, the first of what is noted, and *line*; what is written whole is noted no more."""
        noted = len(waiting)
        if line:
            waiting.append(line)
        while waiting:
            fresh = b"\n" if self._ends_torn() else b""
            data = fresh + b"".join(waiting)
            written = os.write(self._file, data)
            self._torn = data[written - 1 : written] != b"\n"
            self._end += written
            written -= len(fresh)
            # A line that lacks only its end is whole: what comes next begins with a new line.
            while waiting and written >= len(waiting[0]) - 1:
                written -= len(waiting.pop(0))
                if noted:
                    self._noted.popleft()
                    noted -= 1

    def _shed(self) -> None:
        """Keep no more outcomes in memory than fit; in place of the oldest ones stands how many were lost."""
        over = len(self._noted) - _MOST_NOTED
        if over <= 0:
            return
        for _ in range(over + 1):
            self._lost += 1 if self._noted.popleft()[0] else 0
        self._noted.appendleft(("", b'{"outcome":' + canonical({"lost": self._lost, "outcome": "lost"}) + b"}\n"))
        _log.critical("the outcomes of %d decisions are lost: they could not be written", self._lost)

    def _hold(self, deadline: float | None) -> bool:
        """Lock, among processes, the file that the path names now; False where there is no lock. Raises: OSError."""
        while True:
            held = _lock(self._file, deadline)
            try:
                if self._is_named():
                    return held
                self._open()  # which ends the lock with the file that it was on
            except BaseException:
                if held:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
                raise
            _log.warning("the audit file %s was removed or replaced; the one of that name now is written", self._path)

    def _is_named(self) -> bool:
        """Whether the path names the file that is open. Raises: OSError where that cannot be told."""
        try:
            found = os.lstat(self._name)
        except FileNotFoundError:
            return False
        if not os.path.samestat(found, self._stat):
            return False
        if found.st_size < self._end and stat.S_ISREG(found.st_mode):
            text = "the audit file %s was truncated from %d to %d bytes; records are appended to it"
            _log.error(text, self._path, self._end, found.st_size)
        self._end = found.st_size
        return True

    def _ends_torn(self) -> bool:
        """Whether the file ends within a line: one that this process or another one could not finish."""
        if self._reader < 0:
            return self._torn
        size = os.lseek(self._reader, 0, os.SEEK_END)
        return size > 0 and os.pread(self._reader, 1, size - 1) != b"\n"


def _noted(outcome: AuditRecord) -> tuple[str, bytes]:
    """Return the decision's id and the line of *outcome*; a marked one in place of what has no form in JSON."""
    decision = str(outcome.get("decision"))
    try:
        return decision, b'{"outcome":' + canonical(outcome) + b"}\n"
    except (TypeError, ValueError) as error:  # orjson's own errors are both
        why = type(error).__name__
    decision = decision[:256].encode(errors="backslashreplace").decode()
    _log.error("the outcome of decision %s cannot be written as JSON (%s); a marked one takes its place", decision, why)
    marked = {"decision": decision, "outcome": "unwritable", "why": why}
    return decision, b'{"outcome":' + canonical(marked) + b"}\n"


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _lock(file: int, deadline: float | None) -> bool:
    """Hold *file* among processes, so that its end stays what it is; False where the file system has no locks.

    Raises: TimeoutError at *deadline* (monotonic); OSError if the file is closed.
    """
    if fcntl is None:
        return False
    pause = 0.001
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if deadline is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            left = deadline - time.monotonic() if deadline is not None else pause
        except OSError as error:
            if error.errno == errno.EBADF:
                raise
            return False
        if left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock")
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)
