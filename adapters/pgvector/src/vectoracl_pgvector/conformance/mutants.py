"""Mutants that only PostgreSQL can have, for the conformance kit, each with the check or grade that has to fail.

Those that break the search itself also switch row-level security off and look away from the posture: with it on, a
statement without its own condition still returns nothing foreign, which is what it is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Count, Facets, Found, Search
from vectoracl.adapter_api.posture import Posture
from vectoracl.model.records import Facet
from vectoracl_conformance.harness import Mutant, Store
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, wrapped
from vectoracl_pgvector.requests import Statement, Transaction

_SEARCH = re.compile(
    r'(SELECT .* FROM "vectoracl"\."chunks") WHERE "tenant_id" = %s::text AND ctid = ANY\(ARRAY\('
    r'SELECT ctid FROM "vectoracl"\."chunks" WHERE "tenant_id" = %s::text ORDER BY (.*) LIMIT %s\)\)\Z'
)
_ALL = 100_000
_ITERATIVE = "hnsw.iterative_scan"
_TENANT = 1  # the index of the tenant column in a row


def _run(*statements: str) -> Callable[[Store], None]:
    def work(store: Store) -> None:
        with store.superuser() as connection:  # type: ignore[attr-defined]  # PgStore
            for statement in statements:
                connection.execute(statement)

    return work


_OPEN = _run(
    "ALTER TABLE vectoracl.chunks DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE vectoracl.chunks_default DISABLE ROW LEVEL SECURITY",
)


class Rewritten(AdapterWrapper):
    """Sends a search's statement in another form; the posture hides it."""

    def __init__(self, inner: Any, store: Store) -> None:
        super().__init__(inner, store)
        inner.rank_by_bits(possible=self.bits)

    bits = False
    """Whether searches by vector are ranked by bits; without them the statement has the shorter form."""

    def posture(self) -> Flow[Posture]:
        """Hide the change."""
        yield from self.inner.posture()
        return Posture(self.capabilities.grade, ())

    def search(self, operation: Search) -> Flow[Found]:
        """Rewrite the correct adapter's request, and its reply."""
        flow = self.inner.search(operation)
        request: Any = next(flow)
        while True:
            reply = yield self.rewritten(request)
            try:
                request = flow.send(self.reply(operation, reply))
            except StopIteration as stop:
                found: Found = stop.value
                return found

    def rewritten(self, request: Transaction) -> Transaction:
        """Return the request with its first statement in the other form."""
        (statement,) = request.statements
        match = _SEARCH.match(statement.sql)
        if match is None or not isinstance(statement.params, tuple):
            return request
        vector, tenant, _, *ordered, k = statement.params
        head, order = match.groups()
        other = self.statement(head, order, vector, tenant, tuple(ordered), k)
        return replace(request, statements=(replace(statement, sql=other.sql, params=other.params),))

    def statement(self, head: str, order: str, vector: Any, tenant: Any, ordered: tuple[Any, ...], k: Any) -> Statement:
        """Return the other form."""
        raise NotImplementedError

    def reply(self, operation: Search, reply: Any) -> Any:  # noqa: ARG002 - the form of an override
        """Return the reply that the correct adapter would have received."""
        return reply


class FilterAfterLimit(Rewritten):
    """Ranks all tenants' rows in the server and filters after the LIMIT: no other tenant's row is returned."""

    def statement(self, head: str, order: str, vector: Any, tenant: Any, ordered: tuple[Any, ...], k: Any) -> Statement:
        """Put the condition around the ranking."""
        sql = f"SELECT * FROM ({head} ORDER BY {order} LIMIT {_ALL}) AS everyone "
        sql += 'WHERE "tenant_id" = %s::text ORDER BY distance LIMIT %s'
        return Statement(sql, (vector, *ordered, tenant, k))


class FilterInClient(Rewritten):
    """Fetches all tenants' rows and filters in the client: the results are correct."""

    def statement(
        self,
        head: str,
        order: str,
        vector: Any,
        tenant: Any,  # noqa: ARG002 - leaving it out is the fault
        ordered: tuple[Any, ...],
        k: Any,  # noqa: ARG002 - the form of an override
    ) -> Statement:
        """Omit the condition."""
        return Statement(f"{head} ORDER BY {order} LIMIT {_ALL}", (vector, *ordered))

    def reply(self, operation: Search, reply: Any) -> Any:
        """Filter."""
        (rows,) = reply
        return ([row for row in rows if row[_TENANT] == operation.partition][: operation.k],)


