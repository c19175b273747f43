"""The adapter of a constructed mutant: it performs one operation wrongly whenever a trigger holds.

This file is handed to the adapter's process as text. Lines that set `OPERATION`, `DUE`, `ROW`, `LOST` and `LATENCY`
follow it (`constructed`), so it uses nothing but the library.
"""

from __future__ import annotations

import asyncio
import threading
import time
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from vectoracl.adapter_api.contract import flow_of
from vectoracl.adapter_api.operations import (
    OPERATIONS,
    ChunkRef,
    Count,
    Delete,
    Facets,
    Position,
    Replace,
    Scan,
    Search,
    Upsert,
)
from vectoracl.errors import DeniedError, StoreError
from vectoracl.filters.predicate import (
    ALWAYS,
    Always,
    And,
    ContainsAny,
    Eq,
    In,
    Missing,
    Not,
    Or,
    Predicate,
    Range,
    StartsWith,
    conjunction,
    disjunction,
    operands_of,
)
from vectoracl.filters.semantics import compile_test
from vectoracl.model.queries import HybridQuery, Lexical
from vectoracl.model.records import Facet, Hit

OPERATION = ""
DUE: Callable[[State, Any], bool] = lambda _state, _operation: False  # noqa: E731 - replaced
ROW: Callable[[Any], bool] = lambda _row: True  # noqa: E731 - replaced
LOST: Callable[[Altered, Any], Any] = lambda altered, operation: altered.plain(operation)  # noqa: E731 - replaced
LATENCY = 0.0


class State:
    """The history of one client: what triggers refer to."""

    def __init__(self) -> None:
        self.mode = ""
        self.calls = 0
        self.partitions: list[str] = []
        self.executing = 0
        self.lock = threading.Lock()
        self.ended = ""
        self.wrote = False
        self.last: Any = None
        self.scanned: list[Any] = []
        self.answers: dict[Any, Any] = {}
        self.local = threading.local()

    def begin(self, operation: Any) -> None:
        """Note an operation that begins."""
        if operation.partition not in self.partitions:
            self.partitions.append(operation.partition)
        self.started.append(operation)
        if isinstance(operation, Scan):
            same = self.scanned and self.scanned[-1].where is operation.where
            self.scanned = [*self.scanned, operation] if same else [operation]

    def end(self, operation: Any, how: str, answer: Any = None) -> None:
        """Note how an operation ended."""
        self.ended, self.last = how, operation
        self.wrote = OPERATIONS[type(operation)].writes
        if not how and type(operation).__name__ == OPERATION:
            self.answers[operation.partition] = answer

    def enter(self) -> None:
        """Note a request that is sent."""
        self.started.clear()
        with self.lock:
            self.executing += 1

    def leave(self) -> None:
        """Note that a request has ended."""
        with self.lock:
            self.executing -= 1

    @property
    def started(self) -> list[Any]:
        """The operations that began in this thread since its last request, which belong to one call."""
        if not hasattr(self.local, "started"):
            self.local.started = []
        return self.local.started  # type: ignore[no-any-return]

    def partition_number(self, operation: Any) -> int:
        """Return the number, from 1, of the operation's partition in its call."""
        together = self.scanned if isinstance(operation, Scan) else self.started
        return len({one.partition for one in together if type(one) is type(operation)})

    def query_number(self) -> int:
        """Return the number, from 1, of the query in its call."""
        return len({id(one.query) for one in self.started if isinstance(one, Search)})

    def other(self, partition: str) -> str | None:
        """Return the partition that was used last before *partition*."""
        return next((one for one in reversed(self.partitions) if one != partition), None)


def nodes(predicate: Predicate | None) -> Iterable[Predicate]:
    """Yield *predicate* and everything in it."""
    if predicate is not None:
        yield predicate
        for one in operands_of(predicate):
            yield from nodes(one)


def has(predicate: Predicate | None, *kinds: type[Predicate]) -> bool:
    """Return whether one of *kinds* is in *predicate*."""
    return any(isinstance(one, kinds) for one in nodes(predicate))


