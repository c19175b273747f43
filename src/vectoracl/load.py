"""Streams of any length: batches in bounded memory, a journal to resume from, and a report that is exact."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from vectoracl.embed import BATCH
from vectoracl.errors import DeniedError, InvalidInputError, RefusedError, StoreError, TooLargeError, apart
from vectoracl.filelock import FileLock
from vectoracl.private_files import read_private, replace_atomically, try_replacing
from vectoracl.records import Chunk

_PATIENCE = 4.0
"""How many seconds a piece of texts may well take."""
LoadProgress = Callable[[int], None]
_END: Any = object()


@dataclass(slots=True)
class LoadReport:
    """What a load did: chunks written by this call, skipped because a journal says so, and the batches."""

    written: int = 0
    skipped: int = 0
    batches: int = 0

    @contextmanager
    def interruptible(self, journal: Journal, *, sending: bool = True) -> Iterator[None]:
        """Say on any error, also Ctrl-C and cancellation, exactly what was written before it.

        *sending* is False while nothing is on its way to the store.
        """
        try:
            yield
        except BaseException as error:
            if isinstance(error, StoreError):
                error.written = self.written
            certain = isinstance(error, RefusedError | DeniedError) or (
                isinstance(error, StoreError) and error.sent == "no"
            )
            unknown = (
                ""
                if certain or not sending
                else (" The batch after these may or may not have been written; writing it again is safe.")
            )
            error.add_note(
                f"load: {self.written:,} chunks were written by this call, {self.skipped:,} before.{unknown} "
                + journal.advice()
            )
            raise


class Journal:
    """How many chunks of a stream were written, with a digest of which: one small JSON file, replaced atomically.

    Without a path nothing is kept. The digest is over (document, id) of each chunk in order, so that another stream,
    or the same in another order, is refused instead of being skipped over. Two loads never share one: while a load
    runs it holds a lock on the file PATH.lock beside it, which it removes at its end.
    """

    def __init__(self, path: str | Path | None, tenant: str) -> None:
        self._path = None if path is None else Path(path)
        self._digest = hashlib.blake2b(tenant.encode(), digest_size=16)
        self._count = 0
        self._kept = 0
        self._kept_digest = ""
        self._lock: FileLock | None = None

    @apart
    def __enter__(self) -> Journal:
        if self._path is None:
            return self
        try:
            self._lock = FileLock(self._lock_path())
            if not self._lock.held:
                raise InvalidInputError(
                    f"Another load goes on with the journal {str(self._path)!r}. Wait for its end, or pass a journal "
                    "of its own to each load.",
                    field="resume",
                )
        except (OSError, ValueError) as error:
            raise self._unfit(error) from None
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _lock_path(self) -> str:
        # A journal that is a link is refused, but first it is said if a load goes on with what the link names.
        named = os.path.realpath(self._path or "") + ".lock"
        return named if Path(named).exists() else f"{self._path}.lock"

    def _unfit(self, error: Exception) -> InvalidInputError:
        why = getattr(error, "strerror", None) or "it is no path of a file"
        return InvalidInputError(
            f"The journal {str(self._path)!r} cannot be written: {why}. Pass a file in a folder that exists, on a "
            "file system with locks.",
            field="resume",
        )

    @apart
    def _read(self) -> None:
        assert self._path is not None
        # Before anything is written: a journal that cannot be kept would leave chunks that no later call skips.
        try:
            kept = read_private(self._path)
            try_replacing(self._path)
        except OSError as error:
            raise self._unfit(error) from None
        if kept is not None:
            try:
                data = orjson.loads(kept)
                self._kept, self._kept_digest = int(data["written"]), str(data["digest"])
                if not 0 <= self._kept < sys.maxsize:
                    raise ValueError("no count")
            except (ValueError, KeyError, TypeError):
                raise InvalidInputError(
                    f"{self._path} is no journal of a load. Remove it to start from the beginning.",
                    field="resume",
                ) from None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep the file: it is what a later call resumes from. The lock ends."""
        if self._lock is not None:
            self._lock.release()

    def _add(self, chunk: Chunk) -> None:
        for part in (chunk.document, chunk.id):
            raw = str(part).encode(errors="surrogatepass")
            self._digest.update(len(raw).to_bytes(8, "big") + raw)
        self._count += 1

    def skip(self, stream: Iterator[Chunk]) -> int:
        """Pass over the chunks that were written before; return their number. Raises: InvalidInputError."""
        for chunk in islice(stream, self._kept):
            if not isinstance(chunk, Chunk):
                raise InvalidInputError(f"The stream holds {type(chunk).__name__}, not a Chunk.", field="stream")
            self._add(chunk)
        if self._count != self._kept or (self._kept and self._digest.hexdigest() != self._kept_digest):
            raise InvalidInputError(
                f"The journal {self._path} belongs to another stream or tenant: its first {self._kept:,} chunks "
                "are not those of this one. Remove it to start from the beginning.",
                field="resume",
            )
        return self._count

    @apart
    def wrote(self, part: list[Chunk], report: LoadReport) -> None:
        """Keep that *part* was written. Raises: StoreError with the code "journal" if that cannot be kept."""
        report.written += len(part)
        report.batches += 1
        for chunk in part:
            self._add(chunk)
        if self._path is None:
            return
        try:
            data = orjson.dumps({"written": self._count, "digest": self._digest.hexdigest()})
            replace_atomically(self._path, data, sync=False)
        except OSError as error:
            raise self._failed(
                error,
                f"so it says {self._kept:,} chunks of the stream where {self._count:,} are in the store, and the load "
                f"ended here. Make room and go on: the last {self._count - self._kept:,} are then written again, "
                "which is safe.",
            ) from None
        self._kept = self._count

    def _failed(self, error: OSError, then: str) -> StoreError:
        why = error.strerror or type(error).__name__
        return StoreError(f"The journal {str(self._path)!r} cannot be written ({why}), {then}", code="journal")

    @apart
    def finish(self) -> None:
        """Remove the journal: the stream was written to its end. Raises: StoreError with the code "journal"."""
        if self._path is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error, "but every chunk of the stream is in the store: remove it by hand.") from None

    def advice(self) -> str:
        """Say how to go on."""
        if self._path is None:
            return "Pass resume=PATH to be able to go on where it stopped."
        return f"Call load() again with the same stream and resume={str(self._path)!r} to go on."


