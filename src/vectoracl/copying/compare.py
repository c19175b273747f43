"""Row-by-row comparison of one tenant in two stores, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.equality import Metric, one_form, vector_difference
from vectoracl.adapter_api.operations import Position, Rows
from vectoracl.errors import StoreError
from vectoracl.model.records import Hit

Read = Callable[[int, Position | None], Rows]

_SHOWN = 5
_SIZE = 32


@dataclass(slots=True)
class Comparison:
    """The result of comparing one tenant in two stores.

    `source_rows` and `target_rows` are the numbers of rows. `missing` rows are only in the source, `extra` rows only in
    the target, `different` rows in both with a difference. The digests (`RowsDigest`) cover ids, tags, texts and
    metadata. Vectors are compared number by number; `vector_difference` is the largest difference, relative to the
    vector's largest number.
    """

    tenant: str
    source_rows: int = 0
    target_rows: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    vector_difference: float = 0.0
    source_digest: str = ""
    target_digest: str = ""
    examples: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether the target holds exactly the rows of the source."""
        return not (self.missing or self.extra or self.different) and self.source_digest == self.target_digest

    def example(self, key: Position, what: str) -> None:
        """Keep the ids of the first few rows that differ."""
        self.examples = first(self.examples, [f"{key.document} / {key.chunk}: {what}"])

    def add(self, other: Comparison) -> None:
        """Add the comparison of other rows of the same tenant."""
        self.source_rows += other.source_rows
        self.target_rows += other.target_rows
        self.missing += other.missing
        self.extra += other.extra
        self.different += other.different
        self.vector_difference = max(self.vector_difference, other.vector_difference)
        self.source_digest = added(self.source_digest, other.source_digest)
        self.target_digest = added(self.target_digest, other.target_digest)
        self.examples = first(self.examples, other.examples)


def first(some: Iterable[str], more: Iterable[str]) -> list[str]:
    """Return the first few examples in their order as texts, so that they do not depend on how rows were divided."""
    return sorted([*some, *more])[:_SHOWN]


class RowsDigest:
    """A digest of a set of rows in any order: the sum of the rows' digests modulo 2**256.

    So the digests of parts can be added (`added`), and do not depend on how the rows were divided. It shows accidents;
    it is not a proof against rows that were chosen to have the same sum.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, hit: Hit) -> None:
        """Add a row: its ids, tag, text and metadata."""
        raw = orjson.dumps([_tag(hit), hit.text, _metadata(hit)], option=orjson.OPT_SORT_KEYS)
        self._sum += int.from_bytes(hashlib.blake2b(raw, digest_size=_SIZE).digest())

    def hexdigest(self) -> str:
        """Return the digest of the rows that were added."""
        return _hex(self._sum)


def added(one: str, other: str) -> str:
    """Return the digest of the rows of two digests, each of which may be "" for no rows."""
    return _hex(int(one or "0", 16) + int(other or "0", 16))


def _hex(number: int) -> str:
    return (number % (1 << 8 * _SIZE)).to_bytes(_SIZE).hex()


def rows(read: Read, size: int, where: str, after: Position | None = None) -> Iterator[Hit]:
    """Yield every row that *read* returns after *after*, page by page.

    Raises: StoreError if they are not in key order; *where* names the store.
    """
    while True:
        page = read(size, after)
        for hit in page.hits:
            key = key_of(hit)
            if after is not None and key <= after:
                raise StoreError(f"{where} does not return its rows in key order.", code="order", sent="no")
            after = key
            yield hit
        if not page.more or not page.hits:
            return


def within(read: Read, upto: Position | None) -> Read:
    """Return *read* without the rows behind *upto*; None is the end of the tenant's rows."""
    if upto is None:
        return read

    def part(size: int, after: Position | None) -> Rows:
        if after is not None and after >= upto:
            return Rows([])
        page = read(size, after)
        hits = [hit for hit in page.hits if key_of(hit) <= upto]
        return Rows(hits, page.more and len(hits) == len(page.hits))

    return part


def key_of(hit: Hit) -> Position:
    """Return the position of *hit* in a scan."""
    return Position(hit.tag.document, hit.tag.generation, hit.tag.chunk)


def compare(
    tenant: str,
    source: Read,
    target: Read,
    *,
    metric: Metric,
    tolerance: float | None,
    size: int,
    seen: Callable[[int], None],
    after: Position | None = None,
) -> Comparison:
    """Compare the rows of *source* and *target* behind *after*, *size* at a time; *seen* is called per source row.

    With *tolerance* None vectors are not compared, since another embedder made those of the target.
    """
    result = Comparison(tenant)
    digests = RowsDigest(), RowsDigest()
    left, right = rows(source, size, "The source", after), rows(target, size, "The target", after)
    mine, theirs = next(left, None), next(right, None)
    while mine is not None or theirs is not None:
        here = None if mine is None else key_of(mine)
        there = None if theirs is None else key_of(theirs)
        take_mine = here is not None and (there is None or here <= there)
        take_theirs = there is not None and (here is None or there <= here)
        if mine is not None and theirs is not None and take_mine and take_theirs:
            _pair(result, mine, theirs, metric, tolerance)
        elif take_mine and here is not None:
            result.missing += 1
            result.example(here, "missing in the target")
        elif there is not None:
            result.extra += 1
            result.example(there, "in the target only")
        if take_mine and mine is not None:
            result.source_rows += 1
            digests[0].add(mine)
            seen(result.source_rows)
            mine = next(left, None)
        if take_theirs and theirs is not None:
            result.target_rows += 1
            digests[1].add(theirs)
            theirs = next(right, None)
    result.source_digest, result.target_digest = (one.hexdigest() for one in digests)
    return result


def _tag(hit: Hit) -> list[Any]:
    return [one_form(part) for part in hit.tag]


def _metadata(hit: Hit) -> Any:
    return one_form(orjson.loads(dump_metadata(hit.metadata or {})))


def _pair(result: Comparison, mine: Hit, theirs: Hit, metric: Metric, tolerance: float | None) -> None:
    parts, difference = differing(mine, theirs, metric, tolerance)
    result.vector_difference = max(result.vector_difference, difference)
    if parts:
        result.different += 1
        result.example(key_of(mine), f"{', '.join(parts)} {'differs' if len(parts) == 1 else 'differ'}")


def differing(mine: Hit, theirs: Hit, metric: Metric, tolerance: float | None) -> tuple[list[str], float]:
    """Return the names of the parts in which two rows differ, and the difference of their vectors (see `compare`)."""
    named = zip(mine.tag._fields, _tag(mine), _tag(theirs), strict=True)
    parts = [name for name, one, other in named if one != other]
    if mine.text != theirs.text:
        parts.append("text")
    if _metadata(mine) != _metadata(theirs):
        parts.append("metadata")
    assert mine.vector is not None and theirs.vector is not None  # noqa: PT018 - the reading flow demands them
    difference = 0.0 if tolerance is None else vector_difference(mine.vector, theirs.vector, metric)
    if tolerance is not None and not difference <= tolerance:
        parts.append("vector")
    return parts, difference
