"""Row-by-row comparison of one tenant in two stores, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
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


@dataclass(slots=True)
class Comparison:
    """The result of comparing one tenant in two stores.

    `source_rows` and `target_rows` are the numbers of rows. `missing` rows are only in the source, `extra` rows only in
    the target, `different` rows in both with a difference. The digests cover ids, tags, texts and metadata in key
    order. Vectors are compared number by number; `vector_difference` is the largest difference, relative to the
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
        if len(self.examples) < _SHOWN:
            self.examples.append(f"{key.document} / {key.chunk}: {what}")


def rows(read: Read, size: int, where: str) -> Iterator[Hit]:
    """Yield every row that *read* returns, page by page. Raises: StoreError if they are not in key order."""
    after: Position | None = None
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
) -> Comparison:
    """Compare the rows of *source* and *target*, *size* at a time; *seen* is called once per source row.

    With *tolerance* None vectors are not compared, since another embedder made those of the target.
    """
    result = Comparison(tenant)
    digests = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    left, right = rows(source, size, "The source"), rows(target, size, "The target")
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
            digests[0].update(_exact(mine))
            seen(result.source_rows)
            mine = next(left, None)
        if take_theirs and theirs is not None:
            result.target_rows += 1
            digests[1].update(_exact(theirs))
            theirs = next(right, None)
    result.source_digest, result.target_digest = (one.hexdigest() for one in digests)
    return result


def _exact(hit: Hit) -> bytes:
    """Return the parts that must be identical, as bytes with a length prefix."""
    raw = orjson.dumps([_tag(hit), hit.text, _metadata(hit)], option=orjson.OPT_SORT_KEYS)
    return len(raw).to_bytes(8, "big") + raw


def _tag(hit: Hit) -> list[Any]:
    return [one_form(part) for part in hit.tag]


def _metadata(hit: Hit) -> Any:
    return one_form(orjson.loads(dump_metadata(hit.metadata or {})))


def _pair(result: Comparison, mine: Hit, theirs: Hit, metric: Metric, tolerance: float | None) -> None:
    named = zip(mine.tag._fields, _tag(mine), _tag(theirs), strict=True)
    parts = [name for name, one, other in named if one != other]
    if mine.text != theirs.text:
        parts.append("text")
    if _metadata(mine) != _metadata(theirs):
        parts.append("metadata")
    assert mine.vector is not None and theirs.vector is not None  # noqa: PT018 - the reading flow demands them
    if tolerance is not None:
        difference = vector_difference(mine.vector, theirs.vector, metric)
        result.vector_difference = max(result.vector_difference, difference)
        if not difference <= tolerance:
            parts.append("vector")
    if parts:
        result.different += 1
        result.example(key_of(mine), f"{', '.join(parts)} {'differs' if len(parts) == 1 else 'differ'}")
