"""The flow of a page: the partitions one after the other, and the cursor from one page to the next."""

from __future__ import annotations

import base64
import hashlib

import orjson

from vectoracl.adapter import Flow
from vectoracl.arguments import MAX_CURSOR, MAX_PAGE, integer
from vectoracl.errors import InvalidInputError
from vectoracl.guard import Asker, Guard, Plan, Store
from vectoracl.ids import check_id
from vectoracl.operations import Include, Position, Scan
from vectoracl.predicate import Predicate
from vectoracl.reads import included, locked, stripped
from vectoracl.records import Hit, Page


def page(
    guard: Guard, store: Store, asker: Asker, where: Predicate, size: int, after: str | None, include: Include
) -> Flow[Page]:
    """Return one page; the partitions come one after the other, in the order of the scope."""
    integer(size, "size", 1, MAX_PAGE)

    def body(plan: Plan, decision_id: str) -> Flow[Page]:
        binding = _binding(asker, plan, where)
        place, position = _read_cursor(after, binding, plan)
        hits: list[Hit] = []
        while place < len(plan.legs):
            leg = plan.legs[place]
            wanted = size - len(hits)
            operation = Scan(leg.partition, leg.predicate, where, wanted, position, included(leg, include))
            rows = yield from locked(leg, store, decision_id, lambda one=operation: store.adapter.scan(one))  # type: ignore[misc]
            hits.extend(rows.hits)
            if rows.more and rows.hits:
                return Page(tuple(stripped(hits, include)), _cursor(binding, place, rows.hits[-1]), decision_id)
            place, position = place + 1, None
            if len(hits) >= size and place < len(plan.legs):
                return Page(tuple(stripped(hits, include)), _cursor(binding, place, None), decision_id)
        return Page(tuple(stripped(hits, include)), None, decision_id)

    def empty(decision_id: str) -> Page:
        return Page((), None, decision_id)

    return (yield from guard.guarded(asker, "scan", store, body, empty=empty, size=lambda one: len(one.hits)))


def _binding(asker: Asker, plan: Plan, where: Predicate) -> str:
    """Return a digest of whom and what a cursor belongs to; a foreign one is refused, not followed."""
    bound = [
        asker.principal.tenant,
        [leg.partition for leg in plan.legs],
        where.to_dict(),
        asker.narrow.to_dict(),
    ]
    return hashlib.blake2b(orjson.dumps(bound, option=orjson.OPT_SORT_KEYS), digest_size=9).hexdigest()


def _cursor(binding: str, place: int, last: Hit | None) -> str:
    key = None if last is None else [last.document, last.tag.generation, last.id]
    return base64.urlsafe_b64encode(orjson.dumps([binding, place, key])).decode()


def _read_cursor(after: str | None, binding: str, plan: Plan) -> tuple[int, Position | None]:
    if after is None:
        return 0, None
    try:
        if len(after) > MAX_CURSOR:
            raise InvalidInputError("too long")
        bound, place, key = orjson.loads(base64.urlsafe_b64decode(after.encode()))
        position = None if key is None else Position(check_id(key[0], "document"), int(key[1]), check_id(key[2], "id"))
        if position is not None and not 0 <= position.generation < 1 << 53:
            bound = None
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, InvalidInputError):
        bound, place, position = None, 0, None
    if bound != binding or type(place) is not int or not 0 <= place < len(plan.legs):
        raise InvalidInputError("This cursor does not belong to this scan; start again without one.", field="after")
    return place, position
