"""Mutants that keep state from one call to the next, confuse tenants, or leak outside of results."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vectoracl.adapter_api.contract import GRADES, Adapter, Flow, Opened, flow_of
from vectoracl.adapter_api.operations import (
    Count,
    Delete,
    Fetch,
    Found,
    Operation,
    Replace,
    Rows,
    Scan,
    Search,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.harness import Mutant, Store
from vectoracl_conformance.wrappers.adapter_wrapper import (
    AdapterWrapper,
    CheatPort,
    Elsewhere,
    Nap,
    forged,
    wrapped,
)


def moved(operation: Any, tenant: str) -> Operation:
    """Return *operation* on another tenant's partition, its records with that tenant's tag."""
    if isinstance(operation, Upsert | Replace):
        records = tuple(
            one._replace(tag=one.tag._replace(tenant=tenant))
            if isinstance(one.tag, Tag) and one.tag.tenant == operation.partition
            else one
            for one in operation.records
        )
        return replace(operation, partition=tenant, records=records)
    return replace(operation, partition=tenant)  # type: ignore[no-any-return]


class Moving(AdapterWrapper):
    """Performs each operation on the partition that `where` names, and forges what comes back."""

    def where(self, operation: Operation) -> str:
        """Return the partition to use."""
        return operation.partition

    def perform(self, operation: Operation) -> Flow[Any]:
        """Move."""
        tenant = self.where(operation)
        if tenant == operation.partition:
            return (yield from self.around(operation))
        reply = yield from Elsewhere(operation.partition, moved(operation, tenant))
        if isinstance(reply, Found | Rows):
            return reply._replace(hits=forged(reply.hits, operation.partition))
        return reply

    def around(self, operation: Operation) -> Flow[Any]:
        """Perform the operation where it belongs."""
        return (yield from flow_of(self.inner, operation))


class Folded(Moving):
    """Tenants that differ in case are one."""

    def where(self, operation: Operation) -> str:
        """Fold."""
        return operation.partition.lower()


class Truncated(Moving):
    """Names are cut, as identifiers are in some stores."""

    def where(self, operation: Operation) -> str:
        """Cut."""
        return operation.partition[:48].strip()


class Creates(AdapterWrapper):
    """A read of an unknown tenant makes it."""

    def search(self, operation: Search) -> Flow[Found]:
        """Create on the way."""
        result = yield from self.inner.search(operation)
        if not result.hits and not any(row.tag.tenant == operation.partition for row in self.store.census()):
            assert hasattr(operation.query, "vector")
            tag = Tag(operation.partition, "init", "init")
            yield from self.inner.upsert(
                Upsert(operation.partition, ALWAYS, (Record(tag, "", operation.query.vector, {}),))
            )
        return result


class Ambient(Moving):
    """The tenant of the last search is used for fetches and scans."""

    def __init__(self, inner: Adapter, store: Store) -> None:
        super().__init__(inner, store)
        self._last: str | None = None

    def where(self, operation: Operation) -> str:
        """Remember, or use what is remembered."""
        if isinstance(operation, Search):
            self._last = operation.partition
        if isinstance(operation, Scan | Fetch) and self._last is not None:
            return self._last
        return operation.partition


class LeftByFault(Moving):
    """After an error the next call runs in the scope of the one that failed."""

    def __init__(self, inner: Adapter, store: Store) -> None:
        super().__init__(inner, store)
        self._left: str | None = None

    def where(self, operation: Operation) -> str:
        """Use what was left over, once."""
        part, self._left = self._left, None
        return operation.partition if part is None or isinstance(operation, Upsert | Delete | Replace) else part

    def around(self, operation: Operation) -> Flow[Any]:
        """Leave the scope behind on an error."""
        try:
            return (yield from flow_of(self.inner, operation))
        except Exception:
            self._left = operation.partition
            raise


class LeftByCancelling(LeftByFault):
    """After a cancellation the next call runs in the scope of the one that was cut."""

    def around(self, operation: Operation) -> Flow[Any]:
        """Leave the scope behind when the flow is closed."""
        try:
            if isinstance(operation, Search):
                yield from Nap(operation.partition)
            return (yield from flow_of(self.inner, operation))
        except GeneratorExit:
            self._left = operation.partition
            raise


class Races(Moving):
    """The tenant is kept on the adapter between two requests of a call."""

    def __init__(self, inner: Adapter, store: Store) -> None:
        super().__init__(inner, store)
        self._current = ""

    def perform(self, operation: Operation) -> Flow[Any]:
        """Keep the tenant, and read it a moment later."""
        if not isinstance(operation, Search | Fetch | Count):
            return (yield from flow_of(self.inner, operation))
        self._current = operation.partition
        yield from Nap(operation.partition, 0.002)
        return (yield from super().perform(operation))

    def where(self, operation: Operation) -> str:  # noqa: ARG002 - that is the fault
        """Use what the adapter holds by now."""
        return self._current


class Sticky(AdapterWrapper):
    """After many searches of one tenant the plan fits only that tenant."""

    def __init__(self, inner: Adapter, store: Store) -> None:
        super().__init__(inner, store)
        self._tenant, self._run = "", 0

    def search(self, operation: Search) -> Flow[Found]:
        """Cut others' results when the plan is stuck."""
        result = yield from self.inner.search(operation)
        if self._run >= 10 and operation.partition != self._tenant:
            return result._replace(hits=result.hits[: len(result.hits) // 2])
        self._run = self._run + 1 if operation.partition == self._tenant else 1
        self._tenant = operation.partition
        return result


class Talkative(Moving):
    """Errors quote the operation."""

    def around(self, operation: Operation) -> Flow[Any]:
        """Quote."""
        try:
            return (yield from flow_of(self.inner, operation))
        except Exception as error:
            raise StoreError(f"Failed: {operation!r}", code="store") from error


class _Quoting(CheatPort):
    """Passes on what the client says, which quotes the request."""

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Quote."""
        try:
            return super().execute(request, timeout)
        except Exception as error:  # noqa: BLE001 - whatever it is, to quote it is the fault
            raise StoreError(f"The store failed: {error} in {request!r}", code="store") from None


def _quoting(opened: Opened, store: Store) -> Opened:
    port = opened.port
    return replace(opened, port=lambda: _Quoting(port(), opened.adapter, store))


class Logs(AdapterWrapper):
    """The client's log quotes texts."""

    def search(self, operation: Search) -> Flow[Found]:
        """Log."""
        result = yield from self.inner.search(operation)
        logging.getLogger("storeclient.http").debug("reply: %s", [hit.text for hit in result.hits])
        return result


class Boasts(AdapterWrapper):
    """The posture is better than what is claimed."""

    def posture(self) -> Flow[Posture]:
        """Boast."""
        posture = yield from self.inner.posture()
        return replace(posture, grade=GRADES[-1])


class Blind(AdapterWrapper):
    """The posture is always what is claimed."""

    def posture(self) -> Flow[Posture]:
        """Look away."""
        yield from self.inner.posture()
        return Posture(self.capabilities.grade, ())


def _mutant(
    kind: Callable[[Adapter, Store], AdapterWrapper], name: str, breaks: str, expected: str, **more: Any
) -> Mutant:
    return Mutant(name, breaks, expected, wrapped(kind), **more)


SESSIONS = (
    _mutant(Folded, "tenants folded", "tenants that differ in case are one", "P2"),
    _mutant(Truncated, "tenants truncated", "tenants with the same beginning are one", "P2"),
    _mutant(Creates, "reading creates", "a search of an unknown tenant makes it", "P3"),
    _mutant(Ambient, "ambient tenant", "fetches and scans use the tenant of the last search", "P4"),
    _mutant(LeftByFault, "scope left after an error", "the next call runs in the failed one's scope", "S1"),
    _mutant(LeftByCancelling, "scope left after a cancellation", "the next call runs in the cut one's scope", "S2",
            modes=("async",)),
    _mutant(Races, "tenant kept on the adapter", "two calls side by side mix their tenants up", "S3"),
    _mutant(Sticky, "sticky plan", "after many searches of one tenant others get fewer rows", "S5"),
    _mutant(Talkative, "errors quote the operation", "a filter's value is in an error", "X1"),
    Mutant("the client's text passed on", "an error of the port quotes what the client says", "X1", _quoting),
    _mutant(Logs, "the client logs texts", "stored text is in a log", "X1"),
    _mutant(Boasts, "the posture boasts", "a better grade than the claimed one", "X2"),
    _mutant(Blind, "the posture looks away", "a misconfigured store is served", "X2", needs=frozenset({"weakenings"})),
)  # fmt: skip
