"""Reads whose statements assert the registry's versions themselves; see `adapter_api.versions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from vectoracl.adapter_api.contract import Flow, Request
from vectoracl.adapter_api.versions import Asserting, ExpectedVersion, VersionTable
from vectoracl.engine.drivers import close_flow
from vectoracl.registry.scopes import GovernedScope

T = TypeVar("T")


def assertable(scope: GovernedScope, partitions: tuple[str, ...]) -> bool:
    """Return whether reads of *partitions* assert all that *scope* rests on.

    Each of them sees the row of one tenant, whose partition it reads. A tenant without a row has nothing to assert, and
    a tenant whose partition is not read is not asserted.
    """
    versions = scope.versions
    return versions.keys() == set(partitions) and all(version > 0 for version in versions.values())


def expectations(scope: GovernedScope, table: VersionTable) -> Mapping[str, ExpectedVersion]:
    """Return what the reads of each partition have to assert."""
    return {
        tenant: ExpectedVersion(table, tenant, version, scope.valid_until) for tenant, version in scope.versions.items()
    }


def asserting(flow: Flow[T], adapter: Asserting, expected: Mapping[str, ExpectedVersion], missing: set[str]) -> Flow[T]:
    """Pass *flow* on, with the assertion of its partition in each read; take partitions that were read from *missing*.

    Raises: StoreError with the code `RIGHTS_CHANGED`, unless *flow* swallows it.
    """
    value: Any = None
    error: Exception | None = None

    def with_version(request: Request[Any]) -> Request[Any]:
        if request.port != "store" or request.partition is None:
            return request
        missing.discard(request.partition)
        return adapter.asserted(request, expected[request.partition])

    try:
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            value, error = None, None
            sent = tuple(map(with_version, step)) if isinstance(step, tuple) else with_version(step)
            try:
                value = yield sent
            except Exception as caught:  # noqa: BLE001 - handed to the flow, whose error it is
                error = caught
    finally:
        close_flow(flow)