class OverFetch(Rewritten):
    """Fetches one additional row of another tenant and drops it: the results are correct."""

    def statement(self, head: str, order: str, vector: Any, tenant: Any, ordered: tuple[Any, ...], k: Any) -> Statement:
        """Add the nearest row of another tenant to the tenant's own rows."""
        other = f'SELECT ctid FROM "vectoracl"."chunks" WHERE "tenant_id" <> %s::text ORDER BY {order} LIMIT 1'
        sql = f'{head} WHERE "tenant_id" = %s::text OR ctid = ({other}) ORDER BY {order} LIMIT %s'
        return Statement(sql, (vector, tenant, tenant, *ordered, *ordered, k + 1))

    def reply(self, operation: Search, reply: Any) -> Any:
        """Filter."""
        (rows,) = reply
        return ([row for row in rows if row[_TENANT] == operation.partition][: operation.k],)


class CountByPolicy(AdapterWrapper):
    """One statement of many, the count, has no tenant condition: only row-level security makes it correct."""

    def count(self, operation: Count) -> Flow[int]:
        """Omit the condition from the correct adapter's request."""
        flow = self.inner.count(operation)
        request: Any = next(flow)
        while True:
            (statement,) = request.statements
            sql = statement.sql.replace('WHERE "tenant_id" = %s::text AND', "WHERE")
            params = statement.params if sql == statement.sql else statement.params[1:]
            reply = yield replace(request, statements=(replace(statement, sql=sql, params=params),))
            try:
                request = flow.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]


class FacetsByPolicy(AdapterWrapper):
    """The count by value has no tenant condition: only row-level security makes it correct."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Omit the condition from the correct adapter's request."""
        flow = self.perform(operation)
        request: Any = next(flow)
        while True:
            (statement,) = request.statements
            reply = yield replace(request, statements=(_without(statement),))
            try:
                request = flow.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]


class FacetsOfEveryone(FacetsByPolicy, Rewritten):
    """The same with row-level security off; the posture hides it."""

    def rewritten(self, request: Transaction) -> Transaction:
        """Leave searches unchanged."""
        return request


_CONDITION = '"tenant_id" = %s::text'


def _without(statement: Statement, *which: int) -> Statement:
    """Remove the tenant's condition at the given occurrences, counted from 0, or at all if none is given."""
    parts = statement.sql.split(_CONDITION)
    assert isinstance(statement.params, tuple)
    sql, params = parts[0], list(statement.params)
    for number, part in enumerate(parts[1:]):
        if which and number not in which:
            sql += _CONDITION + part
            continue
        del params[sql.count("%s")]
        sql += "TRUE" + part
    return replace(statement, sql=sql, params=tuple(params))


class WordsUnscoped(Rewritten):
    """Searches words in all tenants' rows, in lexical and hybrid queries, and returns them as the tenant's."""

    def rewritten(self, request: Transaction) -> Transaction:
        """Omit every condition from queries with words."""
        (statement,) = request.statements
        if not statement.sql.startswith("WITH asked"):
            return request
        return replace(request, statements=(_without(statement),))

    def reply(self, operation: Search, reply: Any) -> Any:
        """Replace the tenant of each row."""
        (rows,) = reply
        return ([(*row[:_TENANT], operation.partition, *row[_TENANT + 1 :]) for row in rows],)


class LegByPolicy(Rewritten):
    """The lexical leg of a hybrid query has no tenant condition: only row-level security makes it correct."""

    def rewritten(self, request: Transaction) -> Transaction:
        """Omit the condition from the second leg."""
        (statement,) = request.statements
        if "fused AS (" not in statement.sql:
            return request
        return replace(request, statements=(_without(statement, 1),))


class BitsRewritten(Rewritten):
    """The statement that ranks by bits lacks the tenant's condition at one occurrence."""

    bits = True
    occurrence = 0
    """Counted from 0: of the visible rows, of the candidates, of the rows that are returned, of the exact ranking."""

    def rewritten(self, request: Transaction) -> Transaction:
        """Omit the condition from the statement that the server chooses by."""
        (statement,) = request.statements
        if not statement.sql.startswith("WITH part AS"):
            return request
        return replace(request, statements=(_without(statement, self.occurrence),))


