"""Comparison of values and rows: what a store returned or holds, with what was written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.model.records import Chunk, Hit, Record, Tag
from vectoracl_conformance.context.oracle import Key as Key
from vectoracl_conformance.context.oracle import key as key

_SCORE = {"single": 2e-4, "half": 4e-3}
_VECTOR = {"single": 1e-5, "half": 2e-3}
_KEPT = ("tenant", "document", "chunk", "label", "rev", "expires", "producer", "path", "position")
"""The parts of a tag that do not depend on the store. Times are those of two clocks; generations have any numbers."""
_AHEAD = 3_600.0


@dataclass(frozen=True, slots=True)
class Precision:
    """How exactly a store keeps vectors and scores them.

    Attributes:
        score: The largest error of a score between -1 and 1; relative for a larger one.
        vector: The largest error of a component of a vector of length 1, or relative.
        direction: Whether only the direction of a vector is kept (cosine).
    """

    score: float
    vector: float
    direction: bool

    @classmethod
    def of(cls, capabilities: Capabilities) -> Precision:
        """Return the precision that is declared."""
        kind = capabilities.vectors
        return cls(_SCORE[kind], _VECTOR[kind], capabilities.metric == "cosine")

    def near(self, one: float, other: float) -> bool:
        """Return whether two scores are equal."""
        return abs(one - other) <= self.around(other)

    def around(self, score: float) -> float:
        """Return how far a score that equals *score* may be from it."""
        return self.score * max(1.0, abs(score))

    def same_vector(self, right: Any, got: Any) -> bool:
        """Return whether *got* is the vector *right*, to the precision of the store."""
        if not isinstance(got, np.ndarray) or got.shape != right.shape or got.dtype.kind != "f":
            return False
        one, other = right.astype(np.float64), got.astype(np.float64)
        if self.direction:
            one, other = _unit(one), _unit(other)
        scale = max(1.0, float(np.abs(one).max(initial=0.0)))
        return bool(np.all(np.abs(one - other) <= self.vector * scale))


def _unit(vector: Any) -> Any:
    length = float(np.linalg.norm(vector))
    return vector / length if length else vector


def same(right: object, got: object) -> bool:
    """Return whether two values are equal. A store may keep every number as a double, but True is not a number."""
    if isinstance(right, Mapping):
        alike = isinstance(got, Mapping) and right.keys() == got.keys()
        return alike and all(same(right[name], got[name]) for name in right)  # type: ignore[index]
    if isinstance(right, list | tuple):
        return isinstance(got, list | tuple) and len(right) == len(got) and all(map(same, right, got))
    if isinstance(right, datetime):
        return isinstance(got, datetime) and got.tzinfo is not None and right == got
    if _number(right) and _number(got):
        return right == got or (isinstance(right, float) and _as_float(got) == right)
    return type(right) is type(got) and right == got


def _as_float(value: Any) -> float | None:
    """Return a number as a double. JSON has no doubles: a store may write 1e300 as a whole number of 301 digits."""
    try:
        return float(value)
    except OverflowError:
        return None


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def tag_problem(right: Tag, got: object) -> str | None:
    """Say how the tag *got* differs from *right*, or None."""
    if not isinstance(got, Tag):
        return f"its tag is a {type(got).__name__}"
    for name in _KEPT:
        if getattr(right, name) != getattr(got, name):
            return f"its tag has {name} {getattr(got, name)!r}"
    if type(got.generation) is not int or got.generation < 0:
        return f"its tag has generation {got.generation!r}"
    if not 0 < got.time < right.time + _AHEAD:
        return f"its tag has time {got.time!r}"
    return None


def row_problem(right: Record | Hit, got: Record | Hit, precision: Precision) -> str | None:
    """Say how the content of *got* differs from the row *right*, or None. What a hit leaves out (None) is right."""
    if (problem := tag_problem(right.tag, got.tag)) is not None:
        return problem
    if got.text is not None and (type(got.text) is not str or got.text != right.text):
        return "its text is another one"
    if got.metadata is not None and not same(right.metadata, got.metadata):
        return f"its metadata differ in {_differing(right.metadata or {}, got.metadata)}"
    if got.vector is not None and not precision.same_vector(right.vector, got.vector):
        return "its vector is another one"
    return None


def _differing(right: Mapping[str, Any], got: object) -> str:
    if not isinstance(got, Mapping):
        return f"type: {type(got).__name__}"
    names = [
        name for name in {**right, **got} if name not in right or name not in got or not same(right[name], got[name])
    ]
    first = names[0]
    return f"{first!r} ({got.get(first)!r:.80} for {right.get(first)!r:.80})"


def chunk_bytes(chunk: Chunk) -> int:
    """Return the size of a chunk's text and metadata as JSON, in UTF-8."""
    text = json.dumps(chunk.text, ensure_ascii=False)
    return len(text.encode()) + len(json.dumps(chunk.metadata, ensure_ascii=False, default=str).encode())


