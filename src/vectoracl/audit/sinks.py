"""Audit sinks: where decisions are recorded. If a record cannot be written, the operation stops before it is sent.

There are two kinds of entries. A *record* is written before the operation acts, and the operation waits for it. An
*outcome* is noted in memory afterwards, which never blocks, and is written with the next record or at close.

A record is one JSON object with sorted keys: {"id", "time", "action", "permit", "reasons", "policy", "store",
"partitions", "scope", "principal": {"id", "tenant", "kind", "by"}}; `scope` is a digest of the scope's JSON form.
Of a handle that names a pipeline it also has "source" (`scoped(source=…)`).
If the configuration accepts findings of a store (`accept`), a record with the action "connect.accepted" or
"check.accepted" lists them in `reasons`; without that record the store is not served.

An outcome is {"decision", "outcome", "returned", "ms"}, where `outcome` is one of:

- "ok"; "empty" (an empty scope); "explained" (decided but not acted upon); "cancelled";
- "denied", also if the rows refused it (a chunk outside the scope of the write); "violation" (the second lock);
- "error:CODE", also if the scope has no form on the store;
- for a write in the caller's own transaction, "ok" after its commit, "rolled_back" if it or a savepoint was rolled
  back, and "unknown" if that cannot be determined (the connection was lost, or the sink was closed before);
- "unwritable", with "why", in place of an outcome without a JSON form; "lost", with the number "lost", in place of
  outcomes that could not be written and were too many to keep.

The outcome of an import of existing rows also has "there", "tenants" and "refused" (`hazmat.adopt`), and "returned" is
the number of copied rows. With `[audit] returned = "hashed"` the outcome of a read of chunks has "ids": {"key",
"hashes", "more"} (`returned_hashes`). With `[ingest] validators` the outcome of a write has "validators": the verdicts
up to the first refusal, as {"validator", "verdict", "reason", "documents"}, the last one being the number of documents
that got it; and {"more"}, the number of further verdicts, if there are more than 100. Neither kind of entry holds query
text, chunk text, metadata or vectors.

`JsonlSink` appends whole lines to a file that several processes may share and that others may rotate. Three rules keep
the file readable: each batch of lines is one `write` under a lock among processes; before each write the path is
checked, and if it names another file, that one is opened; after a torn line (a full disk), a new line is begun.
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
    """The protocol of an audit sink. If `write` raises, nothing is sent; `note` must neither raise nor block.

    `write` runs in a worker thread, so that a `timeout` holds. A sink that has to be called in the caller's thread
    declares an attribute `same_thread = True`.
    """

    def write(self, record: AuditRecord) -> None:
        """Write the record of a decision before it is acted upon. An exception stops the operation."""
        ...

    def note(self, outcome: AuditRecord) -> None:
        """Keep the outcome of a decision in memory, to be written at the next opportunity."""
        ...

    def close(self) -> None:
        """Write the noted outcomes and release everything. Raises: StoreError if some could not be written."""
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
        """Do nothing: the records stay readable."""


def canonical(record: AuditRecord) -> bytes:
    """Return *record* as JSON with sorted keys and no blanks, in UTF-8; NumPy numbers are written as numbers."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY)


