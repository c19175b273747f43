"""Listings of record ids, and reads along them. Flows; pure except for a cache of the tokens with which pages begin.

Pinecone lists ids in the order of their bytes (its API reference says "in sorted order (bitwise C collation)"), which
`names.record_id` makes the order of the contract. A scan lists ids, requests the next records that match the filter,
and lists again if some are missing: a document that was replaced in between is then read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import Literal, NamedTuple

from vectoracl.adapter_api.contract import Flow, together
from vectoracl.adapter_api.operations import Position
from vectoracl.errors import StoreError
from vectoracl_pinecone.compile import ALL_ROWS, MAX_IDS, MAX_LISTED, NO_ROWS, PineconeCompiler
from vectoracl_pinecone.compile_predicate import Compiled, every
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.decode import ADAPTER, Decoder, malformed
from vectoracl_pinecone.names import Parts, name_part, parts
from vectoracl_pinecone.requests import Match

ROUNDS = 6
_CONCURRENT = 64
_REMEMBERED = 4096
_TIMES = 64
"""How many times of writing one filter asks for."""
Key = tuple[str, int, str]


class Block(NamedTuple):
    """Ids in order that follow `token`; all ids of one order are in one block. `next` None: the last block."""

    ids: tuple[str, ...]
    token: str | None
    next: str | None


class Pages:
    """Pages through the namespaces of one configured index."""

    def __init__(self, config: PineconeConfig, compiled: PineconeCompiler, decode: Decoder) -> None:
        self._config = config
        self._compile = compiled
        self._decode = decode
        self._places: OrderedDict[tuple[str, Position], str | None] = OrderedDict()
        self._lock = Lock()

    def ids(self, partition: str, prefix: str | None = None) -> Flow[list[str]]:
        """Return all ids of a namespace, or those that begin with *prefix*."""
        all_ids: list[str] = []
        token: str | None = None
        while True:
            page = yield from self._compile.listing(partition, prefix, token)
            all_ids.extend(match.id for match in page.matches)
            if page.token is None:
                return all_ids
            token = page.token

    def passing(self, partition: str, ids: Sequence[str], where: Compiled) -> Flow[list[str]]:
        """Return those of *ids* whose records exist and match *where*."""
        if where is NO_ROWS or not ids:
            return []
        if where is ALL_ROWS:
            return list(ids)
        queries = [
            self._compile.query(partition, every([where, self._compile.records(some)]), len(some))
            for some in _slices(ids, MAX_IDS)
        ]
        passing_ids: set[str] = set()
        for start in range(0, len(queries), _CONCURRENT):
            for matches in (yield from together(*queries[start : start + _CONCURRENT])):
                passing_ids.update(match.id for match in matches)
        return [one for one in ids if one in passing_ids]

    def rows(
        self, partition: str, ids: Sequence[str], where: Compiled, vector: list[float] | None = None, *, values: bool
    ) -> Flow[list[Match]]:
        """Return the whole records of those of *ids* that pass *where*, with their scores by *vector*."""
        queries = [
            self._compile.query(
                partition, every([where, self._compile.records(some)]), len(some), vector, rows=True, values=values
            )
            for some in _slices(ids, self._compile.per_reply(values=values))
        ]
        records: list[Match] = []
        for start in range(0, len(queries), _CONCURRENT):
            for matches in (yield from together(*queries[start : start + _CONCURRENT])):
                records.extend(matches)
        return records

    def one_moment(self, partition: str, rows: Iterable[Match]) -> Flow[bool]:
        """Return whether those of *rows* that are of one document were all there at one moment, and so of one version.

        A document that is deleted and written again between two requests has the same ids again. Its rows were then
        written at several times, as are those of a document that was written in parts. The index is asked which of
        these rows are unchanged: rows that still exist afterwards all existed when the last of them was read.
        """
        times: dict[str, dict[float, list[str]]] = {}
        for row in rows:
            tag = self._decode.tag(row)
            times.setdefault(tag.document, {}).setdefault(tag.time, []).append(row.id)
        unsure = [(time, id_) for own in times.values() if len(own) > 1 for time, ids in own.items() for id_ in ids]
        for part in _stamps(sorted(unsure)):
            number = sum(map(len, part.values()))
            there = yield from self._compile.query(partition, self._compile.stamped(part), number)
            if len(there) < number:
                return False
        return True

    def matching(self, partition: str, where: Compiled) -> Flow[list[str]]:
        """Return the ids of all records that pass *where*, exactly: by listing, and asking which of them pass.

        It is repeated if records were deleted in the meantime.
        """
        if where is NO_ROWS:
            return []
        before = yield from self.ids(partition)
        for _ in range(ROUNDS):
            matches = yield from self.passing(partition, before, where)
            if where is ALL_ROWS or len(matches) == len(before):
                return matches
            after = yield from self.ids(partition)
            if after == before:
                return matches
            before = after
        raise too_many_conflicts()

    # In key order

    def next(
        self, partition: str, where: Compiled, after: Position | None, number: int, *, values: bool
    ) -> Flow[list[Match]]:
        """Return the *number* next whole records after *after* that pass *where*, in key order."""
        for _ in range(ROUNDS):
            rows, requests = yield from self._next(partition, where, after, number, values=values)
            if requests < 2 or (yield from self.one_moment(partition, rows)):
                return rows
        raise too_many_conflicts()

    def _next(
        self, partition: str, where: Compiled, after: Position | None, number: int, *, values: bool
    ) -> Flow[tuple[list[Match], int]]:
        """Return the next whole records, and in how many requests they came."""
        page: list[Match] = []
        requests = 0
        token = self._remembered(partition, after)
        limit = min(number, MAX_LISTED)
        while True:
            block, rows, calls = yield from self._block(
                partition, where, token, limit, after, number - len(page), values=values
            )
            page.extend(rows)
            requests += calls
            self._remember(partition, block.token, rows)
            if len(page) >= number or block.next is None:
                return page[:number], requests
            token = block.next
            if len(rows) * 4 < len(block.ids):
                limit = min(limit * 4, MAX_LISTED)

    def _block(
        self,
        partition: str,
        where: Compiled,
        token: str | None,
        limit: int,
        after: Position | None,
        number: int,
        *,
        values: bool,
    ) -> Flow[tuple[Block, list[Match], int]]:
        block = yield from self._listed(partition, token, limit)
        for _ in range(ROUNDS):
            rows, count, requests = yield from self._of(partition, where, block.ids, after, number, values=values)
            if len(rows) == count:
                return block, rows, requests
            again = yield from self._listed(partition, token, limit)
            if again == block:
                return block, rows, requests
            block = again  # a document was replaced or deleted between its ids and its records
        raise too_many_conflicts()

    def _of(
        self, partition: str, where: Compiled, ids: Sequence[str], after: Position | None, number: int, *, values: bool
    ) -> Flow[tuple[list[Match], int, int]]:
        """Return up to *number* of the records of *ids*, how many ids were asked for, and in how many requests.

        They are asked for in slices no longer than what is still wanted, while most of them pass.
        """
        remaining = [one for one in ids if not _before(one, after)]
        least = None if after is None else (after.document, after.generation, after.chunk)
        rows: list[Match] = []
        count, wide, requests = 0, 0, 0
        while remaining and len(rows) < number:
            size = max(number - len(rows), wide)
            size = _whole(remaining, size)
            some, remaining = remaining[:size], remaining[size:]
            count += size
            requests += -(-size // self._compile.per_reply(values=values))
            came = yield from self.rows(partition, some, where, values=values)
            keyed = sorted(((self._key(match), match) for match in came), key=lambda one: one[0])
            rows.extend(match for key, match in keyed if least is None or key > least)
            wide = min(2 * size, self._config.page) if len(came) * 4 < size else 0
            if any(_cut(one) for one in some):
                count -= sum(1 for key, _ in keyed if least is not None and key <= least)
        return rows, count, requests

    def _listed(self, partition: str, token: str | None, limit: int) -> Flow[Block]:
        """Return a page of ids, and what follows while it is of the same order as the last one."""
        ids: list[str] = []
        following = token
        while True:
            page = yield from self._compile.listing(partition, None, following, limit)
            ids.extend(match.id for match in page.matches)
            following = page.token
            if following is None or not ids or not _cut(ids[-1]):
                return Block(tuple(ids), token, following)

    def _key(self, match: Match) -> Key:
        tag = self._decode.tag(match)
        return tag.document, tag.generation, tag.chunk

    # Where pages begin: a place in the order, not data; it is asked with the tenant's own namespace again

    def _remembered(self, partition: str, after: Position | None) -> str | None:
        if after is None:
            return None
        with self._lock:
            return self._places.get((partition, after))

    def _remember(self, partition: str, token: str | None, rows: Sequence[Match]) -> None:
        if not rows or token is None:
            return
        with self._lock:
            for match in rows:
                # Any row of the page may be the last one that is returned, after which the next page continues.
                self._places[(partition, Position(*self._key(match)))] = token
            while len(self._places) > _REMEMBERED:
                self._places.popitem(last=False)


def _slices(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def _stamps(pairs: Sequence[tuple[float, str]]) -> Iterator[dict[float, list[str]]]:
    """Yield times of writing and ids in parts that one filter takes; *pairs* are sorted."""
    part: dict[float, list[str]] = {}
    number = 0
    for time, id_ in pairs:
        if number == MAX_IDS or (len(part) == _TIMES and time not in part):
            yield part
            part, number = {}, 0
        part.setdefault(time, []).append(id_)
        number += 1
    if part:
        yield part


def parts_of(id_: str) -> Parts:
    """Return the parts of an id. Raises: StoreError for one that is not of our form."""
    id_parts = parts(id_)
    if id_parts is None:
        raise malformed()
    return id_parts


def _cut(id_: str) -> bool:
    return parts_of(id_).cut


def _before(id_: str, after: Position | None) -> bool:
    """Return whether an id comes at or before *after*, if the id alone shows it."""
    place = parts_of(id_)
    if after is None or place.cut:
        return False
    document, chunk = name_part(after.document), name_part(after.chunk)
    if "~" in document or "~" in chunk:
        return (place.document, place.generation) < (document.partition("~")[0], 0)
    return (place.document, place.generation, place.chunk) <= (document, after.generation, chunk)


def _whole(ids: Sequence[str], size: int) -> int:
    """Return *size*, or more where the cut would go through names that the ids alone do not order."""
    size = min(size, len(ids))
    while size < len(ids) and _cut(ids[size - 1]):
        size += 1
    return size


def too_many_conflicts(sent: Literal["no", "unknown"] = "no") -> StoreError:
    """Return the error of an operation that was overtaken by one replacement after another."""
    text = "A document was replaced repeatedly in the meantime; try again."
    return StoreError(text, code="replacing", adapter=ADAPTER, sent=sent, retryable=True)
