"""The journal of a load: which chunks of a stream are written, to which store, and with which content.

It is a file of lines, readable by its user only. The first line names the tenant and the store; each further line holds
the number of chunks of a batch, a digest of their ids and a digest of their content. A line is written after its batch,
so the store may be one batch ahead of the file and never behind. A crash may cut off the last line, which is then
ignored.

The file alone is not trusted. If the content of a batch is unchanged, its chunks are looked up in the store before they
are skipped (`fits`): the store may have been emptied, restored or changed by another writer in the meantime.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import orjson

from vectoracl._util.file_lock import FileLock
from vectoracl._util.private_files import open_private, read_private, replace_atomically, try_replacing
from vectoracl.adapter_api.chunk_validation import ValidatedChunk
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.adapter_api.equality import TOLERANCE, equal_metadata, vector_difference
from vectoracl.errors import InvalidInputError, StoreError, without_context
from vectoracl.model.records import Chunk, Hit

_FORMAT = 2
_PAUSE = 1.0
_MOST = 1 << 40  # chunks of a batch
_SMALL = 500  # up to this number of lines the file is replaced, which cannot leave half a line behind
PATH = "load"
"""The value of `Tag.path` of a chunk that was written by a load."""


class Entry(NamedTuple):
    """A written batch: the number of chunks, and the digests of their ids and of their content."""

    chunks: int
    ids: str
    content: str


class Journal:
    """The journal file at *path*; without a path nothing is kept. Two loads never share one.

    A running load holds a lock on the file PATH.lock next to it and removes that file at its end. *places* identify the
    store (`VectorACL.store_identity`); *embedder* is the identity of the embedder.
    """

    def __init__(
        self,
        path: str | Path | None,
        tenant: str,
        places: Iterable[str] = (),
        embedder: str | None = None,
    ) -> None:
        self._path = None if path is None else Path(path)
        self._tenant = _digest([tenant])
        self._places = sorted(_digest([one]) for one in places)
        self._embedder = embedder or ""
        self._lock: FileLock | None = None
        self._done: list[Entry] = []
        self._rest: list[Entry] = []  # entries of an earlier load, still to come in the stream
        self._kept = 0  # number of chunks in the file
        self._count = 0  # number of chunks of the stream that are in the store
        self._whole = False  # whether the file holds exactly `_done`, so that a line can be appended
        self._stale = False
        self._saved = 0.0

    @without_context
    def __enter__(self) -> Journal:
        if self._path is None:
            return self
        try:
            self._lock = FileLock(self._lock_path())
            if not self._lock.held:
                raise InvalidInputError(
                    f"Another load is using the journal {str(self._path)!r}. Wait until it ends, or pass a different "
                    "journal to each load.",
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock; the file stays, for a later call to resume from."""
        if self._lock is not None:
            self._lock.release()

    def _lock_path(self) -> str:
        # A journal that is a symbolic link is refused; but if a load is using its target, report that first.
        named = os.path.realpath(self._path or "") + ".lock"
        return named if Path(named).exists() else f"{self._path}.lock"

    def _unfit(self, error: Exception) -> InvalidInputError:
        why = getattr(error, "strerror", None) or "it is not the path of a file"
        return InvalidInputError(
            f"The journal {str(self._path)!r} cannot be written: {why}. Pass a file in an existing folder, on a file "
            "system that supports locks.",
            field="resume",
        )

    @without_context
    def _read(self) -> None:
        assert self._path is not None
        # Before the first chunk is written: without a journal no later call could skip it.
        try:
            content = read_private(self._path)
            try_replacing(self._path)
        except OSError as error:
            raise self._unfit(error) from None
        if content is None:
            return
        try:
            head, *lines = [orjson.loads(line) for line in content.split(b"\n")[:-1]]  # the last one may be cut off
            if head["load"] != _FORMAT:
                raise ValueError("another format")
            tenant, places = head["tenant"], set(head["places"])
            self._rest = [_entry(line) for line in lines]
        except (ValueError, KeyError, TypeError):
            older = b'"written"' in content[:200] and b'"digest"' in content
            what = "is from an older version, without digests of the content" if older else "is not a load's journal"
            raise InvalidInputError(
                f"{self._path} {what}. Remove it to start from the beginning: chunks that exist are written again, "
                "which is safe.",
                field="resume",
            ) from None
        if tenant != self._tenant:
            raise self._foreign("its tenant is not the handle's tenant")
        if places.isdisjoint(self._places):
            raise InvalidInputError(
                f"The journal {self._path} belongs to another store, or to a memory store of another process. Remove "
                "it to load the whole stream into this store.",
                field="resume",
            )
        self._kept = sum(one.chunks for one in self._rest)

    def _foreign(self, why: str) -> InvalidInputError:
        return InvalidInputError(
            f"The journal {self._path} belongs to another stream or tenant: {why}. Remove it to start from the "
            "beginning.",
            field="resume",
        )

    def begun(self) -> Iterator[Entry]:
        """Yield the batches that an earlier load wrote, in the order of the stream."""
        yield from list(self._rest)

    def compare(self, entry: Entry, chunks: Sequence[Chunk]) -> bool:
        """Return whether *chunks* have the content of *entry*. Raises: InvalidInputError if their ids differ."""
        stream_entry = self._entry_of(chunks)
        if (stream_entry.chunks, stream_entry.ids) != (entry.chunks, entry.ids):
            first = self._count + 1
            raise self._foreign(f"its chunks {first:,} to {first + entry.chunks - 1:,} are not those of this stream")
        return stream_entry.content == entry.content

    def _entry_of(self, chunks: Sequence[Chunk]) -> Entry:
        ids = hashlib.blake2b(digest_size=16)
        content = hashlib.blake2b(digest_size=16)
        for chunk in chunks:
            for part in (chunk.document, chunk.id):
                _add(ids, part)
            for one in (chunk.text, chunk.position, _json(chunk.metadata), _vector(chunk.vector, self._embedder)):
                _add(content, one)
        return Entry(len(chunks), ids.hexdigest(), content.hexdigest())

    def fits(self, prepared: Sequence[ValidatedChunk], hits: Iterable[Hit], tenant: str, can: Capabilities) -> bool:
        """Return whether *hits*, the store's rows of these chunks, equal the chunks as a load would write them."""
        there = {(hit.document, hit.id): hit for hit in hits if hit.tenant == tenant}
        return all(_same(one, there.get((one.chunk.document, one.chunk.id)), can) for one in prepared)

    def skipped(self, chunks: Sequence[Chunk]) -> None:
        """Note that *chunks*, of an earlier load, are in the store."""
        self._done.append(self._entry_of(chunks))
        self._count += len(chunks)

    def wrote(self, chunks: Sequence[Chunk]) -> None:
        """Note that *chunks* were written. Raises: StoreError with the code "journal" if that cannot be saved."""
        self._count += len(chunks)
        if self._path is None:
            return
        entry = self._entry_of(chunks)
        self._done.append(entry)
        if self._rest:
            self._stale = True  # the file is updated when the whole entry has been written again
        else:
            self._save(entry)

    def passed(self) -> None:
        """Note that all chunks of the last entry are in the store. Raises: as `wrote`."""
        self._rest.pop(0)
        if self._stale and (not self._rest or time.monotonic() - self._saved > _PAUSE):
            self._save(None)

    @without_context
    def _save(self, added: Entry | None) -> None:
        assert self._path is not None
        try:
            if self._whole and added is not None and len(self._done) > _SMALL:
                with os.fdopen(open_private(self._path, os.O_WRONLY | os.O_APPEND), "ab") as file:
                    file.write(_line(added))
            else:
                head = orjson.dumps({"load": _FORMAT, "tenant": self._tenant, "places": self._places}) + b"\n"
                lines = [_line(one) for one in (*self._done, *self._rest)]
                replace_atomically(self._path, b"".join([head, *lines]), sync=False)
        except OSError as error:
            raise self._failed(
                error,
                f"so it lists {self._kept:,} chunks of the stream while {self._count:,} are in the store, and the load "
                f"stopped here. Free some space and resume: the last {self._count - self._kept:,} chunks are then "
                "written again, which is safe.",
            ) from None
        self._whole = not self._rest
        self._stale, self._saved = False, time.monotonic()
        self._kept = self._count + sum(one.chunks for one in self._rest)

    def _failed(self, error: OSError, then: str) -> StoreError:
        why = error.strerror or type(error).__name__
        return StoreError(f"The journal {str(self._path)!r} cannot be written ({why}), {then}", code="journal")

    @without_context
    def finish(self) -> None:
        """Remove the journal after the whole stream was written. Raises: StoreError with the code "journal"."""
        if self._path is None:
            return
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failed(error, "but every chunk of the stream is in the store: remove it yourself.") from None

    def advice(self) -> str:
        """Return a sentence on how to resume."""
        if self._path is None:
            return "Pass resume=PATH to be able to resume where it stopped."
        return f"Call load() again with the same stream and resume={str(self._path)!r} to continue."