class JsonlSink:
    """Appends one line per entry to a file of mode 0600; safe for threads, and for processes by O_APPEND and a lock.

    Lines are {"decision": …} and {"outcome": …}. An outcome is written with the next decision or at close, so that
    the end of an operation never waits for a disk. `fsync` makes each decision durable before it is acted upon.

    Each batch of whole lines is one write. If the disk fills up during a write, the beginning of a line may remain: the
    next entry, of whichever process, starts a new line, and no line is written twice.

    Before each write the path is checked: if the file was renamed, removed or replaced, the file that has its name now
    is opened, or created. The file may be truncated in place. Symbolic links are never followed. Missing folders are
    created with mode 0700, only when the sink is opened.
    """

    def __init__(self, path: str | Path, *, fsync: bool = False) -> None:
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links in the path, so that they are refused
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
        """Open the file that the path names now, in place of the open one. Raises: OSError; the open one stays."""
        file, reader = open_private(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, regular=False), -1
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode):  # a pipe has no end that could be read
            with contextlib.suppress(OSError):  # no permission to read: the end of the file is not checked
                reader = open_private(self._path, os.O_RDONLY)
            if reader >= 0 and not os.path.samestat(os.fstat(reader), status):
                os.close(reader)
                reader = -1
        before = (self._file, self._reader)
        self._file, self._reader, self._stat, self._torn, self._end = file, reader, status, False, status.st_size
        for one in before:
            if one >= 0:
                with contextlib.suppress(OSError):
                    os.close(one)

    def write(self, record: AuditRecord, *, timeout: float | None = None) -> None:
        """Append *record* after the noted outcomes; wait for the locks for at most *timeout* seconds.

        Raises: OSError (or its subclass TimeoutError) if the record was not written whole.
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
        """Keep *outcome* for the next write; one that comes after `close` is lost, and only logged."""
        noted = _noted(outcome)
        self._noted.append(noted)
        if self._closed:
            with contextlib.suppress(ValueError):  # not found: `close` has written it
                self._noted.remove(noted)
                _log.error("the outcome of decision %s came after the audit file was closed", noted[0])

    def close(self) -> None:
        """Write the noted outcomes and close the file, in any case.

        Raises: StoreError with the code "audit" and the number of outcomes that could not be written.
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
                f"The audit file {self._path} could not be completed ({why}): the outcomes of {lost:,} decisions are "
                "missing in it. The decisions themselves are recorded.",
                code="audit",
                sent="no",
            )

    def _ended(self) -> str | None:
        """Write the noted outcomes and close the file; return the reason if that failed, else None.

        It writes in a thread, since a disk or pipe that does not answer would block this one.
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
        """Append the noted outcomes and *line*. Raises: OSError; outcomes that were written whole are not kept.

        Outcomes can wait, a decision cannot: if both together cannot be written, the decision is tried alone.
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
        """Write *waiting*, the first noted outcomes, and *line*; outcomes that are written whole are dropped."""
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
            # A line that lacks only its line break is whole: the next entry starts with one.
            while waiting and written >= len(waiting[0]) - 1:
                written -= len(waiting.pop(0))
                if noted:
                    self._noted.popleft()
                    noted -= 1

    def _shed(self) -> None:
        """Drop the oldest outcomes beyond the limit; one entry with their number takes their place."""
        over = len(self._noted) - _MOST_NOTED
        if over <= 0:
            return
        for _ in range(over + 1):
            self._lost += 1 if self._noted.popleft()[0] else 0
        self._noted.appendleft(("", b'{"outcome":' + canonical({"lost": self._lost, "outcome": "lost"}) + b"}\n"))
        _log.critical("the outcomes of %d decisions are lost: they could not be written", self._lost)

    def _hold(self, deadline: float | None) -> bool:
        """Lock the file that the path names now among processes; False if the system has no locks. Raises: OSError."""
        while True:
            held = _lock(self._file, deadline)
            try:
                if self._is_named():
                    return held
                self._open()  # closes the old file, which releases its lock
            except BaseException:
                if held:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
                raise
            _log.warning("the audit file %s was removed or replaced; records go to the present file", self._path)

    def _is_named(self) -> bool:
        """Return whether the path names the open file. Raises: OSError if that cannot be determined."""
        try:
            status = os.lstat(self._name)
        except FileNotFoundError:
            return False
        if not os.path.samestat(status, self._stat):
            return False
        if status.st_size < self._end and stat.S_ISREG(status.st_mode):
            text = "the audit file %s was truncated from %d to %d bytes; records are appended to it"
            _log.error(text, self._path, self._end, status.st_size)
        self._end = status.st_size
        return True

    def _ends_torn(self) -> bool:
        """Return whether the file ends within a line that this or another process could not complete."""
        if self._reader < 0:
            return self._torn
        size = os.lseek(self._reader, 0, os.SEEK_END)
        return size > 0 and os.pread(self._reader, 1, size - 1) != b"\n"


def _noted(outcome: AuditRecord) -> tuple[str, bytes]:
    """Return the decision's id and the line of *outcome*; a substitute line for an outcome without a JSON form."""
    decision = str(outcome.get("decision"))
    try:
        return decision, b'{"outcome":' + canonical(outcome) + b"}\n"
    except (TypeError, ValueError) as error:  # orjson's own errors are both
        why = type(error).__name__
    decision = decision[:256].encode(errors="backslashreplace").decode()
    _log.error("the outcome of decision %s cannot be written as JSON (%s); it is marked as unwritable", decision, why)
    marked = {"decision": decision, "outcome": "unwritable", "why": why}
    return decision, b'{"outcome":' + canonical(marked) + b"}\n"


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _lock(file: int, deadline: float | None) -> bool:
    """Lock *file* among processes, so that no other process appends; False if the file system has no locks.

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
            time_left = deadline - time.monotonic() if deadline is not None else pause
        except OSError as error:
            if error.errno == errno.EBADF:
                raise
            return False
        if time_left <= 0:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds its lock")
        time.sleep(min(pause, time_left))
        pause = min(2 * pause, 0.05)