def batches(stream: Iterable[Chunk], size: int, journal: Journal, report: LoadReport) -> Iterator[list[Chunk]]:
    """Yield lists of up to *size* chunks, after those that the journal has.

    A document and id that come twice within one batch are put into two, so that the later one wins as it would in
    two calls. Memory holds one batch. An error of the stream itself gets the same note as one of the store.
    """
    if isinstance(stream, str | bytes) or not isinstance(stream, Iterable):
        raise InvalidInputError(f"load() takes a stream of Chunk, not {type(stream).__name__}.", field="stream")
    chunks = iter(stream)
    report.skipped = journal.skip(chunks)
    part: list[Chunk] = []
    seen: set[tuple[str, str]] = set()
    while True:
        with report.interruptible(journal, sending=False):
            chunk = next(chunks, _END)
            if chunk is _END:
                break
            if type(chunk) is not Chunk:
                raise InvalidInputError(f"The stream holds {type(chunk).__name__}, not a Chunk.", field="stream")
        key = (chunk.document, chunk.id)
        # An id that is no string is refused by the write; it need not have a hash here.
        known = isinstance(key[0], str) and isinstance(key[1], str)
        if known and key in seen:
            yield part
            part, seen = [], set()
        part.append(chunk)
        if known:
            seen.add(key)
        if len(part) >= size:
            yield part
            part, seen = [], set()
    if part:
        yield part


class Pieces:
    """Cuts batches into pieces, where their size was left to us.

    A piece fits one request of the store, and takes the embedder a few seconds, so that progress is heard of and little
    is lost where it ends.
    """

    def __init__(self, *, automatic: bool) -> None:
        self._automatic = automatic
        self._most = sys.maxsize
        self._embeddable = BATCH

    def of(self, part: list[Chunk]) -> list[list[Chunk]]:
        """Return *part* in pieces of the size that fitted last."""
        most = min(self._most, len(part))
        if self._automatic and any(chunk.vector is None for chunk in part):
            most = min(most, self._embeddable)
        return [part[start : start + most] for start in range(0, len(part), most)]

    def wrote(self, piece: list[Chunk], seconds: float, left: list[list[Chunk]]) -> list[list[Chunk]]:
        """Learn from how long *piece* took; return the pieces that are *left*, cut again."""
        before = self._embeddable
        if seconds > 2 * _PATIENCE:
            self._embeddable = max(1, len(piece) // 2)
        elif seconds < _PATIENCE / 2 and len(piece) >= self._embeddable:
            self._embeddable = 2 * len(piece)
        if self._embeddable == before or not left:
            return left
        return self.of([chunk for one in left for chunk in one])

    def smaller(self, piece: list[Chunk], error: TooLargeError) -> list[list[Chunk]]:
        """Return *piece*, which did not fit, in two. Raises: *error* where it cannot or must not be cut."""
        if not self._automatic or len(piece) < 2:
            raise error
        self._most = (len(piece) + 1) // 2
        return self.of(piece)
