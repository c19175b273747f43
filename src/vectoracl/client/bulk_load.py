"""Bulk loads: batches of a stream in bounded memory, with an exact report."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from vectoracl.engine.load_journal import Journal
from vectoracl.errors import DeniedError, InvalidInputError, RefusedError, StoreError, TooLargeError
from vectoracl.model.records import Chunk
from vectoracl.text.embedders import BATCH

_PATIENCE = 4.0
"""The number of seconds that embedding and writing one piece should take."""
LoadProgress = Callable[[int], None]
_END: Any = object()


@dataclass(slots=True)
class LoadReport:
    """The result of a load.

    Attributes:
        written: The number of chunks that this call wrote.
        skipped: The number of chunks that an earlier load had written, according to the journal and the store.
        batches: The number of batches that this call wrote.
    """

    written: int = 0
    skipped: int = 0
    batches: int = 0

    def wrote(self, chunks: list[Chunk]) -> None:
        """Count *chunks*, a written batch."""
        self.written += len(chunks)
        self.batches += 1

    @contextmanager
    def interruptible(self, journal: Journal, *, sending: bool = True) -> Iterator[None]:
        """Attach a note with the exact progress to any error, also to Ctrl-C and cancellation.

        *sending* is False while no request to the store is pending.
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


class Part(NamedTuple):
    """The next chunks; `known` is whether the journal lists them with their present content."""

    chunks: list[Chunk]
    known: bool = False


def batches(stream: Iterable[Chunk], size: int, journal: Journal, report: LoadReport) -> Iterator[Part]:
    """Yield the parts that the journal lists, then parts of up to *size* chunks.

    If a document and id occur twice within a batch, it is split, so that the later chunk wins as in two calls. Memory
    holds one batch. An error of the stream gets the same note as one of the store.
    """
    _check_stream(stream)
    chunks = _checked(iter(stream), journal, report)
    for entry in journal.begun():
        some = list(islice(chunks, entry.chunks))
        yield Part(some, journal.compare(entry, some))
        with report.interruptible(journal, sending=False):
            journal.passed()
    part: list[Chunk] = []
    keys: set[tuple[str, str]] = set()
    for chunk in chunks:
        key = (chunk.document, chunk.id)
        # An id that is not a str is refused by the write; it may not be hashable here.
        known = isinstance(key[0], str) and isinstance(key[1], str)
        if known and key in keys:
            yield Part(part)
            part, keys = [], set()
        part.append(chunk)
        if known:
            keys.add(key)
        if len(part) >= size:
            yield Part(part)
            part, keys = [], set()
    if part:
        yield Part(part)


def _check_stream(stream: object) -> None:
    """Refuse what is not a stream of chunks. Raises: InvalidInputError."""
    if isinstance(stream, str | bytes) or not isinstance(stream, Iterable):
        raise InvalidInputError(f"load() takes an iterable of Chunk, got {type(stream).__name__}.", field="stream")


def _checked(stream: Iterator[Chunk], journal: Journal, report: LoadReport) -> Iterator[Chunk]:
    while True:
        with report.interruptible(journal, sending=False):
            chunk = next(stream, _END)
            if chunk is _END:
                return
            if type(chunk) is not Chunk:
                raise InvalidInputError(f"The stream must hold Chunk, got {type(chunk).__name__}.", field="stream")
        yield chunk


class Pieces:
    """Splits batches into pieces, unless the caller chose a batch size.

    A piece fits one request of the store and takes the embedder a few seconds, so that progress is reported often and
    little work is lost at an interruption.
    """

    def __init__(self, *, automatic: bool) -> None:
        self._automatic = automatic
        self._most = sys.maxsize
        self._embeddable = BATCH

    def of(self, part: list[Chunk]) -> list[list[Chunk]]:
        """Return *part* in pieces of the last size that fitted."""
        most = min(self._most, len(part))
        if self._automatic and any(chunk.vector is None for chunk in part):
            most = min(most, self._embeddable)
        return [part[start : start + most] for start in range(0, len(part), most)]

    def wrote(self, piece: list[Chunk], seconds: float, left: list[list[Chunk]]) -> list[list[Chunk]]:
        """Adapt the size to the *seconds* that *piece* took; return the pieces that are *left*, split again."""
        before = self._embeddable
        if seconds > 2 * _PATIENCE:
            self._embeddable = max(1, len(piece) // 2)
        elif seconds < _PATIENCE / 2 and len(piece) >= self._embeddable:
            self._embeddable = 2 * len(piece)
        if self._embeddable == before or not left:
            return left
        return self.of([chunk for one in left for chunk in one])

    def smaller(self, piece: list[Chunk], error: TooLargeError) -> list[list[Chunk]]:
        """Return *piece*, which did not fit, in two halves. Raises: *error* if it cannot or must not be split."""
        if not self._automatic or len(piece) < 2:
            raise error
        self._most = (len(piece) + 1) // 2
        return self.of(piece)
