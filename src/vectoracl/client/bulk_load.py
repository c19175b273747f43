"""Bulk loads: batches of a stream in bounded memory, some of them in flight concurrently, with an exact report.

A load keeps up to `Capabilities.writes_in_flight` batches in flight, and everything that it reports is in the order of
the stream: a batch counts as written, in the report, the journal and the progress, once it and all batches before it
are written. So `written` chunks from the beginning of the stream are certainly in the store, as without concurrency;
the batches that were in flight behind them may be there too. Two batches with the same document and chunk id are never
in flight together, so the later chunk wins. After a failure no batch is begun, and the load ends when those in flight
have ended: nothing of it is written later.

`Load.steps` is the one order of all that; it yields actions, which the two retrievers perform.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

import orjson

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.engine.load_journal import Journal
from vectoracl.errors import DeniedError, InvalidInputError, RefusedError, StoreError, TooLargeError
from vectoracl.model.records import Chunk
from vectoracl.text.embedders import BATCH

_PATIENCE = 4.0
"""The number of seconds that embedding and writing one piece should take."""
_SLOW = 5.0
"""The number of seconds of one write after which fewer are kept in flight: more would only wait for each other."""
_TAG_BYTES = 700
"""An estimate of the size of a chunk's ids and tag in a request."""
LONGEST_PAUSE = 60.0
"""The longest pause, in seconds, that a load makes because the store limits its rate."""
LIMITED_ROUNDS = 8
"""The number of pauses in a row after which a load ends with the store's error."""
LoadProgress = Callable[[int], None]


@dataclass(slots=True)
class LoadReport:
    """The result of a load.

    Attributes:
        written: The number of chunks that this call wrote.
        skipped: The number of chunks that an earlier load had written, according to the journal and the store.
        batches: The number of batches that this call wrote.
        quarantined: The documents that a validator put under quarantine: they are stored, and no one retrieves them.
    """

    written: int = 0
    skipped: int = 0
    batches: int = 0
    quarantined: tuple[str, ...] = ()


class Part(NamedTuple):
    """The next chunks; `listed` is whether the journal lists them, `known` whether with their present content."""

    chunks: list[Chunk]
    listed: bool = False
    known: bool = False


class Piece:
    """Chunks that are written by one call; `error` is what it ended with.

    `begun` is whether it may have been sent, `ended` whether its outcome is known.
    """

    __slots__ = ("begun", "chunks", "ended", "error", "keys", "quarantined", "seconds", "task")

    def __init__(self, chunks: list[Chunk]) -> None:
        self.chunks = chunks
        self.keys = {key for chunk in chunks if (key := _key(chunk)) is not None}
        self.task: Any = None
        self.reset()

    def reset(self) -> None:
        """Make it a piece that was never begun."""
        self.begun = self.ended = False
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.quarantined: tuple[str, ...] = ()

    def end(self, error: BaseException | None, seconds: float, quarantined: tuple[str, ...] = ()) -> None:
        """Note the outcome, with the documents that were put under quarantine."""
        self.error, self.seconds, self.quarantined, self.ended = error, seconds, quarantined, True

    @property
    def written(self) -> bool:
        """Whether it is certainly in the store."""
        return self.ended and self.error is None

    @property
    def unsent(self) -> bool:
        """Whether nothing of it is in the store."""
        if not self.begun:
            return True
        return isinstance(self.error, RefusedError | DeniedError) or (
            isinstance(self.error, StoreError) and self.error.sent == "no"
        )


class Look(NamedTuple):
    """Return whether the store holds these chunks."""

    chunks: list[Chunk]


class Begin(NamedTuple):
    """Begin to write the piece; with `alone`, also wait for its end, in the caller's own thread or task."""

    piece: Piece
    alone: bool


class Await(NamedTuple):
    """Wait until the piece, which was begun, has ended."""

    piece: Piece


class Pause(NamedTuple):
    """Wait."""

    seconds: float


class Announce(NamedTuple):
    """Call the progress callback."""

    written: int


Steps = Generator[Look | Begin | Await | Pause | Announce, Any, None]