class CountsEveryone(BitsRewritten):
    """The rows of all tenants decide how one tenant's are ranked: only row-level security makes it correct."""


class BitsOfEveryone(BitsRewritten):
    """The candidates are the nearest of all tenants: only row-level security makes it correct."""

    occurrence = 1


class CandidatesBeforeTheFilter(Rewritten):
    """Takes candidates among all of the tenant's rows, and applies scope and filter after the LIMIT."""

    bits = True
    _near = re.compile(
        r'( FROM "vectoracl"\."chunks" WHERE )("tenant_id" = %s::text)( AND (?:(?! FROM ).)*)?'
        r"( ORDER BY near_distance LIMIT %s\))"
    )

    def rewritten(self, request: Transaction) -> Transaction:
        """Omit scope and filter from the ranking by bits, which keeps as many candidates as there are hits."""
        (statement,) = request.statements
        match = self._near.search(statement.sql)
        if match is None or not isinstance(statement.params, tuple):
            return request
        start = statement.sql[: match.start(3)].count("%s") if match[3] else 0
        params = list(statement.params)
        if match[3]:
            del params[start : start + match[3].count("%s")]
        sql = statement.sql[: match.start()] + match[1] + match[2] + match[4] + statement.sql[match.end() :]
        params[sql[: sql.index("near_distance LIMIT %s")].count("%s")] = params[-1]
        return replace(request, statements=(replace(statement, sql=sql, params=tuple(params)),))


class PolicyAlone(Rewritten):
    """Relies on row-level security: the statement has no tenant condition."""

    def statement(
        self,
        head: str,
        order: str,
        vector: Any,
        tenant: Any,  # noqa: ARG002 - the form of an override
        ordered: tuple[Any, ...],
        k: Any,
    ) -> Statement:
        """Omit the condition."""
        return Statement(f"{head} ORDER BY {order} LIMIT %s", (vector, *ordered, k))


class TrustsThePlan(Rewritten):
    """Searches once, however many rows the plan's index gives: right where each plan is made for its own tenant."""

    def search(self, operation: Search) -> Flow[Found]:
        """Search once, without an iterative scan."""
        flow = self.inner.search(operation)
        request: Any = next(flow)
        reply = yield replace(request, settings=tuple(one for one in request.settings if one[0] != _ITERATIVE))
        while True:
            try:
                flow.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]


# Keeps one plan of each statement, for all tenants.
GENERIC_PLANS = ("plan_cache_mode", "force_generic_plan")


class LooksAway(AdapterWrapper):
    """Hides, in its own posture, the change that was made to the store, and reports everything else."""

    def posture(self) -> Flow[Posture]:
        """Omit findings that name the change."""
        report = yield from self.inner.posture()
        findings = tuple(one for one in report.findings if "kit_" not in f"{one.subject} {one.message} {one.fix}")
        grade = self.capabilities.grade if len(findings) < len(report.findings) else report.grade
        return replace(report, grade=grade, findings=findings)


class LooksAwayFromTheIndex(LooksAway):
    """The same where searches are not ranked by bits, which no index of vectors that tenants share could serve."""

    def __init__(self, inner: Any, store: Store) -> None:
        super().__init__(inner, store)
        inner.rank_by_bits(possible=False)


# Make the runtime role's plans use the index, as the planner would in a larger table.
_SHARED_INDEX = _run(
    "CREATE INDEX kit_shared ON vectoracl.chunks_default USING hnsw (embedding public.vector_cosine_ops)",
    "DO $$ BEGIN EXECUTE format('ALTER ROLE vectoracl_runtime IN DATABASE %I SET enable_sort = off', "
    "current_database()); END $$",
)
# An index that all tenants share, and costs at which it suits a tenant with many rows and misses those of a small one.
MISLEADING_INDEX = _run(
    "CREATE INDEX kit_shared ON vectoracl.chunks_default USING hnsw (embedding public.vector_cosine_ops)",
    "ANALYZE vectoracl.chunks_default",
    "DO $$ BEGIN EXECUTE format('ALTER ROLE vectoracl_runtime IN DATABASE %I SET cpu_operator_cost = 1', "
    "current_database()); END $$",
)
# Row-level security alone makes the results correct, but the policy's function reads every partition.
_READING_POLICY = _run(
    "CREATE FUNCTION vectoracl.kit_peek() RETURNS boolean LANGUAGE sql SECURITY DEFINER STABLE "
    "AS 'SELECT count(*) >= 0 FROM vectoracl.chunks'",
    'ALTER POLICY "vectoracl_select_permissive" ON vectoracl.chunks USING '
    "((SELECT vectoracl.kit_peek()) AND tenant_id = current_setting('vectoracl.tenant', true))",
)