def names(predicate: Predicate | None, field: str) -> bool:
    """Return whether *predicate* asks something of *field*."""
    return any(getattr(one, "field", None) == field for one in nodes(predicate))


def longest(predicate: Predicate | None) -> int:
    """Return the length of the longest list of values in *predicate*."""
    return max((len(getattr(one, "values", ())) for one in nodes(predicate)), default=0)


def given(predicate: Predicate | None) -> bool:
    """Return whether *predicate* is a condition."""
    return predicate is not None and not isinstance(predicate, Always)


def words(query: Any) -> int:
    """Return the number of words of *query*."""
    return len(query.text.split()) if isinstance(query, Lexical | HybridQuery) else 0


def size_of(query: Any) -> int:
    """Return the number of components of the vector of *query*."""
    return 0 if isinstance(query, Lexical) else len(query.vector)


def depth(value: Any) -> int:
    """Return how deep lists and mappings are nested in *value*."""
    inside = value.values() if hasattr(value, "values") else value if isinstance(value, list | tuple) else ()
    return 1 + max(map(depth, inside), default=0) if inside or hasattr(value, "values") else 0


def keys(value: Any) -> Iterable[str]:
    """Yield every key in *value*."""
    if hasattr(value, "items"):
        for name, one in value.items():
            yield name
            yield from keys(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from keys(one)


def rewritten(predicate: Predicate, change: Callable[[Any], Predicate]) -> Predicate:
    """Return *predicate* with *change* applied to every part of it, from the inside."""
    if isinstance(predicate, And):
        return change(conjunction([rewritten(one, change) for one in predicate.operands]))
    if isinstance(predicate, Or):
        return change(disjunction([rewritten(one, change) for one in predicate.operands]))
    if isinstance(predicate, Not):
        return change(~rewritten(predicate.operand, change))
    return change(predicate)


def only(kind: type[Predicate], change: Callable[[Any], Predicate]) -> Callable[[Any], Predicate]:
    """Return *change* for the nodes of *kind*; others stay."""
    return lambda node: change(node) if isinstance(node, kind) else node


def _cases(values: Iterable[Any]) -> tuple[Any, ...]:
    forms = (
        form
        for one in values
        for form in ((one, one.lower(), one.upper(), one.title()) if isinstance(one, str) else (one,))
    )
    return tuple(dict.fromkeys(forms))


def _touching(node: Range) -> Predicate:
    """Swap open and closed bounds."""
    return Range(node.field, gt=node.gte, gte=node.gt, lt=node.lte, lte=node.lt)


def _lower_bound(node: Range) -> Predicate:
    """Lose the upper bound."""
    return ALWAYS if node.gt is None and node.gte is None else Range(node.field, gt=node.gt, gte=node.gte)


def _present(node: Not) -> Predicate:
    """Return the negation of SQL, which holds only for rows that have the field."""
    field = getattr(node.operand, "field", None)
    return conjunction([Not(Missing(field)), node]) if field and not isinstance(node.operand, Missing) else node


CHANGES: dict[str, Callable[[Any], Predicate]] = {
    "Eq-any-case": only(Eq, lambda node: In(node.field, _cases([node.value]))),
    "Eq-lost": only(Eq, lambda _: ALWAYS),
    "In-first-half": only(In, lambda node: In(node.field, node.values[: (len(node.values) + 1) // 2])),
    "In-last-lost": only(In, lambda node: In(node.field, node.values[:-1] or node.values)),
    "In-100": only(In, lambda node: In(node.field, node.values[:100])),
    "In-any-case": only(In, lambda node: In(node.field, _cases(node.values))),
    "In-lost": only(In, lambda _: ALWAYS),
    "Range-touching": only(Range, _touching),
    "Range-upper-lost": only(Range, _lower_bound),
    "Range-lost": only(Range, lambda _: ALWAYS),
    "ContainsAny-first": only(ContainsAny, lambda node: ContainsAny(node.field, node.values[:1])),
    "ContainsAny-all": only(
        ContainsAny, lambda node: conjunction([ContainsAny(node.field, (one,)) for one in node.values])
    ),
    "ContainsAny-lost": only(ContainsAny, lambda _: ALWAYS),
    "StartsWith-equal": only(StartsWith, lambda node: Eq(node.field, node.prefix)),
    "StartsWith-shorter": only(StartsWith, lambda node: StartsWith(node.field, node.prefix[:1])),
    "StartsWith-any-case": only(
        StartsWith, lambda node: disjunction([StartsWith(node.field, one) for one in _cases([node.prefix])])
    ),
    "StartsWith-lost": only(StartsWith, lambda _: ALWAYS),
    "Missing-lost": only(Missing, lambda _: ALWAYS),
    "And-last-lost": only(And, lambda node: conjunction(node.operands[:-1])),
    "And-first-lost": only(And, lambda node: conjunction(node.operands[1:])),
    "And-as-Or": only(And, lambda node: disjunction(node.operands)),
    "Or-last-lost": only(Or, lambda node: disjunction(node.operands[:-1])),
    "Or-first-lost": only(Or, lambda node: disjunction(node.operands[1:])),
    "Or-as-And": only(Or, lambda node: conjunction(node.operands)),
    "Or-lost": only(Or, lambda _: ALWAYS),
    "Not-lost": only(Not, lambda _: ALWAYS),
    "Not-ignored": only(Not, lambda node: node.operand),
    "Not-needs-field": only(Not, _present),
}
"""Wrong forms of the parts of a predicate: each begins with the part's name."""


class _Disguised:
    """A request to another partition under the name of the permitted one."""

    port = "store"

    def __init__(self, request: Any, partition: str) -> None:
        self.request = request
        self.partition = partition

    @property
    def writes(self) -> bool:
        """Whether the request changes rows."""
        return bool(self.request.writes)


class _Ported:
    def __init__(self, port: Any, state: State) -> None:
        self._port = port
        self._state = state
        self.parallel = port.parallel

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        request = request.request if isinstance(request, _Disguised) else request
        self._state.enter()
        try:
            if LATENCY:
                time.sleep(LATENCY)
            return self._port.execute(request, timeout)
        finally:
            self._state.leave()

    def close(self) -> None:
        """Close."""
        self._port.close()


class _AsyncPorted:
    def __init__(self, port: Any, state: State) -> None:
        self._port = port
        self._state = state
        self.parallel = port.parallel

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        request = request.request if isinstance(request, _Disguised) else request
        self._state.enter()
        try:
            if LATENCY:
                await asyncio.sleep(LATENCY)
            return await self._port.execute(request, timeout)
        finally:
            self._state.leave()

    async def close(self) -> None:
        """Close."""
        await self._port.close()


class Altered:
    """The adapter, with one operation that is performed wrongly."""

    def __init__(self, inner: Any, state: State) -> None:
        self.inner = inner
        self.state = state

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def plain(self, operation: Any) -> Any:
        """Perform *operation* as the adapter does."""
        return flow_of(self.inner, operation)

    def elsewhere(self, operation: Any, partition: str) -> Any:
        """Perform *operation* in *partition* although it is not permitted there."""
        flow = flow_of(self.inner, _moved(operation, partition))
        value: Any = None
        error: Exception | None = None
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value
            value, error = None, None
            many = step if isinstance(step, tuple) else (step,)
            hidden: Any = tuple(_Disguised(one, operation.partition) for one in many)
            try:
                value = yield (hidden if isinstance(step, tuple) else hidden[0])
            except Exception as caught:  # noqa: BLE001 - handed to the flow, whose error it is
                error = caught

    def performed(self, operation: Any) -> Any:
        """Perform *operation*, wrongly where it is due."""
        state = self.state
        state.begin(operation)
        mine = type(operation).__name__ == OPERATION
        try:
            wrong = mine and DUE(state, operation)
            state.calls += mine
            answer = yield from (LOST(self, operation) if wrong else self.plain(operation))
        except GeneratorExit:
            state.end(operation, "cut")
            raise
        except DeniedError:
            state.end(operation, "denied")
            raise
        except StoreError:
            state.end(operation, "failed")
            raise
        state.end(operation, "", answer)
        return answer


for _kind in OPERATIONS.values():
    setattr(Altered, _kind.method, lambda self, operation: self.performed(operation))


def _moved(operation: Any, partition: str) -> Any:
    changes: dict[str, Any] = {"partition": partition}
    if isinstance(operation, Upsert | Replace):
        changes["records"] = tuple(_tagged(one, tenant=partition) for one in operation.records)
    return replace(operation, **changes)


def _tagged(row: Any, **parts: Any) -> Any:
    """Return a hit or a record with other parts of the tag, and of what a hit repeats of it."""
    row = row._replace(tag=row.tag._replace(**parts))
    if isinstance(row, Hit):
        tag = row.tag
        row = row._replace(id=tag.chunk, document=tag.document, tenant=tag.tenant, position=tag.position)
    return row


def _with_rows(answer: Any, rows: Iterable[Any]) -> Any:
    return answer._replace(hits=list(rows))


# What is lost of an operation: each is a flow that takes the operation's place.


def scope(altered: Altered, operation: Any) -> Any:
    """The scope's predicate is lost."""
    return altered.plain(replace(operation, scope=ALWAYS))


def where(altered: Altered, operation: Any) -> Any:
    """The caller's filter is lost."""
    return altered.plain(replace(operation, where=ALWAYS))


def where_for_scope(altered: Altered, operation: Any) -> Any:
    """The caller's filter takes the scope's place."""
    return altered.plain(replace(operation, scope=operation.where))


def filtered_after(altered: Altered, operation: Any) -> Any:
    """The best rows of the partition are ranked, and only then the scope is applied."""
    include = operation.include | {"metadata"}
    answer = yield from altered.plain(replace(operation, scope=ALWAYS, include=include))
    test = compile_test(operation.scope)
    return _with_rows(answer, [one for one in answer.hits if test(one.tag, one.metadata or {})])


def without_parentheses(altered: Altered, operation: Any) -> Any:
    """`where AND a OR b` instead of `where AND (a OR b)`."""
    first, *rest = operation.scope.operands
    condition = disjunction([conjunction([operation.where, first]), *rest])
    return altered.plain(replace(operation, scope=condition, where=ALWAYS))


def changed(operand: str, name: str) -> Any:
    """Return the loss of one part of the scope or of the caller's filter."""

    def lost(altered: Altered, operation: Any) -> Any:
        predicate = rewritten(getattr(operation, operand), CHANGES[name])
        return altered.plain(replace(operation, **{operand: predicate}))

    return lost


def tenant(altered: Altered, operation: Any) -> Any:
    """Another partition is read, and its rows get the asked one's tag."""
    other = altered.state.other(operation.partition)
    if other is None:
        return (yield from altered.plain(operation))
    answer = yield from altered.elsewhere(operation, other)
    if not hasattr(answer, "hits"):
        return answer
    return _with_rows(answer, [_tagged(one, tenant=operation.partition) for one in answer.hits])


def tenant_too(altered: Altered, operation: Any) -> Any:
    """Another partition is read or written in addition."""
    other = altered.state.other(operation.partition)
    own = yield from altered.plain(operation)
    if other is None:
        return own
    try:
        more = yield from altered.elsewhere(replace(operation, scope=ALWAYS), other)
    except (DeniedError, StoreError):
        return own
    if isinstance(operation, Count):
        return own + more
    if isinstance(operation, Facets):
        totals: dict[Any, int] = {}
        for value, count in (*own, *more):
            totals[value] = totals.get(value, 0) + count
        return [Facet(*pair) for pair in totals.items()]
    if hasattr(own, "hits"):
        hits = [*own.hits, *(_tagged(one, tenant=operation.partition) for one in more.hits)]
        hits.sort(key=lambda hit: -hit.score)
        return _with_rows(own, hits[: operation.k] if isinstance(operation, Search) else hits)
    return own


def leg(altered: Altered, operation: Any) -> Any:
    """The lexical leg of a hybrid query ranks rows outside of the scope."""
    own = yield from altered.plain(operation)
    if not isinstance(operation.query, HybridQuery):
        return own
    lexical = replace(operation, query=Lexical(operation.query.text), scope=ALWAYS, group_by=None)
    legs = (own.hits, (yield from altered.plain(lexical)).hits)
    best = {hit.tag[:3]: hit for pair in zip_longest(*legs) for hit in reversed(pair) if hit is not None}
    return _with_rows(own, list(best.values())[: operation.k])


def argument(name: str, value: Any) -> Any:
    """Return the loss of one argument: *value* takes its place."""
    return lambda altered, operation: altered.plain(replace(operation, **{name: value}))


def after(change: Callable[[list[Any]], list[Any]]) -> Any:
    """Return the loss that *change* makes to the rows of an answer."""

    def lost(altered: Altered, operation: Any) -> Any:
        answer = yield from altered.plain(operation)
        return _with_rows(answer, change(answer.hits))

    return lost


reversed_rows = after(lambda hits: hits[::-1])
swapped_rows = after(lambda hits: [*hits[1:2], *hits[:1], *hits[2:]])
last_row = after(lambda hits: hits[:-1])
first_row = after(lambda hits: hits[1:])
half_of_the_rows = after(lambda hits: hits[: len(hits) // 2])
doubled_row = after(lambda hits: [*hits[:1], *hits])
scores = after(lambda hits: [one._replace(score=one.score * 0.5 - 0.25) for one in hits])
equal_scores = after(lambda hits: [one._replace(score=hits[0].score) for one in hits])
text_of_another = after(
    lambda hits: [one._replace(text=next_.text) for one, next_ in zip(hits, hits[1:] + hits[:1], strict=True)]
)


def one_more(altered: Altered, operation: Any) -> Any:
    """One row more than asked for."""
    name = "k" if isinstance(operation, Search) else "size"
    return altered.plain(replace(operation, **{name: getattr(operation, name) + 1}))


def bare_refs(altered: Altered, operation: Any) -> Any:
    """The document of a chunk's name is lost."""
    refs = tuple(dict.fromkeys(ChunkRef(ref.chunk) for ref in operation.refs))
    return altered.plain(replace(operation, refs=refs))


def last_ref(altered: Altered, operation: Any) -> Any:
    """The last of the named chunks is lost."""
    return altered.plain(replace(operation, refs=operation.refs[:-1]))


def folded_refs(fold: Callable[[str], str]) -> Any:
    """Return the loss that chunks are looked up by another form of their ids."""

    def lost(altered: Altered, operation: Any) -> Any:
        refs = tuple(dict.fromkeys(ref._replace(chunk=fold(ref.chunk)) for ref in operation.refs))
        return altered.plain(replace(operation, refs=refs))

    return lost


def previous(altered: Altered, operation: Any) -> Any:
    """The previous answer is repeated."""
    answer = altered.state.answers.get(operation.partition)
    if answer is None or getattr(operation, "after", None) is not None:  # the same page again would never end
        answer = yield from altered.plain(operation)
    return answer


def rest_of_document(altered: Altered, operation: Any) -> Any:
    """The next page begins with the next document."""
    start = operation.after
    if start is not None:
        operation = replace(operation, after=Position(start.document, 1 << 52, start.chunk))
    return altered.plain(operation)


def further_pages(altered: Altered, operation: Any) -> Any:
    """A page is reported as the last one."""
    answer = yield from altered.plain(operation)
    return answer._replace(more=False)


def more_by_one(altered: Altered, operation: Any) -> Any:
    """One too many is counted."""
    answer = yield from altered.plain(operation)
    return None if answer is None else answer + 1


def less_by_one(altered: Altered, operation: Any) -> Any:
    """One too few is counted."""
    answer = yield from altered.plain(operation)
    return None if answer is None else max(0, answer - 1)


def facets_by(change: Callable[[list[Facet]], list[Facet]]) -> Any:
    """Return the loss that *change* makes to counts by value."""

    def lost(altered: Altered, operation: Any) -> Any:
        answer = yield from altered.plain(operation)
        return change(sorted(answer, key=lambda one: (-one.count, str(one.value))))

    return lost


last_value = facets_by(lambda values: values[:-1])
one_counted_twice = facets_by(lambda values: [*(Facet(one.value, one.count + 1) for one in values[:1]), *values[1:]])
value_cut = facets_by(
    lambda values: [Facet(one.value[:-1] or "-", one.count) if isinstance(one.value, str) else one for one in values]
)


# What is lost of a write.


def nothing_written(altered: Altered, operation: Any) -> Any:
    """Nothing is written or deleted, and success is reported."""
    if isinstance(operation, Delete):
        answer = yield from altered.plain(Count(operation.partition, operation.scope, _selected(operation)))
        return answer
    return len(operation.records)


def _selected(operation: Any) -> Predicate:
    if operation.document is not None:
        return Eq("@document", operation.document)
    if operation.where is not None:
        return operation.where  # type: ignore[no-any-return]
    return disjunction(
        Eq("@chunk", ref.chunk)
        if ref.document is None
        else And((Eq("@document", ref.document), Eq("@chunk", ref.chunk)))
        for ref in operation.refs
    )


def records(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Any:
    """Return the loss that *change* makes to the records of a write, whose full number is reported."""

    def lost(altered: Altered, operation: Any) -> Any:
        yield from altered.plain(replace(operation, records=change(operation.records)))
        return len(operation.records)

    return lost


last_record = records(lambda rows: rows[:-1])
half_of_the_records = records(lambda rows: rows[: (len(rows) + 1) // 2])
text_of_another_record = records(
    lambda rows: tuple(one._replace(text=next_.text) for one, next_ in zip(rows, rows[1:] + rows[:1], strict=True))
)


def bad_ones_skipped(altered: Altered, operation: Any) -> Any:
    """Where a record may not be written, the others are written all the same."""
    try:
        return (yield from altered.plain(operation))
    except DeniedError as error:
        denied = error
    for one in operation.records:
        try:
            yield from altered.plain(replace(operation, records=(one,)))
        except DeniedError:
            continue
    raise denied


def in_halves(altered: Altered, operation: Any) -> Any:
    """The write goes in two requests, and the first stays if the second fails."""
    middle = len(operation.records) // 2
    if not middle:
        return (yield from altered.plain(operation))
    yield from altered.plain(replace(operation, records=operation.records[:middle]))
    yield from altered.plain(replace(operation, records=operation.records[middle:]))
    return len(operation.records)


def document_first(altered: Altered, operation: Any) -> Any:
    """A new chunk takes the place of all others of its document."""
    documents = {one.tag.document for one in operation.records}
    for one in documents:
        yield from altered.plain(Delete(operation.partition, operation.scope, document=one))
    return (yield from altered.plain(operation))


def id_in_one_document(altered: Altered, operation: Any) -> Any:
    """A new chunk takes the place of those with its id in other documents."""
    refs = tuple(dict.fromkeys(ChunkRef(one.tag.chunk) for one in operation.records))
    if refs:
        yield from altered.plain(Delete(operation.partition, ALWAYS, refs=refs))
    return (yield from altered.plain(operation))


def old_rows_stay(altered: Altered, operation: Any) -> Any:
    """The document's old chunks stay."""
    if not operation.records:
        return 0
    return (yield from altered.plain(Upsert(operation.partition, operation.scope, operation.records)))


def prefix_too(altered: Altered, operation: Any) -> Any:
    """Documents whose names begin like the named one are deleted too."""
    name = operation.document
    answer = yield from altered.plain(operation)
    alike = StartsWith("@document", name[: (len(name) + 1) // 2])
    yield from altered.plain(Delete(operation.partition, operation.scope, where=alike))
    return answer


def document_too(altered: Altered, operation: Any) -> Any:
    """The whole documents of the named chunks are deleted."""
    answer = yield from altered.plain(operation)
    for one in {ref.document for ref in operation.refs if ref.document is not None}:
        yield from altered.plain(Delete(operation.partition, operation.scope, document=one))
    return answer


# What is lost of a row: of those for which `ROW` holds, in answers and in records.


def each(change: Callable[[Any], Any]) -> Any:
    """Return the loss that *change* makes to each row that is meant; None loses the row."""

    def lost(altered: Altered, operation: Any) -> Any:
        if isinstance(operation, Upsert | Replace):
            rows = [change(one) if ROW(one) else one for one in operation.records]
            kept = {one.tag[:3]: one for one in rows if one is not None}  # two records may have become one
            if kept or isinstance(operation, Replace):
                yield from altered.plain(replace(operation, records=tuple(kept.values())))
            return len(operation.records)
        answer = yield from altered.plain(operation)
        rows = [change(one) if ROW(one) else one for one in answer.hits]
        if isinstance(operation, Scan) and answer.more:
            rows[-1] = answer.hits[-1]  # a page continues after it, and could otherwise be repeated for ever
        return _with_rows(answer, [one for one in rows if one is not None])

    return lost


def _text(change: Callable[[str], str]) -> Any:
    return each(lambda row: row if row.text is None else row._replace(text=change(row.text)))


def _metadata(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    return each(lambda row: row if not row.metadata else row._replace(metadata=change(dict(row.metadata))))


def _flat(value: Any) -> Any:
    return {
        name: str(one) if hasattr(one, "items") or isinstance(one, list | tuple) else one for name, one in value.items()
    }


row_lost = each(lambda _: None)
text_cut = _text(lambda text: text[:2_000] if len(text) > 2_000 else text[: len(text) // 2])
text_empty = _text(lambda _: "")
text_trimmed = _text(lambda text: " ".join(text.split()).lower())
metadata_key = _metadata(lambda data: {name: data[name] for name in sorted(data)[:-1]})
metadata_empty = _metadata(lambda _: {})
metadata_flat = _metadata(_flat)
metadata_lower = _metadata(lambda data: {name.lower(): one for name, one in data.items()})
vector_rounded = each(
    lambda row: row if row.vector is None else row._replace(vector=np.round(row.vector, 1).astype(np.float32) + 0.01)
)
vector_reversed = each(lambda row: row if row.vector is None else row._replace(vector=row.vector[::-1].copy()))
position = each(lambda row: _tagged(row, position=row.tag.position + 1))
label = each(lambda row: _tagged(row, label=f"{row.tag.label}-"))
producer = each(lambda row: _tagged(row, producer=""))
path = each(lambda row: _tagged(row, path="written"))
expiry = each(lambda row: _tagged(row, expires=row.tag.expires / 2))
written_at = each(lambda row: _tagged(row, time=0.0))
id_casefolded = each(lambda row: _tagged(row, chunk=row.tag.chunk.casefold()))
id_compatible = each(lambda row: _tagged(row, chunk=unicodedata.normalize("NFKC", row.tag.chunk)))
id_cut = each(lambda row: _tagged(row, chunk=row.tag.chunk[:100]))
id_joined = each(lambda row: _tagged(row, chunk="".join(one for one in row.tag.chunk if one.isalnum()) or "-"))
document_casefolded = each(lambda row: _tagged(row, document=row.tag.document.casefold()))
document_cut = each(lambda row: _tagged(row, document=row.tag.document[:100]))


def dress(opened: Any) -> Any:
    """Return *opened* with the altered adapter."""
    state = State()
    port, aport = opened.port, opened.aport

    def sync() -> Any:
        state.mode = "sync"
        return _Ported(port(), state)

    def asynchronous() -> Any:
        state.mode = "async"
        return _AsyncPorted(aport(), state)

    return replace(opened, adapter=Altered(opened.adapter, state), port=sync, aport=asynchronous)
