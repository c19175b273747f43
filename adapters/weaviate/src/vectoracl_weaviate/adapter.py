"""The Weaviate adapter: each operation as a flow of requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, assert_never

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Capabilities, Flow, Request, together
from vectoracl.adapter_api.generations import added_outside, at_generation, version_of
from vectoracl.adapter_api.operations import (
    Count,
    Delete,
    Facets,
    Fetch,
    Found,
    Include,
    Relabel,
    Replace,
    Rows,
    Scan,
    Search,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.engine.drivers import confined
from vectoracl.errors import DeniedError, RefusedError, StoreError, UnsupportedPredicateError
from vectoracl.filters.boolean_compiler import ALL_ROWS, NO_ROWS
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import In, Not, Predicate
from vectoracl.filters.semantics import tallied
from vectoracl.model.queries import HybridQuery, Lexical, ResolvedQuery, VectorQuery
from vectoracl.model.records import Facet, Hit, Record, Vector
from vectoracl_weaviate import posture as postures
from vectoracl_weaviate.answers import NOT_PROVISIONED, UNSETTLED, error_of
from vectoracl_weaviate.capabilities import capabilities
from vectoracl_weaviate.compile import NO_VERSION, WeaviateCompiler
from vectoracl_weaviate.compile_predicate import Compiled, Condition, every
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.decode import ADAPTER, Decoder, Number, Ranking, Row, Version
from vectoracl_weaviate.failures import not_served
from vectoracl_weaviate.names import id_of, seek_key, tenant_name
from vectoracl_weaviate.rank_fusion import deeper, first_depth, fused, grouped, leg_depth
from vectoracl_weaviate.requests import Merge, Rights, Tenants, TenantState

R = TypeVar("R")
FIRST: Final[Number] = (0, NO_VERSION)
_ROUNDS = 6
_CONCURRENT = 64
_GROUPS = 256
"""How many groups the server is asked for: its work grows with their square (10 s for 10,000 of them on 1.39)."""
_SHORT = "the vector index returned fewer hits than the scope has"
_DEEP = "the deepest possible ranking did not contain enough documents"


_HIDDEN = "too many objects that do not match rank before those that do: run `vectoracl provision`"
_STALE = "one replica of the tenant answered, which may lack objects of the others"
_LOOKS = 8
_STRANGE = 100
"""How many objects of writers that did not know a field are looked at before all are compared."""
_DROPPED = 100
"""How many compared objects go in one call: the fewer, the sooner after they were compared."""
_DOUBTFUL = ("rejected", NOT_PROVISIONED.code)
"""The codes of a refusal where a tenant is missing, or where the one node that answers does not know it yet."""
_METADATA: Final[Include] = frozenset({"metadata"})


class _Seen(NamedTuple, Generic[R]):
    """The answer to a question: the matching rows, of whatever version, and what is made of the published ones."""

    rows: Sequence[Row]
    value: R


class Settled(NamedTuple):
    """The number of objects that were removed, and of those whose mark was."""

    removed: int
    unmarked: int


class _Leg(NamedTuple):
    """One ranking: the rows that match, the best hits of those, and whether there are no more."""

    rows: list[Row]
    hits: list[Hit]
    whole: bool


class _Ranked(NamedTuple):
    """The best hits; `whole` says whether these are all.

    `near` is the number of hits by vector if those were fewer than requested, so that the index has no more, else None.
    """

    hits: list[Hit]
    whole: bool
    near: int | None = None


_Published = Mapping[str, "Number | None"]
_Ask = Callable[[Compiled, _Published], Flow[_Seen[R]]]
_Look = Callable[[Compiled, int], Request[Sequence[Any]]]
"""Requests at most a number of objects that match a filter."""


_Marks = dict[Number, str]
"""The versions of one document, with the mark that was found on each ("" for none)."""


def _is_settled(marks: _Marks) -> bool:
    return len(marks) < 2 and not any(marks.values())


def _behind(refused: StoreError) -> StoreError:
    """Return the error of a node that does not know a collection of which the cluster's leader knows the tenants."""
    return error_of(UNSETTLED, write=refused.sent == "unknown")