def named(one: Hit | Record | Key) -> str:
    """Return how a row is called in a report."""
    tenant, document, chunk = key(one) if isinstance(one, Hit | Record) else one
    return f"{chunk!r:.60} of {document!r:.60}, tenant {tenant!r:.60}"


class Census:
    """All rows of a store at one moment, by key.

    Args:
        rows: The rows; with *gone*, those that are new or changed since *before*.
        before: The census before this one.
        mark: The mark of this census, by which its process is asked for what changed since.
        gone: The keys of the rows of *before* that are gone; None: *rows* are all.
    """

    def __init__(
        self,
        rows: Iterable[Record],
        before: Census | None = None,
        mark: str = "",
        gone: Iterable[Key] | None = None,
    ) -> None:
        self.mark = mark
        self.twice: list[Key] = []
        known = before.rows if before is not None else {}
        self.rows: dict[Key, Record] = {} if gone is None else dict(known)
        for place in gone or ():
            self.rows.pop(place, None)
        for row in rows:
            place = key(row)
            if gone is None and place in self.rows:
                self.twice.append(place)
            old = known.get(place)
            self.rows[place] = old if old is not None and _unchanged(old, row) else row

    def problem(self, right: Census, precision: Precision, before: tuple[Census, Census] | None = None) -> str | None:
        """Say how this census differs from that of the reference, or None.

        *before* are the reference's census and this store's before the write: what the reference did not write again
        must not be written again here.
        """
        if self.twice:
            return f"the store holds {named(self.twice[0])} twice"
        for place in right.rows.keys() - self.rows.keys():
            return f"the store has lost {named(place)}, or never got it"
        for place in self.rows.keys() - right.rows.keys():
            return f"the store holds {named(place)}, which was deleted or never written"
        for place, row in self.rows.items():
            mine = right.rows[place]
            old = before[1].rows.get(place) if before is not None and before[0].rows.get(place) is mine else None
            if old is row:
                continue
            if (problem := row_problem(mine, row, precision)) is not None:
                return f"the store holds {named(place)}: {problem}"
            if any(part is None for part in row):
                return f"the store holds {named(place)} without a part of it"
            if old is not None and old.tag != row.tag:
                return f"the store wrote {named(place)} again, which the call does not concern"
        return self._generations()

    def differing(self, right: Census, precision: Precision, before: tuple[Census, Census] | None = None) -> set[Key]:
        """Return the keys of the rows that the reference lacks, holds with another content, or did not write again.

        *before* is as in `problem`.
        """
        return {
            place
            for place, row in self.rows.items()
            if place not in right.rows
            or row_problem(right.rows[place], row, precision) is not None
            or (before is not None and _again(place, (right, self), before))
        }

    def _generations(self) -> str | None:
        versions: dict[tuple[str, str], int] = {}
        for row in self.rows.values():
            tag = row.tag
            if versions.setdefault((tag.tenant, tag.document), tag.generation) != tag.generation:
                return f"the store holds two generations of the document {tag.document!r:.60} of {tag.tenant!r:.60}"
        return None

    def same(self, other: Census) -> bool:
        """Return whether nothing changed between two censuses of one store."""
        return (
            not self.twice
            and self.rows.keys() == other.rows.keys()
            and all(row is other.rows[place] or _unchanged(row, other.rows[place]) for place, row in self.rows.items())
        )


def _again(place: Key, now: tuple[Census, Census], before: tuple[Census, Census]) -> bool:
    """Return whether the store has written a row again, which the reference has not. Each pair has the reference's."""
    (right, row), (old_right, old) = ([one.rows.get(place) for one in pair] for pair in (now, before))
    return right is old_right and old is not None and row is not old


def _unchanged(old: Record, new: Record) -> bool:
    return old is new or (
        old.tag == new.tag
        and old.text == new.text
        and same(old.metadata, new.metadata)
        and isinstance(new.vector, np.ndarray)
        and np.array_equal(old.vector, new.vector)
    )


def unique(hits: Sequence[Hit]) -> str | None:
    """Say which hit came twice, or None."""
    keys: set[Key] = set()
    for hit in hits:
        if key(hit) in keys:
            return f"{named(hit)} came twice"
        keys.add(key(hit))
    return None