_TABLE = "ALTER TABLE vectoracl.chunks"
_EVERYONE = (
    'ALTER POLICY "vectoracl_select_permissive" ON vectoracl.chunks USING (true)',
    'ALTER POLICY "vectoracl_select_restrictive" ON vectoracl.chunks USING (true)',
)
_ANYWHERE = (
    'ALTER POLICY "vectoracl_insert_permissive" ON vectoracl.chunks WITH CHECK (true)',
    'ALTER POLICY "vectoracl_insert_restrictive" ON vectoracl.chunks WITH CHECK (true)',
)


def _misconfigured(name: str, breaks: str, *statements: str) -> Mutant:
    return Mutant(name, breaks, "X2", store=_run(*statements))


MUTANTS = (
    _misconfigured("FORCE dropped", "the owner reads past row-level security", f"{_TABLE} NO FORCE ROW LEVEL SECURITY"),
    _misconfigured("policies off", "row-level security is off", f"{_TABLE} DISABLE ROW LEVEL SECURITY"),
    _misconfigured("WITH CHECK dropped", "anyone's tag can be inserted", *_ANYWHERE),
    _misconfigured("one open policy", "a policy lets everyone read", *_EVERYONE),
    _misconfigured("serves as the owner", "the runtime role owns the table", f"{_TABLE} OWNER TO vectoracl_runtime"),
    Mutant("policy alone", "the statement lacks the tenant's condition", "R3", wrapped(PolicyAlone)),
    Mutant("filter in the client", "everyone's rows are fetched, then filtered", "E2v", wrapped(FilterInClient), _OPEN),
    Mutant(
        "over-fetch", "a foreign row is fetched with the owned ones, then dropped", "E2c", wrapped(OverFetch), _OPEN
    ),
    Mutant("scope missing in one statement", "the count relies on the policies", "E2s", wrapped(CountByPolicy)),
    Mutant("facets by policy", "the count by value relies on the policies", "E2s", wrapped(FacetsByPolicy)),
    Mutant(
        "facets of everyone", "the count by value has no tenant and no policy", "R12", wrapped(FacetsOfEveryone), _OPEN
    ),
    Mutant("words of everyone", "the words' search has no tenant and no policy", "R13", wrapped(WordsUnscoped), _OPEN),
    Mutant("one leg by policy", "a leg of the fusion relies on the policies", "E2s", wrapped(LegByPolicy)),
    Mutant("bits by policy", "the ranking by bits relies on the policies", "E2s", wrapped(BitsOfEveryone)),
    Mutant("bits of everyone", "the ranking by bits has no tenant and no policy", "R3", wrapped(BitsOfEveryone), _OPEN),
    Mutant("everyone decides", "the rows of all tenants are counted", "E2s", wrapped(CountsEveryone)),
    Mutant("unscoped leg", "a leg of the fusion ranks everyone", "R3", wrapped(LegByPolicy), _OPEN),
    Mutant(
        "an index that tenants share",
        "the server ranks everyone's rows inside one HNSW index, uncounted by its functions",
        "E3",
        wrapped(LooksAwayFromTheIndex),
        _SHARED_INDEX,
    ),
    Mutant(
        "a policy that reads everyone",
        "the server reads every partition before it answers, and ranks none of it",
        "E3",
        wrapped(LooksAway),
        _READING_POLICY,
    ),
    Mutant(
        "a plan for everyone",
        "a prepared statement keeps one plan for all tenants",
        "S5",
        wrapped(TrustsThePlan),
        MISLEADING_INDEX,
        patches=(("vectoracl_pgvector.connection.session", "CUSTOM_PLANS", lambda _: GENERIC_PLANS),),
    ),
    Mutant("filter after LIMIT", "the server ranks everyone, then filters", "E3", wrapped(FilterAfterLimit), _OPEN),
)