class Load:
    """One load: the pieces in flight, in the order of the stream, and what is reported of them."""

    def __init__(
        self, stream: Iterable[Chunk], size: int, journal: Journal, can: Capabilities, *, automatic: bool
    ) -> None:
        _check_stream(stream)
        self.report = LoadReport()
        self.most = max(1, can.writes_in_flight)
        self._width = self.most
        self._limit = Limit(size, can if automatic else None)
        self._stream = stream
        self._journal = journal
        self._pieces = Pieces(automatic=automatic)
        self._window: deque[Piece] = deque()
        self._queue: list[list[Chunk]] = []
        self._limited = 0
        self._streak = 0
        self._noting = False  # whether the journal is being written: an interruption may leave it one line behind

    @property
    def tasks(self) -> list[Any]:
        """The tasks that write the pieces in flight."""
        return [piece.task for piece in self._window if piece.task is not None]

    def steps(self) -> Steps:
        """Yield what is to be done; the reply of `Look` is whether the chunks are there."""
        for part in batches(self._stream, self._limit, self._journal):
            if part.known and (yield Look(part.chunks)):
                self._journal.skipped(part.chunks)
                self.report.skipped += len(part.chunks)
                continue
            self._queue = self._pieces.of(part.chunks)
            while self._queue:
                yield from self._put(Piece(self._queue.pop(0)))
            if part.listed:  # the journal passes over the entry next
                yield from self._drain()
        yield from self._drain()
        self._journal.finish()

    def _put(self, piece: Piece) -> Steps:
        """Begin *piece* as soon as there is room and none of its chunks is in flight."""
        # The embedder takes most of the time, and several calls of it at once would not be faster.
        alone = self.most == 1 or any(chunk.vector is None for chunk in piece.chunks)
        while self._window and (
            alone
            or len(self._window) >= self._width
            or not all(piece.keys.isdisjoint(other.keys) for other in self._window)
        ):
            yield from self._settle()
        self._window.append(piece)
        yield from self._begin(piece, alone=alone)
        if alone:
            yield from self._drain()

    def _begin(self, piece: Piece, *, alone: bool) -> Steps:
        piece.begun = True
        yield Begin(piece, alone)

    def _drain(self) -> Steps:
        while self._window:
            yield from self._settle()

    def _settle(self) -> Steps:
        """Wait for the oldest piece, and report it. Raises: the error that it ended with."""
        piece = self._window[0]
        if not piece.begun:
            yield from self._begin(piece, alone=True)
        if not piece.ended:
            yield Await(piece)
        error = piece.error
        if error is None:
            self._window.popleft()
            self._queue = self._pieces.wrote(piece.chunks, piece.seconds, self._queue)
            self._wrote(piece)
            yield Announce(self.report.written)
        elif isinstance(error, TooLargeError):
            halves = self._pieces.smaller(piece.chunks, error)
            self._window.popleft()
            self._window.extendleft(Piece(one) for one in reversed(halves))
            self._queue = self._pieces.of([chunk for one in self._queue for chunk in one])
        elif _limits_rate(error) and self._limited < LIMITED_ROUNDS:
            yield from self._slow_down(error)
        else:
            raise error

    def _slow_down(self, error: StoreError) -> Steps:
        """Pause as the store asks for, with nothing in flight, and continue with half as many pieces in flight.

        Nothing of the pieces that were turned away was written.
        """
        self._width, self._streak = max(1, self._width // 2), 0
        for piece in self._window:
            if piece.begun and not piece.ended:
                yield Await(piece)
        limited = [piece for piece in self._window if _limits_rate(piece.error)]
        hints = [piece.error.retry_after or 0.0 for piece in limited if _limits_rate(piece.error)]
        pause = max([min(0.5 * 2**self._limited, LONGEST_PAUSE), *hints])
        if pause > LONGEST_PAUSE:
            raise error
        self._limited += 1
        yield Pause(pause)
        for piece in limited:
            piece.reset()

    def _wrote(self, piece: Piece) -> None:
        self.report.written += len(piece.chunks)
        self.report.batches += 1
        self.report.quarantined = tuple(dict.fromkeys((*self.report.quarantined, *piece.quarantined)))
        self._limited = 0
        if piece.seconds > _SLOW:
            self._width, self._streak = max(1, self._width // 2), 0
        elif self._streak + 1 >= self._width < self.most:
            self._width, self._streak = self._width + 1, 0
        else:
            self._streak += 1
        self._noting = True
        self._journal.wrote(piece.chunks)
        self._noting = False

    def ended(self, error: BaseException) -> None:
        """Add the exact progress to *error*, which ends the load, when no piece is in flight any more.

        A StoreError gets the number of chunks that are certainly written, from the beginning of the stream, and `sent`
        = "unknown" if more of them may be.
        """
        try:
            while self._window and self._window[0].written and not self._noting:
                self._wrote(self._window.popleft())
        except StoreError as failed:  # the journal, which lists only what is written
            error.add_note(str(failed))
        doubtful = sum(not piece.unsent for piece in self._window)
        if isinstance(error, StoreError):
            error.written = self.report.written
            if doubtful:
                error.sent = "unknown"
        unknown = ""
        if doubtful == 1:
            unknown = " The batch after these may or may not have been written; writing it again is safe."
        elif doubtful:
            unknown = (
                f" Up to {len(self._window)} batches after these may or may not have been written; writing them again "
                "is safe."
            )
        error.add_note(
            f"load: {self.report.written:,} chunks were written by this call, {self.report.skipped:,} before.{unknown} "
            + self._journal.advice()
        )


def _limits_rate(error: BaseException | None) -> TypeGuard[StoreError]:
    """Return whether the store, or a quota of the configuration, turned a request away before anything was written."""
    return isinstance(error, StoreError) and error.code in ("rate_limited", "busy") and error.sent == "no"


def _key(chunk: Chunk) -> tuple[str, str] | None:
    """Return what identifies *chunk*; None if its ids are not texts, which the write refuses."""
    known = isinstance(chunk.document, str) and isinstance(chunk.id, str)
    return (chunk.document, chunk.id) if known else None


class Limit:
    """The size of a batch: a number of chunks and, if *can* is not None, the bytes of one write of that store."""

    def __init__(self, chunks: int, can: Capabilities | None) -> None:
        self.chunks = chunks
        self.bytes = None if can is None else can.max_write_bytes
        self._vector = 0 if can is None else can.dimension * can.number_bytes

    def bytes_of(self, chunk: Chunk) -> int:
        """Return an estimate of the bytes of *chunk* in a request; the store's own check is the exact one."""
        if self.bytes is None:
            return 0
        text = len(chunk.text.encode(errors="surrogatepass")) if isinstance(chunk.text, str) else 0
        try:  # metadata is sent twice: whole, and as the fields of filters
            more = 2 * len(orjson.dumps(chunk.metadata, option=orjson.OPT_SERIALIZE_NUMPY, default=str))
        except TypeError:
            more = 0
        return _TAG_BYTES + self._vector + text + more

    def exceeded(self, chunks: int, size: int) -> bool:
        """Return whether *chunks* chunks of *size* bytes are too much for one batch."""
        return chunks > self.chunks or (self.bytes is not None and chunks > 1 and size > self.bytes)


def batches(stream: Iterable[Chunk], limit: Limit, journal: Journal) -> Iterator[Part]:
    """Yield the parts that the journal lists, then parts of up to *limit*.

    If a document and id occur twice within a batch, it is split, so that the later chunk wins as in two calls. Memory
    holds one batch.
    """
    chunks = _checked(iter(stream))
    for entry in journal.begun():
        some = list(islice(chunks, entry.chunks))
        yield Part(some, listed=True, known=journal.compare(entry, some))
        journal.passed()
    part: list[Chunk] = []
    keys: set[tuple[str, str]] = set()
    size = 0
    for chunk in chunks:
        key, more = _key(chunk), limit.bytes_of(chunk)
        if part and (key in keys or limit.exceeded(len(part) + 1, size + more)):
            yield Part(part)
            part, keys, size = [], set(), 0
        part.append(chunk)
        size += more
        if key is not None:
            keys.add(key)
        if len(part) >= limit.chunks:
            yield Part(part)
            part, keys, size = [], set(), 0
    if part:
        yield Part(part)


def _check_stream(stream: object) -> None:
    """Refuse what is not a stream of chunks. Raises: InvalidInputError."""
    if isinstance(stream, str | bytes) or not isinstance(stream, Iterable):
        raise InvalidInputError(f"load() takes an iterable of Chunk, got {type(stream).__name__}.", field="stream")


def _checked(stream: Iterator[Chunk]) -> Iterator[Chunk]:
    for chunk in stream:
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
        most = max(1, min(self._most, len(part)))
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
