"""The flow of a page of a scan: one partition after the other, with a cursor from one page to the next.

A scan shows one version of each document: the first that it read. Rows are ordered by document, generation and chunk
id, so only the last document of a page continues on the next one. By then that version may have been replaced, or
deleted and written again, which starts at the same generation number. Therefore the cursor holds the times at which
the rows of that version were written, and further rows are returned only while a row of such a time exists: every row
of a document that was deleted and written again is newer. If none is left, the rest of the document is skipped.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile

import orjson

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import ChunkRef, Fetch, Include, Position, Rows, Scan
from vectoracl.engine.arguments import MAX_CURSOR, MAX_PAGE, integer
from vectoracl.engine.pipeline import Caller, Leg, Pipeline, Plan, Store
from vectoracl.engine.reads import included, locked, stripped
from vectoracl.errors import InvalidInputError
from vectoracl.filters.predicate import And, Eq, In, Predicate
from vectoracl.model.identifiers import check_id
from vectoracl.model.records import Hit, Page

_TIMES = 32
"""The number of write times that a cursor remembers of one version."""


@dataclass(slots=True)
class _Version:
    """The version of one document that a scan reads, up to the row `last`, which may have been skipped.

    `times` are the distinct write times of the returned rows, the newest last. If empty, the version is gone, and the
    document's further rows are skipped.
    """

    last: Position
    times: list[float] = field(default_factory=list)

    def takes(self, hit: Hit) -> bool:
        """Advance to *hit*; return whether it belongs to this version."""
        own = bool(self.times) and hit.tag.generation == self.last.generation
        self.last = _key(hit)
        if not own:
            self.times = []
            return False
        if hit.tag.time in self.times:
            self.times.remove(hit.tag.time)
        self.times.append(hit.tag.time)
        if len(self.times) > _TIMES:
            del self.times[1]  # the first is that of the rows that existed when the scan reached the document
        return True


def page(
    pipeline: Pipeline, store: Store, caller: Caller, where: Predicate, size: int, after: str | None, include: Include
) -> Flow[Page]:
    """Return one page; partitions follow each other in the order of the scope."""
    integer(size, "size", 1, MAX_PAGE)

    def body(plan: Plan, decision_id: str) -> Flow[Page]:
        binding = _binding(caller, plan, where)
        place, version = _read_cursor(after, binding, plan)
        hits: list[Hit] = []

        def ended(at: _Version | None) -> Page:
            return Page(tuple(stripped(hits, include)), _cursor(binding, place, at), decision_id)

        while place < len(plan.legs):
            leg = plan.legs[place]
            position = None if version is None else version.last
            room = size - len(hits)
            operation = Scan(leg.partition, leg.predicate, where, room, position, included(leg, include))
            rows = yield from locked(plan, leg, store, decision_id, lambda one=operation: store.adapter.scan(one))  # type: ignore[misc]  # mypy does not type a default of a lambda
            if version is not None and not (yield from _lives(plan, store, leg, version, rows, decision_id)):
                version.times = []
            for hit in rows.hits:
                if version is None or hit.document != version.last.document:
                    version = _Version(_key(hit), [hit.tag.time])
                elif not version.takes(hit):
                    continue
                hits.append(hit)
            if rows.more and rows.hits:
                if len(hits) >= size:
                    return ended(version)
                continue  # read on, in place of the skipped rows
            place, version = place + 1, None
            if len(hits) >= size and place < len(plan.legs):
                return ended(None)
        return Page(tuple(stripped(hits, include)), None, decision_id)

    def empty(decision_id: str) -> Page:
        return Page((), None, decision_id)

    return (
        yield from pipeline.run(
            caller, "scan", store, body, empty=empty, size=lambda one: len(one.hits), hits=lambda one: one.hits
        )
    )


def _lives(plan: Plan, store: Store, leg: Leg, version: _Version, rows: Rows, decision_id: str) -> Flow[bool]:
    """Return whether *version* still existed when *rows* were read; asks the store only if that makes a difference.

    It asks after *rows* were read: a row that exists now existed then, since a version that is gone does not return.
    """
    last = version.last
    same = takewhile(lambda hit: hit.document == last.document, rows.hits)
    if not version.times or not any(hit.tag.generation == last.generation for hit in same):
        return bool(version.times)
    can = store.capabilities

    def seen(found: Iterable[Hit]) -> bool:
        return any(
            (hit.document, hit.tag.generation) == (last.document, last.generation) and hit.tag.time in version.times
            for hit in found
        )

    none: Include = included(leg, frozenset())
    if "fetch" in can.operations:
        fetch = Fetch(leg.partition, leg.predicate, (ChunkRef(last.chunk, last.document),), none, 1)
        result = yield from locked(plan, leg, store, decision_id, lambda: store.adapter.fetch(fetch))
        if seen(result.hits):
            return True
    if not can.predicates >= {And, Eq, In}:
        return False
    # The last row itself was overwritten or deleted; any other row of the version is sufficient.
    when = Eq("@time", version.times[0]) if len(version.times) == 1 else In("@time", tuple(version.times))
    own = And((Eq("@document", last.document), Eq("@generation", last.generation), when))
    scan = Scan(leg.partition, leg.predicate, own, 1, None, none)
    result = yield from locked(plan, leg, store, decision_id, lambda: store.adapter.scan(scan))
    return seen(result.hits)


def _key(hit: Hit) -> Position:
    return Position(hit.document, hit.tag.generation, hit.id)


def _binding(caller: Caller, plan: Plan, where: Predicate) -> str:
    """Return a digest of the tenant, scope and filter of a cursor; a cursor of another scan is refused."""
    bound = [
        caller.principal.tenant,
        [leg.partition for leg in plan.legs],
        where.to_dict(),
        caller.narrow.to_dict(),
    ]
    return hashlib.blake2b(orjson.dumps(bound, option=orjson.OPT_SORT_KEYS), digest_size=9).hexdigest()


def _cursor(binding: str, place: int, version: _Version | None) -> str:
    key = None if version is None else [*version.last, version.times]
    return base64.urlsafe_b64encode(orjson.dumps([binding, place, key])).decode()


def _read_cursor(after: str | None, binding: str, plan: Plan) -> tuple[int, _Version | None]:
    if after is None:
        return 0, None
    version: _Version | None = None
    try:
        if len(after) > MAX_CURSOR:
            raise InvalidInputError("too long")
        bound, place, key = orjson.loads(base64.urlsafe_b64decode(after.encode()))
        if key is not None:
            document, generation, chunk, *times = key
            last = Position(check_id(document, "document"), int(generation), check_id(chunk, "id"))
            version = _Version(last, [float(one) for one in (times[0] if times else ())])
            if not 0 <= last.generation < 1 << 53 or not all(map(math.isfinite, version.times)):
                bound = None
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, InvalidInputError):
        bound, place, version = None, 0, None
    if bound != binding or type(place) is not int or not 0 <= place < len(plan.legs):
        raise InvalidInputError(
            "The cursor does not belong to this scan (same principal, scope and filter). Start again without a cursor.",
            field="after",
        )
    return place, version