class WeaviateAdapter:
    """The Weaviate adapter. Every request names one tenant; a read shows one version of each document.

    With *governed* a registry says which generation that is, in the scope: marks are neither written nor looked for.
    """

    def __init__(self, config: WeaviateConfig, fields: Mapping[str, FieldType], *, governed: bool = False) -> None:
        self._governed = governed
        self.config = config
        self._fields = fields
        self._capabilities = capabilities(config)
        self._compile = WeaviateCompiler(config, fields)
        self._decode = Decoder(config, fields)
        self._replicas = config.replication_factor or 1

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of this adapter."""
        return self._capabilities

    # Reads

    def search(self, operation: Search) -> Flow[Found]:
        """Rank inside the scope; if there are fewer hits than requested, check whether there are more."""
        return (yield from self._reading(operation.partition, lambda: self._search(operation), Found([])))

    def _search(self, operation: Search) -> Flow[Found]:
        condition = self._compile.condition(operation.scope, operation.where)
        if condition.rows is NO_ROWS:
            return Found([])
        if operation.group_by is not None:
            hits, shortfall = yield from self._groups(operation, condition)
        else:
            ranked = yield from self._ranked(operation, condition, operation.k)
            hits, shortfall = ranked.hits, None
            if len(hits) < operation.k and not ranked.whole:
                shortfall = _HIDDEN
            elif (yield from self._lost(operation.partition, condition, ranked, operation.k)):
                shortfall = _SHORT
        if shortfall is None and self._replicas > 1:
            shortfall = _STALE  # whatever consistency is asked for: see the guide
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(_plain(hits, operation.include), shortfall is None, shortfall)

    def _lost(self, partition: str, condition: Condition, ranked: _Ranked, limit: int) -> Flow[bool]:
        """Return whether, of a ranking for *limit*, the vector index returned all that it has, and the scope has more.

        A graph may not reach a row; an index that is built later, or was lost with its node, may not have it.
        """
        if ranked.near is None or self.config.index == "flat":
            return False
        if len(ranked.hits) >= limit and condition.sure is None:
            return False  # as many as were requested, and to count the others each would have to be read
        return (yield from self._number(partition, condition, quick=True)) > ranked.near

    def _groups(self, operation: Search, condition: Condition) -> Flow[tuple[list[Hit], str | None]]:
        """Rank deeper and deeper until the best documents, and the best hits of each, are sure."""
        most = self.config.max_k
        depth = min(most, first_depth(operation))
        while True:
            ranked = yield from self._ranked(operation, condition, depth)
            groups = grouped(ranked.hits, operation)
            if groups.full:
                return groups.hits, None
            if ranked.whole:
                short = yield from self._short_groups(operation, condition, ranked, depth)
                return groups.hits, _SHORT if short else None
            if depth >= most:
                return groups.hits, _DEEP
            depth = deeper(depth, most)

    def _short_groups(self, operation: Search, condition: Condition, ranked: _Ranked, limit: int) -> Flow[bool]:
        """Return whether documents, or hits of one, are too few because the vector index does not have them."""
        partition = operation.partition
        if not (yield from self._lost(partition, condition, ranked, limit)):
            return False
        if not ranked.hits or isinstance(operation.query, HybridQuery):
            return True  # in a hybrid ranking, what the index lacks would change the ranks of the others
        counts = Counter(hit.document for hit in ranked.hits)

        def number(documents: Predicate) -> Flow[int]:
            part = self._compile.condition(operation.scope, operation.where, documents)
            return self._number(partition, part, quick=True)

        if len(counts) < operation.k and (yield from number(Not(In("@document", tuple(counts))))):
            return True
        few = {name: count for name, count in counts.items() if count < operation.per_group}
        return bool(few) and (yield from number(In("@document", tuple(few)))) > sum(few.values())

    def _ranked(self, operation: Search, condition: Condition, limit: int) -> Flow[_Ranked]:
        """Return the best *limit* hits."""
        compiled, partition, query = self._compile, operation.partition, operation.query
        include = operation.include | _METADATA if condition.fields else operation.include
        markers = bool(condition.fields)

        def near(vector: Vector, where: Compiled, most: int) -> Request[Sequence[Any]]:
            return compiled.near(partition, where, vector, most, include, markers=markers)

        def words(text: str, where: Compiled, most: int) -> Request[Sequence[Any]]:
            return compiled.words(partition, where, text, most, include, markers=markers)

        def ask(more: Compiled, published: _Published) -> Flow[_Seen[_Ranked]]:
            where = every([condition.rows, more])

            def leg(look: _Look, by: Ranking, depth: int, first: Sequence[Any] | None = None) -> Flow[_Leg]:
                return self._leg(condition, where, look, by, depth, published, first)

            match query:
                case VectorQuery(vector=vector):
                    one = yield from leg(partial(near, vector), "near", limit)
                    return _Seen(one.rows, _Ranked(one.hits, one.whole, _end(one, limit)))
                case Lexical(text=text):
                    one = yield from leg(partial(words, text), "words", limit)
                    return _Seen(one.rows, _Ranked(one.hits, one.whole))
                case HybridQuery(text=text, vector=vector):
                    depth = leg_depth(limit, self.config.max_k)
                    first = yield from together(near(vector, where, depth), words(text, where, depth))
                    left = yield from leg(partial(near, vector), "near", depth, first[0])
                    right = yield from leg(partial(words, text), "words", depth, first[1])
                    hits = fused([left.hits, right.hits])
                    whole = len(hits) <= limit and left.whole and right.whole
                    ranked = _Ranked(hits[:limit], whole, _end(left, depth))
                    return _Seen([*left.rows, *right.rows], ranked)
            assert_never(query)

        return (yield from self._steady(partition, ask))

    def _leg(
        self,
        condition: Condition,
        where: Compiled,
        look: _Look,
        by: Ranking,
        limit: int,
        published: _Published,
        first: Sequence[Any] | None = None,
    ) -> Flow[_Leg]:
        """Rank, and deeper where rows that do not match took the place of others; *first* is what came already."""
        depth, most = limit, max(limit, self.config.max_k)
        while True:
            objects = (yield from look(where, depth)) if first is None else first
            first = None
            rows = yield from self._matching(condition, self._decode.rows(objects, by, condition.fields),
                                             lambda more, many: look(every([where, more]), many), by)  # fmt: skip
            hits = [row.hit for row in rows if _visible(row, published)]
            whole = len(objects) < depth
            if whole or len(hits) >= limit or depth >= most:
                return _Leg(rows, hits[:limit], whole and len(hits) <= limit)
            depth = min(most, limit + 2 * (depth - len(hits)))

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id; the ids are conditions in addition to the scope."""
        return (yield from self._reading(operation.partition, lambda: self._fetch(operation), Rows([])))

    def _fetch(self, operation: Fetch) -> Flow[Rows]:
        condition = self._compile.condition(operation.scope)
        hits = yield from self._listed(
            operation.partition, condition, self._compile.refs(operation.refs), operation.include
        )
        return Rows(_plain(_in_order(hits), operation.include))

    def _listed(
        self, partition: str, condition: Condition, base: Compiled = ALL_ROWS, include: Include = frozenset()
    ) -> Flow[list[Hit]]:
        """Return every published row that passes *base* and matches."""

        def ask(more: Compiled, published: _Published) -> Flow[_Seen[list[Hit]]]:
            rows = yield from self._rows(partition, condition, every([base, more]), include)
            return _Seen(rows, [row.hit for row in rows if _visible(row, published)])

        return (yield from self._steady(partition, ask))

    def _rows(
        self, partition: str, condition: Condition, base: Compiled, include: Include = frozenset()
    ) -> Flow[list[Row]]:
        """Return every row that passes *base* and matches, of whatever version."""
        names = self._properties(condition, include)
        vectors = "vector" in include
        where = every([base, condition.rows])
        objects = yield from self._all(partition, where, names, vectors=vectors)

        def look(more: Compiled, many: int) -> Request[Sequence[Any]]:
            return self._compile.listing(partition, every([where, more]), many, names, vectors=vectors)

        rows = self._decode.rows(objects, "", condition.fields)
        return (yield from self._matching(condition, rows, look))

    def _properties(self, condition: Condition, include: Include) -> tuple[str, ...]:
        more = include | _METADATA if condition.fields else include
        return self._compile.properties(more, markers=bool(condition.fields))

    def _matching(self, condition: Condition, rows: list[Row], look: _Look, by: Ranking = "") -> Flow[list[Row]]:
        """Return those of *rows* that match, by comparing each.

        The server may answer with one that does not match while it is being written; it will not, when asked again. If
        it goes on, its filter is not what was asked for, and nothing of the answer is used. Raises: StoreError.
        """
        test = condition.test
        if test is None:
            return rows
        wrong = {row.version.id: row for row in rows if not test(row.hit.tag, row.hit.metadata or {})}
        if not wrong:
            return rows
        doubtful = {id_: row for id_, row in wrong.items() if row.known}
        for _ in range(_LOOKS):
            if not doubtful:
                return [row for row in rows if row.version.id not in wrong]
            objects = yield from look(self._compile.ids(doubtful), len(doubtful))
            again = [row for row in self._decode.rows(objects, by, condition.fields) if row.known]
            doubtful = {
                row.version.id: row
                for row in again
                if row.version.id in doubtful
                and _same(row.hit, doubtful[row.version.id].hit)
                and not test(row.hit.tag, row.hit.metadata or {})
            }
        raise _unsettled()

    def count(self, operation: Count) -> Flow[int]:
        """Count exactly: by a filter where one is sure, else by comparing each row that it may be about."""
        condition = self._compile.condition(operation.scope, operation.where)
        return (yield from self._reading(operation.partition, lambda: self._number(operation.partition, condition), 0))

    def _number(self, partition: str, condition: Condition, *, quick: bool = False) -> Flow[int]:
        """Count. *quick* needs one round instead of three, and only shows whether there may be more."""
        if condition.rows is NO_ROWS:
            return 0
        if condition.sure is not None:
            count = yield from self._surely(partition, condition, self._counted(partition, condition.sure), quick=quick)
            if count is not None:
                return count
        return len((yield from self._listed(partition, condition)))

    def _counted(self, partition: str, where: Compiled) -> Request[int] | None:
        return None if where is NO_ROWS else self._compile.tally(partition, where)

    def _surely(
        self, partition: str, condition: Condition, request: Request[R] | None, *, quick: bool = False
    ) -> Flow[R | None]:
        """Return the reply of *request*, which relies on the server alone; None where that cannot be done.

        That is where a document of the scope was being replaced before it or after it, or where an object is of a
        writer that did not know a field. One after the other: a replacement that was going on when the reply was made
        has a mark at one of the ends, unless all of it lay between them.
        """
        compiled = self._compile
        marked = compiled.tally(partition, every([condition.rows, compiled.marked()]))
        steps: list[Request[Any]] = [marked]
        if condition.strange is not NO_ROWS:
            where = every([condition.rows, condition.strange])
            steps.append(compiled.listing(partition, where, _STRANGE, self._properties(condition, frozenset())))
        if quick and request is not None:
            steps.append(request)
        replies = yield from together(*steps)
        if replies[0]:
            return None
        if condition.strange is not NO_ROWS:
            rows = self._decode.rows(replies[1], "", condition.fields)
            if len(rows) == _STRANGE or not all(row.known for row in rows):
                return None
        if request is None:
            return 0  # type: ignore[return-value]  # of nothing that is known there are none
        if quick:
            return replies[-1]  # type: ignore[no-any-return]
        reply = yield from request
        return None if (yield from marked) else reply

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count by value exactly: by groups where the filter cannot change of a row, else by comparing each row."""
        return (yield from self._reading(operation.partition, lambda: self._facets(operation), list[Facet]()))

    def _facets(self, operation: Facets) -> Flow[list[Facet]]:
        compiled, partition, field = self._compile, operation.partition, operation.field
        condition = compiled.condition(operation.scope, operation.where)
        if condition.rows is NO_ROWS:
            return []
        fields = condition.fields if field in TAG_FIELDS else condition.fields | {field}
        full_condition = condition._replace(fields=fields, strange=compiled.strange(*fields))
        # The value is read of an object later than the filter was: only what cannot change in between may be grouped.
        if condition.fixed:
            # The server keeps the largest groups and says nothing of the others: one more than are wanted shows them.
            limit = min(operation.most, _GROUPS) + 1
            request = compiled.groups(partition, condition.rows, field, limit)
            groups = yield from self._surely(partition, full_condition, request)
            if groups is not None and (len(groups) < limit or limit > operation.most):
                return self._decode.facets(field, groups)
        include = frozenset[Any]() if field in TAG_FIELDS else _METADATA
        hits = yield from self._listed(partition, condition, include=include)
        return tallied((self._decode.values(field, hit) for hit in hits), operation.most)

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Return one page in key order."""
        return (yield from self._reading(operation.partition, lambda: self._scan(operation), Rows([])))

    def _scan(self, operation: Scan) -> Flow[Rows]:
        compiled, partition, include = self._compile, operation.partition, operation.include
        condition = compiled.condition(operation.scope, operation.where)
        start, size = operation.after, operation.size
        begin = ALL_ROWS if start is None else compiled.after(seek_key(start.document, start.generation, start.chunk))
        names, vectors = self._properties(condition, include), "vector" in include

        def ask(more: Compiled, published: _Published) -> Flow[_Seen[Rows]]:
            rows: list[Row] = []
            hits: list[Hit] = []
            after = begin
            while True:
                where = every([condition.rows, after, more])
                if where is NO_ROWS:
                    return _Seen(rows, Rows([]))

                def look(more: Compiled, many: int, where: Compiled = where) -> Request[Sequence[Any]]:
                    return compiled.listing(partition, every([where, more]), many, names, vectors=vectors, ordered=True)

                limit = min(size - len(hits), self.config.page) + 1  # one more shows whether others follow
                objects = yield from look(ALL_ROWS, limit)
                some = self._decode.rows(objects, "", condition.fields)
                last = some[-1].hit.tag if some else None
                some = yield from self._matching(condition, some, look)
                rows.extend(some)
                hits.extend(row.hit for row in some if _visible(row, published))
                if len(objects) < limit or len(hits) > size or last is None:
                    hits = _in_order(hits)
                    return _Seen(rows, Rows(hits[:size], more=len(hits) > size))
                after = compiled.after(seek_key(last.document, last.generation, last.chunk))

        page = yield from self._steady(partition, ask)
        return page._replace(hits=_plain(page.hits, include))

    def _all(
        self, partition: str, where: Compiled, properties: tuple[str, ...], *, vectors: bool = False
    ) -> Flow[list[Any]]:
        """Return all objects that pass *where*, page by page in key order."""
        compiled, limit = self._compile, self.config.page
        objects: list[Any] = []
        after: Compiled = ALL_ROWS
        seek = self.config.properties.seek
        names = properties if seek in properties else (*properties, seek)
        while True:
            narrowed = every([where, after])
            if narrowed is NO_ROWS:
                return objects
            page = yield from compiled.listing(partition, narrowed, limit, names, vectors=vectors, ordered=True)
            objects.extend(page)
            if len(page) < limit:
                return objects
            after = compiled.after(self._decode.seek(page[-1]))

    # Tenants that are not served

    def _reading(self, partition: str, make: Callable[[], Flow[R]], empty: R) -> Flow[R]:
        """Read, or delete; of a tenant that is missing or not active, *empty*, so that the two read alike.

        What fails after something was deleted is raised (see `confined`): *empty* would say that nothing was.
        """
        try:
            return (yield from make())
        except StoreError as error:
            refused = error
        if refused.sent != "no":
            raise refused
        if refused.code == "tenant_not_served":
            return empty
        if refused.code not in _DOUBTFUL:
            raise refused
        state = yield from self._state(partition, refused)
        if refused.code == NOT_PROVISIONED.code:
            raise _behind(refused)
        if state == "active":
            # Made or activated by another client between the two; whatever else was refused is refused again.
            return (yield from make())
        return empty

    def _deleting(self, partition: str, make: Callable[[], Flow[int]]) -> Flow[int]:
        return (yield from self._reading(partition, lambda: confined(make(), partition), 0))

    def _state(self, partition: str, refused: StoreError) -> Flow[TenantState | None]:
        """Return whether the tenant is served, of which a request was *refused*.

        Over gRPC a key that is not valid is refused like anything else; REST says it by its status.
        """
        try:
            return (yield from self._compile.state(partition))
        except StoreError as error:
            failed = error
        if failed.code != "rejected":  # the server has gone away since, or gave no more rights
            failed.sent, failed.written = refused.sent, refused.written
            raise failed
        if not self.config.anonymous:
            yield from Rights(tenant_name(partition), partition)
        raise refused

    def _writing(self, partition: str, make: Callable[[], Flow[R]]) -> Flow[R]:
        """Write; a tenant's first write creates it where config lets it, and nothing else does.

        Every write reads first, so a tenant that is not there is noticed before anything is written. Several first
        writes may meet: the tenant that one of them was refused for is there when its state is asked for.
        """
        try:
            # It says "unknown" of what fails after something was written, which is not written again: another
            # client may have written since.
            return (yield from confined(make(), partition))
        except StoreError as error:
            refused = error
        if refused.code not in _DOUBTFUL:
            raise refused
        state = yield from self._state(partition, refused)
        if refused.code == NOT_PROVISIONED.code:
            raise _behind(refused)
        if refused.sent != "no":
            raise refused if state == "active" else not_served(refused.sent)
        if state != "active":
            if state is not None or not self.config.creates:
                raise not_served(refused.sent)
            yield from self._compile.create(partition)
        return (yield from make())

    # Versions of documents

    def _steady(self, partition: str, ask: _Ask[R]) -> Flow[R]:
        """Ask until every document in the reply is of its published version, and whole.

        Where a replacement left marks in the reply, it is asked again with the published generation of each such
        document alone, and that generation has to be the published one still when the reply is there: it only ever
        grows, and what it was before and after the reply it was in between. That each row is of it is looked at here
        too: "of another document" is a negation.
        """
        published: dict[str, Number | None] = {}
        for _ in range(_ROUNDS):
            answer = yield from ask(self._compile.only(published), published)
            if self._governed:
                return answer.value
            marks_by_document = _by_document(row.version for row in answer.rows)
            loud = [name for name, marks in marks_by_document.items() if not _is_settled(marks)]
            if not loud and not published:
                return answer.value
            now = yield from self._published(partition, {*loud, *published})
            if now == published:
                return answer.value
            published = now
        raise _too_many_conflicts()

    def _published(self, partition: str, documents: Iterable[str]) -> Flow[dict[str, Number | None]]:
        """Return the published version of each of *documents*; None: it has none."""
        names = sorted(documents)
        objects = yield from self._all(partition, self._compile.documents(names), self._compile.places)
        marks_by_document = _by_document(map(self._decode.version, objects))
        return (yield from self._resolve(partition, {name: marks_by_document.get(name, {}) for name in names}))

    def _resolve(self, partition: str, found: Mapping[str, _Marks]) -> Flow[dict[str, Number | None]]:
        """Find out which version of each document is published: the highest that is not undecided."""
        leads = {_read(mark)[1] for marks in found.values() for mark in marks.values() if mark}
        decided: set[str] = set()
        if leads:
            objects = yield from self._all(partition, self._compile.ids(leads), self._compile.places)
            decided = {one.id for one in map(self._decode.version, objects) if one.committed}
        return {document: _highest(marks, decided) for document, marks in found.items()}

    def _document(self, partition: str, document: str) -> Flow[tuple[list[Version], Number | None]]:
        """Look at every object of one document, of all its versions; and which of those is published."""
        objects = yield from self._all(partition, self._compile.documents([document]), self._compile.places)
        versions = [self._decode.version(one) for one in objects]
        resolved = yield from self._resolve(partition, {document: _by_document(versions).get(document, {})})
        return versions, resolved[document]

    def _numbers(self, partition: str, documents: Sequence[str]) -> Flow[dict[str, Number]]:
        """Return the published version of each document that was ever replaced; of all others it is the first.

        Decided replacements are ended first, since a write over the deciding object would undo the decision.
        """
        compiled = self._compile
        objects = yield from self._all(
            partition, every([compiled.documents(documents), compiled.replaced()]), compiled.places
        )
        marks_by_document = _by_document(map(self._decode.version, objects))
        loud = [name for name, marks in marks_by_document.items() if not _is_settled(marks)]
        numbers: dict[str, Number | None] = {name: max(marks) for name, marks in marks_by_document.items()}
        if loud:
            yield from self._finish(partition, loud)
            numbers.update((yield from self._published(partition, loud)))
        return {name: number for name, number in numbers.items() if number is not None}

    def _finish(self, partition: str, documents: Iterable[str]) -> Flow[None]:
        """End the decided replacements of *documents*, as one that was cut off would have; readers see no change.

        Marks of another replacement, which has begun since, stay.
        """
        compiled = self._compile
        for document in sorted(documents):
            versions, published = yield from self._document(partition, document)
            whole = [one for one in versions if one.number == published]
            leads = [one for one in whole if one.committed]
            if published is None or not leads:
                continue
            yield from self._drop(partition, compiled.before(document, published))
            own = [one for one in whole if one.pending and _read(one.pending)[0] == published]
            yield from self._each([compiled.unmark(partition, one.id) for one in own if not one.committed])
            yield from self._each([compiled.unmark(partition, one.id) for one in own if one.committed])

    # Writes

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all in one request. Existing chunks outside of the scope are looked for first."""
        check_tagged(operation.records, operation.partition)
        if not operation.records:
            return 0
        self._compile.check_size(operation.records)
        return (yield from self._writing(operation.partition, lambda: self._upsert(operation)))

    def _upsert(self, operation: Upsert) -> Flow[int]:
        """Write into the published version of each document, or the next one if it is replaced in the meantime."""
        compiled, partition = self._compile, operation.partition
        documents = sorted({record.tag.document for record in operation.records})
        if self._governed:  # it reads first as well: a tenant that is missing is noticed
            yield from compiled.listing(partition, compiled.documents(documents), 1, compiled.places)
            yield from compiled.put(partition, [(record, NO_VERSION) for record in operation.records])
            return len(operation.records)
        numbers = yield from self._numbers(partition, documents)
        scope = compiled.condition(operation.scope)
        records = list(operation.records)
        for _ in range(_ROUNDS):
            placed = [_placed(one, numbers.get(one.tag.document, FIRST), operation) for one in records]
            ids = compiled.ids(id_of(record.tag, version) for record, version in placed)
            if (yield from self._outside(partition, scope, ids)):
                raise _denied("upsert")
            yield from compiled.put(partition, placed)
            now = yield from self._numbers(partition, documents)
            moved = {name for name in documents if now.get(name, FIRST) != numbers.get(name, FIRST)}
            if not moved or operation.verbatim:
                return len(operation.records)
            leftovers = compiled.ids(
                id_of(record.tag, version) for record, version in placed if record.tag.document in moved
            )
            yield from self._drop(partition, leftovers)
            records = [record for record in records if record.tag.document in moved]
            numbers = now
        raise _too_many_conflicts("unknown")

    def _outside(self, partition: str, scope: Condition, base: Compiled) -> Flow[bool]:
        """Return whether an object that passes *base* does not match *scope*: each is read and compared."""
        test = scope.test
        if test is None or base is NO_ROWS:
            return False
        objects = yield from self._all(partition, base, self._properties(scope, frozenset()))
        return not all(test(row.hit.tag, row.hit.metadata or {}) for row in self._decode.rows(objects))

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new generation of one document; readers see the old one or the new one.

        First every object of the old version says that a replacement is pending, and which object decides it; then
        the new version is written, which says so too. The deciding object is committed by a single write, the old
        version goes, and the marks go. A reader who meets a mark looks at the deciding object, so at no moment two
        versions are visible, or half of one, also where this was cut off in the middle.

        Replacements that meet write different objects, and versions have one order: the highest that is committed is
        the document, and each removes what is below it.
        """
        check_tagged(operation.records, operation.partition)
        self._compile.check_size(operation.records)
        if not operation.records:
            return (yield from self._deleting(operation.partition, lambda: self._clear(operation)))
        return (yield from self._writing(operation.partition, lambda: self._replace(operation)))

    def _clear(self, operation: Replace) -> Flow[int]:
        compiled, partition = self._compile, operation.partition
        name, scope = compiled.documents([operation.document]), compiled.condition(operation.scope)
        if (yield from self._outside(partition, scope, name)):
            raise _denied("replace")
        if scope.test is not None:  # what is added in the meantime may be outside of it
            if every([scope.rows, name]) is not NO_ROWS:
                yield from (self._delete if scope.fixed else self._delete_compared)(partition, scope, name)
        elif (yield from compiled.tally(partition, name)):  # read first: a tenant that is not there is noticed here
            yield from self._drop(partition, name)
        return 0

    def _replace(self, operation: Replace) -> Flow[int]:
        compiled, partition, document = self._compile, operation.partition, operation.document
        name = compiled.documents([document])
        scope = compiled.condition(operation.scope)
        if (yield from self._outside(partition, scope, name)):
            raise _denied("replace")
        objects, _ = yield from self._document(partition, document)
        version = version_of(operation.records)
        mine = (max((one.number[0] for one in objects), default=-1) + 1, version)
        records = at_generation(operation.records, mine[0])
        new = [id_of(record.tag, version) for record in records]
        mark = f"{mine[0]}:{version}:{new[0]}"
        marked = {one.id for one in objects}
        yield from self._each([compiled.mark(partition, one, mark) for one in sorted(marked)])
        yield from compiled.put(partition, [(record, version) for record in records], mark)
        # What another replacement has put there in the meantime is older or newer than this one.
        objects, published = yield from self._document(partition, document)
        late = sorted(one.id for one in objects if one.number < mine and one.id not in marked)
        yield from self._each([compiled.mark(partition, one, mark) for one in late])
        superseded = published is not None and published > mine
        if not superseded and (yield from self._outside(partition, scope, compiled.before(document, mine))):
            yield from self._drop(partition, compiled.exactly(document, mine))
            raise added_outside(ADAPTER)
        if not superseded and not (yield from compiled.commit(partition, new[0])):
            # The deciding object is gone: a newer replacement took it away, or a delete of that chunk did.
            _, published = yield from self._document(partition, document)
            superseded = published is not None and published > mine
            if not superseded:
                yield from self._drop(partition, compiled.exactly(document, mine))
                raise _too_many_conflicts("unknown")
        if not superseded:
            yield from self._drop(partition, compiled.before(document, mine))
            yield from self._each([compiled.unmark(partition, one) for one in new[1:]])
            yield from compiled.unmark(partition, new[0])
            objects, published = yield from self._document(partition, document)
            superseded = published is not None and published > mine
        if superseded:
            yield from self._drop(partition, compiled.exactly(document, mine))
        return len(records)

    def _each(self, merges: Sequence[Any]) -> Flow[None]:
        """Apply *merges*, some of them concurrently; one whose object was deleted in the meantime does nothing."""
        for start in range(0, len(merges), _CONCURRENT):
            yield from together(*merges[start : start + _CONCURRENT])

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete by the filter where it cannot change of a row, else what was compared and is still as it was."""
        predicates = (operation.scope,) if operation.where is None else (operation.scope, operation.where)
        condition, base = self._compile.condition(*predicates), self._compile.selected(operation)
        if every([condition.rows, base]) is NO_ROWS:
            return 0
        one = self._delete if condition.fixed else self._delete_compared
        return (yield from self._deleting(operation.partition, lambda: one(operation.partition, condition, base)))

    def _delete(self, partition: str, condition: Condition, base: Compiled) -> Flow[int]:
        """Count and delete; a decided replacement is ended first, since its deciding object may be among them."""
        where = every([condition.rows, base])
        if self._governed:
            return (yield from self._drop(partition, self._compile.whole() if where is ALL_ROWS else where))
        compiled, pending = self._compile, every([where, self._compile.marked()])
        number, marked = yield from together(compiled.tally(partition, where), compiled.tally(partition, pending))
        if marked:
            objects = yield from self._all(partition, pending, compiled.places)
            yield from self._finish(partition, {self._decode.version(one).document for one in objects})
            number = len((yield from self._listed(partition, condition, base)))
        yield from self._drop(partition, self._compile.whole() if where is ALL_ROWS else where)
        return number

    def _delete_compared(self, partition: str, condition: Condition, base: Compiled) -> Flow[int]:
        """Compare each row, and delete those that match and are still as they were when they were compared.

        What was rewritten in the meantime is compared again: it may have left the scope.
        """
        compiled, gone = self._compile, 0
        rows = yield from self._rows(partition, condition, base)
        pending = {row.version.document for row in rows if row.version.pending}
        if pending:
            yield from self._finish(partition, pending)
            rows = yield from self._rows(partition, condition, base)
        marks_by_document = _by_document(row.version for row in rows)
        loud = [name for name, marks in marks_by_document.items() if not _is_settled(marks)]
        published: _Published = (yield from self._published(partition, loud)) if loud else {}
        for _ in range(_ROUNDS):
            remaining_ids: list[str] = []
            for start in range(0, len(rows), _DROPPED):
                some = {row.version.id: row for row in rows[start : start + _DROPPED]}
                where = compiled.as_seen((id_, row.hit.tag.time) for id_, row in some.items())
                result = yield from compiled.drop(partition, where)
                if result.failed:
                    raise _incomplete(result.failed)
                there: set[str] = set()
                if result.successful < len(some):
                    objects = yield from self._all(partition, compiled.ids(some), compiled.places)
                    there = {self._decode.version(one).id for one in objects}
                gone += sum(_visible(row, published) for id_, row in some.items() if id_ not in there)
                remaining_ids.extend(there)
            if not remaining_ids:
                return gone
            rows = yield from self._rows(partition, condition, every([base, compiled.ids(remaining_ids)]))
            if not rows:
                return gone
        raise _too_many_conflicts("unknown")

    def _drop(self, partition: str, where: Compiled) -> Flow[int]:
        """Delete until nothing is left: the server deletes a limited, unknown number of objects per call."""
        gone = 0
        while where is not NO_ROWS:
            result = yield from self._compile.drop(partition, where)
            gone += result.successful
            if result.failed:
                raise _incomplete(result.failed)
            if not result.matches:
                break
        return gone

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Write the labels of documents into their objects of a lower rev, as read before: a merge has no condition.

        The core lets one process at a time do so. A merge creates no object.
        """
        return (yield from self._reading(operation.partition, lambda: self._relabel(operation), 0))

    def _relabel(self, operation: Relabel) -> Flow[int]:
        compiled, partition, changed = self._compile, operation.partition, 0
        changes = {(one.document, one.generation): one for one in operation.changes}
        objects = yield from self._all(partition, compiled.generation(changes), compiled.properties(frozenset()))
        merges: list[Merge] = []
        for row in self._decode.rows(objects):
            change = changes.get((row.hit.document, row.hit.tag.generation))
            if change is not None and row.hit.tag.rev < change.rev:
                merges.append(compiled.label(partition, row.version.id, change))
        for start in range(0, len(merges), _CONCURRENT):
            changed += sum((yield from together(*merges[start : start + _CONCURRENT])))
        return changed

    def settled(self, partition: str) -> Flow[Settled]:
        """Leave one version of each document, the one that readers see, without marks; for `provision` only.

        A registry, which takes over then, knows a version by its generation alone and reads no marks.
        """
        compiled, removed, unmarked = self._compile, 0, 0
        objects = yield from self._all(partition, ALL_ROWS, compiled.places)
        for document, marks in sorted(_by_document(map(self._decode.version, objects)).items()):
            if _is_settled(marks):
                continue
            yield from self._finish(partition, [document])
            versions, published = yield from self._document(partition, document)
            for number in sorted({one.number for one in versions if one.number != published}):
                removed += yield from self._drop(partition, compiled.exactly(document, number))
            rest = [one.id for one in versions if one.number == published and one.pending]
            yield from self._each([compiled.unmark(partition, id_) for id_ in rest])
            unmarked += len(rest)
        return Settled(removed, unmarked)

    # What touches no rows, and what touches all

    def posture(self) -> Flow[Posture]:
        """Read the collection's configuration, and what the keys may do."""
        return (yield from postures.look(self.config, self._fields, self._learn))

    def _learn(self, replicas: int) -> None:
        """Store the real number of replicas: the server's default may be more than one."""
        self._replicas = max(replicas, self.config.replication_factor or 1)

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Search all tenants, one after the other: a request of Weaviate cannot reach two of them."""
        if self.config.tenant_keys is not None:
            raise RefusedError("With per-tenant keys, no key of this process reaches all tenants.")
        if not isinstance(query, VectorQuery):
            raise UnsupportedPredicateError("Only vector queries can search all tenants.", field="query")
        states = yield from Tenants()
        hits: list[Hit] = []
        for name, state in states.items():
            if state == "active":
                request = self._compile.near_of(name, query.vector, k)
                hits.extend(self._decode.near((yield from request)))
        return Found(sorted(hits, key=lambda hit: -hit.score)[:k])


def _end(leg: _Leg, limit: int) -> int | None:
    """Return the number of hits of a ranking for *limit* that came to an end before, else None."""
    return len(leg.hits) if leg.whole and len(leg.hits) < limit else None


def _too_many_conflicts(sent: Literal["no", "unknown"] = "no") -> StoreError:
    text = "A document was replaced repeatedly in the meantime; try again."
    return StoreError(text, code="replacing", adapter=ADAPTER, sent=sent, retryable=True)


def _incomplete(failed: int) -> StoreError:
    text = f"Weaviate could not delete {failed} chunks; delete them again."
    return StoreError(text, code="incomplete", adapter=ADAPTER)


def _unsettled() -> StoreError:
    return StoreError(
        "The server repeatedly returned rows that do not match the filter; none of them was used. If the rows are just "
        "being written, try again; otherwise the server's indexes differ from its objects: run `vectoracl check`.",
        code="unsettled",
        adapter=ADAPTER,
        sent="no",
        retryable=True,
    )


def _same(one: Hit, other: Hit) -> bool:
    """Return whether two readings of an object are of one writing of it."""
    return (one.tag, one.metadata) == (other.tag, other.metadata)


def _visible(row: Row, published: _Published) -> bool:
    """Return whether *row* is of the published version of its document, if that is one of these."""
    document = row.version.document
    return document not in published or row.version.number == published[document]


def _in_order(hits: Iterable[Hit]) -> list[Hit]:
    return sorted(hits, key=lambda hit: (hit.document, hit.tag.generation, hit.id))


def _plain(hits: list[Hit], include: Include) -> list[Hit]:
    """Return *hits* without the metadata that was read for a comparison, unless *include* names it."""
    return hits if "metadata" in include else [hit._replace(metadata=None) for hit in hits]


def _denied(action: str) -> DeniedError:
    return DeniedError("The write touches a chunk outside of what this handle may write.", action=action)


def _placed(record: Record, number: Number, operation: Upsert) -> tuple[Record, str]:
    """Return *record* in the version *number* of its document; a copy keeps its own generation."""
    if operation.verbatim:
        return record, number[1] if number[0] == record.tag.generation else NO_VERSION
    return record._replace(tag=record.tag._replace(generation=number[0])), number[1]


def _by_document(versions: Iterable[Version]) -> dict[str, _Marks]:
    marks_by_document: dict[str, _Marks] = {}
    for one in versions:
        marks = marks_by_document.setdefault(one.document, {})
        marks[one.number] = marks.get(one.number) or one.pending
    return marks_by_document


def _read(mark: str) -> tuple[Number, str]:
    """Return what *mark* announces: a version, and the id of the object that decides it."""
    generation, version, lead = mark.split(":", 2)
    return (int(generation), version), lead


def _highest(marks: _Marks, decided: set[str]) -> Number | None:
    """Return the published version: the highest that is not announced, or is announced and decided."""
    announced: dict[Number, bool] = {}
    for mark in marks.values():
        if mark:
            number, lead = _read(mark)
            announced[number] = announced.get(number, False) or lead in decided
    candidates = [one for one in marks if announced.get(one, True)]
    return max([*candidates, *(one for one, done in announced.items() if done)], default=None)
