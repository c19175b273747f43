"""What is stored and what comes back: chunks, tags, records, hits. Reprs show no text, no vector and no metadata."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
_LENGTH = struct.Struct(">Q").pack
DEFAULT_LABEL = "default"
NEVER_EXPIRES = 253_402_300_799.0  # 9999-12-31T23:59:59Z, so that `expires > now` has a value to compare on every store


class Tag(NamedTuple):
    """The rights of one stored chunk; only the framework writes it.

    `generation` counts the document's re-ingestions from 0, `rev` its changes of rights; `expires` and `time` are
    POSIX seconds. `producer` is the principal that wrote it, `path` how it came in ("upsert", "replace", "load").
    """

    tenant: str
    document: str
    chunk: str
    generation: int = 0
    label: str = DEFAULT_LABEL
    rev: int = 0
    expires: float = NEVER_EXPIRES
    producer: str = ""
    path: str = ""
    time: float = 0.0
    position: int = 0

    @property
    def docgen(self) -> str:
        """Document and generation in one keyword."""
        return docgen(self.document, self.generation)

    def key(self) -> str:
        """Return the stored id for stores that need one keyword: 64 hex digits, see `stored_key`."""
        return stored_key(self.tenant, self.document, self.generation, self.chunk)


def docgen(document: str, generation: int) -> str:
    """Return document and generation as one keyword; the length in front makes it injective."""
    return f"{len(document)}:{document}:{generation}"


def stored_key(tenant: str, document: str, generation: int, chunk: str) -> str:
    """Return 64 hex digits for (tenant, document, generation, chunk id).

    Each part is length-prefixed before hashing (plain concatenation collides: "a"+"bc" is "ab"+"c"). Raw values are
    stored beside it and compared after every read.
    """
    # In one piece and one call: every hit of every search may be checked by it.
    one, two, three, four = tenant.encode(), document.encode(), str(generation).encode(), chunk.encode()
    whole = _LENGTH(len(one)) + one + _LENGTH(len(two)) + two + _LENGTH(len(three)) + three + _LENGTH(len(four)) + four
    return hashlib.blake2b(whole, digest_size=32).hexdigest()


_STORED_PARTS = (
    "tenant", "document", "generation", "docgen", "chunk", "label", "rev", "expires", "producer", "path", "time",
    "position",
)  # fmt: skip


def tag_fields(keys: object, tag: Tag) -> dict[str, str | int | float]:
    """Return the parts of *tag* by their stored names, which are the attributes of *keys* with the parts' names."""
    return {getattr(keys, part): getattr(tag, part) for part in _STORED_PARTS}


@dataclass(frozen=True, slots=True, repr=False)
class Chunk:
    """One chunk as the application hands it over.

    `id` is unique within its document. `vector` has the store's dimension (a sequence of floats or a 1-d array); it
    may be left out where config names an embedder, which then embeds `text`. `position` is the chunk's place in its
    document. `metadata` maps names to JSON values; declared fields have to have their declared type, datetimes are
    aware. There is no tenant here: the handle that writes decides it.
    """

    id: str
    document: str
    text: str = ""
    vector: Sequence[float] | Vector | None = None
    position: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Chunk({self.id!r} of {self.document!r}, {len(self.text)} characters)"


class Record(NamedTuple):
    """A chunk that was checked and tagged: what an adapter writes. `vector` is float32 of the store's dimension."""

    tag: Tag
    text: str
    vector: Vector
    metadata: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Record({self.tag.chunk!r} of {self.tag.document!r}, tenant {self.tag.tenant!r})"


class Hit(NamedTuple):
    """One row that came back: a chunk, the tenant that it belongs to, and a score (higher is better).

    `score` is the cosine similarity, the inner product, or minus the L2 distance; 0.0 where nothing was ranked.
    `text`, `metadata` and `vector` are there only if `include` asked for them.
    """

    id: str
    document: str
    score: float
    tenant: str
    position: int
    text: str | None
    metadata: Mapping[str, Any] | None
    vector: Vector | None
    tag: Tag

    def __repr__(self) -> str:
        return f"Hit({self.id!r} of {self.document!r}, tenant {self.tenant!r}, score {self.score:.4f})"


def hit_of(tag: Tag, score: float, text: str | None, metadata: Mapping[str, Any] | None, vector: Vector | None) -> Hit:
    """Return the hit of the row with *tag*, whose ids, tenant and position are the tag's own."""
    # By position: with names this call costs twice as much, for every hit.
    return Hit(tag.chunk, tag.document, score, tag.tenant, tag.position, text, metadata, vector, tag)


class Result(Sequence[Hit]):
    """The hits of one search, best first.

    `complete` is True if the result holds min(k, visible) hits; otherwise `shortfall` names the reason.
    `decision_id` finds the record of the decision in the audit sink.
    """

    __slots__ = ("complete", "decision_id", "hits", "shortfall")

    def __init__(
        self, hits: Sequence[Hit], *, complete: bool, shortfall: str | None = None, decision_id: str = ""
    ) -> None:
        self.hits: tuple[Hit, ...] = tuple(hits)
        self.complete = complete
        self.shortfall = shortfall
        self.decision_id = decision_id

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        return (self.hits, self.complete, self.shortfall) == (other.hits, other.complete, other.shortfall)

    __hash__ = None  # type: ignore[assignment]  # hits may hold arrays

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"incomplete: {self.shortfall}"
        return f"Result({len(self.hits)} hits, {state})"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a scan in the order of (tenant, document, generation, chunk id); `after` is None at the end."""

    hits: tuple[Hit, ...]
    after: str | None
    decision_id: str = ""


class Facet(NamedTuple):
    """One value of a metadata field among the chunks that were asked about, and how many of these have it.

    `count` is what `count` returns for the same filter and `field == value` (for a list field: `contains(value)`).
    A number that is whole is an int, however it is stored: 1 and 1.0 are equal, so they are one value.
    """

    value: str | int | float | bool
    count: int  # type: ignore[assignment]  # the name that every reader expects; nobody counts inside of a pair

    def __repr__(self) -> str:
        return f"Facet({type(self.value).__name__}, count {self.count})"


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did. `count` is None where the store cannot count what it deleted (see the capabilities)."""

    count: int | None
    decision_id: str = ""