def _entry(line: Any) -> Entry:
    """Parse *line*. Raises: TypeError, ValueError if `_line` would not write it."""
    chunks, ids, content = line
    if type(chunks) is not int or not 1 <= chunks <= _MOST or type(ids) is not str or type(content) is not str:
        raise ValueError("not an entry")
    return Entry(chunks, ids, content)


def _line(entry: Entry) -> bytes:
    return orjson.dumps([*entry]) + b"\n"


def _digest(parts: Iterable[object]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        _add(digest, part)
    return digest.hexdigest()


def _add(digest: Any, part: object) -> None:
    raw = part if isinstance(part, bytes) else str(part).encode(errors="surrogatepass")
    digest.update(len(raw).to_bytes(8, "big") + raw)


def _json(metadata: object) -> bytes:
    """Return *metadata* in one canonical form; without one, the chunk is written again, and the write refuses it."""
    try:
        return orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY, default=repr)
    except TypeError:
        return repr(metadata).encode(errors="surrogatepass")


def _vector(vector: object, embedder: str) -> bytes:
    """Return *vector* as bytes; the embedder's identity where there is none."""
    if vector is None:
        return b"embedded by " + embedder.encode(errors="surrogatepass")
    try:
        return b"given " + np.asarray(vector, np.float32).tobytes()
    except (TypeError, ValueError):
        return b"unknown " + repr(vector).encode(errors="surrogatepass")


def _same(prepared: ValidatedChunk, hit: Hit | None, can: Capabilities) -> bool:
    chunk = prepared.chunk
    if (
        hit is None
        or hit.tag.path.partition(":")[0] != PATH
        or (hit.text, hit.position) != (chunk.text, chunk.position)
    ):
        return False
    if not equal_metadata(hit.metadata or {}, prepared.metadata):
        return False
    if prepared.vector is None:
        return True
    return hit.vector is not None and (
        vector_difference(prepared.vector, hit.vector, can.metric) <= TOLERANCE[can.vectors]
    )
