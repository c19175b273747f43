"""Where decisions are recorded. A record that cannot be written stops the operation before anything is sent.

A record is one JSON object, keys sorted: {"id", "time", "action", "permit", "reasons", "policy", "store",
"partitions", "scope", "principal": {"id", "tenant", "kind", "by"}}; `scope` is a digest of the scope's JSON form.
An outcome is {"decision", "outcome", "returned", "ms"}; `outcome` is "ok", "empty", "denied", "violation", "cancelled",
"explained" (decided, not acted upon) or "error:CODE", also where the scope has no form on the store. Neither holds query text, chunk text, metadata or vectors.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from vectoracl.errors import ConfigError

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
        """Write what is noted and release everything."""
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
    """Appends one line a record to a file of mode 0600; safe for threads, and for processes by O_APPEND.

    Lines are {"decision": …} and {"outcome": …}. An outcome is written with the next decision or at close, so that
    the end of an operation never waits for a disk. `fsync` makes each decision durable before it is acted upon.
    """

    def __init__(self, path: str | Path, *, fsync: bool = False) -> None:
        self._path = Path(path)
        self._fsync = fsync
        self._lock = threading.Lock()
        self._noted: deque[AuditRecord] = deque()
        self._torn = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.name == "posix" and os.fstat(self._file).st_mode & 0o077:
                os.fchmod(self._file, 0o600)  # one that was made by other means is closed to others too
        except OSError as error:
            raise ConfigError(f"The audit file {self._path} cannot be written: {error.strerror}.") from None

    def write(self, record: AuditRecord) -> None:
        """Append *record*, after the outcomes noted so far."""
        with self._lock:
            self._append(b'{"decision":' + canonical(record) + b"}\n")

    def note(self, outcome: AuditRecord) -> None:
        """Keep *outcome* for the next write."""
        self._noted.append(outcome)

    def close(self) -> None:
        """Write the noted outcomes and close the file."""
        with self._lock, contextlib.suppress(OSError):
            if self._file >= 0:
                self._append(b"")
                os.close(self._file)
                self._file = -1

    def _append(self, line: bytes) -> None:
        noted = len(self._noted)
        outcomes = [b'{"outcome":' + canonical(self._noted[place]) + b"}\n" for place in range(noted)]
        # After a write that broke off in the middle of a line, the next one begins a line of its own.
        data = (b"\n" if self._torn else b"") + b"".join(outcomes) + line
        while data:
            written = os.write(self._file, data)
            self._torn = data[written - 1 : written] != b"\n"
            data = data[written:]
        for _ in range(noted):
            self._noted.popleft()
        if self._fsync and line:
            os.fsync(self._file)
