"""The operator that `acl.operator()` returns: each call is recorded before it acts, and its outcome afterwards."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from vectoracl.adapter_api.contract import Flow, Operator, Port, RowKeeper
from vectoracl.engine.drivers import run
from vectoracl.engine.operator_flows import recorded
from vectoracl.engine.pipeline import Pipeline, Store
from vectoracl.errors import RefusedError
from vectoracl.model.identifiers import check_tenant, stored_tenant

UNRECORDED = frozenset({"close"})
"""Methods that do not touch the store."""


UNDER_REGISTRY = frozenset({
    "plan", "provision", "mark", "settle", "tenants", "create", "activate", "deactivate", "offload", "close",
})  # fmt: skip
"""Methods that neither move, copy nor delete rows, so that a registry need not take part."""


Check = Callable[[str, bool], None]
"""Refuses a method by its name, or because its arguments import existing rows. Raises: RefusedError."""


def under_registry(operator: Operator) -> Check:
    """Return the check of the methods of *operator*, an adapter's own, where a registry governs its rows."""
    keeps = frozenset(operator.keeps_rows if isinstance(operator, RowKeeper) else ())
    return partial(_check_under_registry, keeps)


def _check_under_registry(keeps: frozenset[str], name: str, adopts: bool) -> None:  # noqa: FBT001 - it is a `Check`
    """Refuse a method that would change, copy or delete rows which a registry governs. Raises: RefusedError."""
    if name not in UNDER_REGISTRY | keeps or adopts:
        raise RefusedError(
            f"{'provision --adopt' if adopts else name} moves or deletes rows without asking the registry for holds, "
            "so it is not possible for a store under a registry.",
            field="registry",
        )


def check_imports(pipeline: Pipeline) -> None:
    """Refuse an import of existing rows where validators are configured. Raises: RefusedError."""
    if pipeline.validated:
        raise RefusedError(
            "The configuration has [ingest] validators, and rows that the store imports by itself do not pass through "
            "them. Write them through a handle, for example with load(); or leave out [ingest] validators for this "
            "import, if you trust the rows.",
            field="adopt",
        )


def check_import(pipeline: Pipeline, name: str, adopts: bool) -> None:  # noqa: FBT001 - with a pipeline it is a `Check`
    """Refuse a method that imports existing rows where validators are configured. Raises: RefusedError."""
    if adopts or name == "survey" or name.startswith("adopt"):
        check_imports(pipeline)


class RecordedOperator:
    """Forwards every public attribute of an adapter's operator; a callable one writes its record first.

    The attributes are not listed here, so that methods which an adapter or a protocol adds later are recorded too.
    """

    def __init__(self, raw: Operator, pipeline: Pipeline, store: Store, audit: Port, reason: str) -> None:
        self._raw = raw
        self._pipeline = pipeline
        self._store = store
        self._audit = audit
        self._reason = reason

    def __repr__(self) -> str:
        return f"<{type(self._raw).__name__} of {self._store.name!r}, recorded>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._of(name)

    def _of(self, name: str) -> Any:
        value = getattr(self._raw, name)
        return self._wrapped(name, value) if callable(value) and name not in UNRECORDED else value

    def _wrapped(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **given: Any) -> Any:
            arguments = inspect.signature(method).bind(*args, **given).arguments
            adopts = arguments.get("adopt") is not None
            if self._pipeline.registry is not None:
                under_registry(self._raw)(name, adopts)
            if name != "plan":
                check_import(self._pipeline, name, adopts)
            tenant, several = arguments.get("tenant"), arguments.get("tenants")
            if name == "remove" and tenant is not None:  # also an id that only an earlier version accepted
                stored_tenant(tenant, lambda: [one.tenant for one in self._of("tenants")()])
                partitions = [tenant]
            elif several is not None:
                partitions = [check_tenant(one) for one in several]
            else:
                partitions = ["*"] if tenant is None else [check_tenant(tenant)]

            def body(_: str) -> Flow[Any]:
                yield from ()  # an operator's method is not a request: it blocks, and runs here
                return method(*args, **given)

            flow = recorded(
                self._pipeline,
                self._store,
                name,
                self._reason,
                partitions,
                body,
                door="operator",
                size=lambda _: None,
            )
            return run(flow, {"audit": self._audit}, timeout=None)

        return call


class _Passed:
    """One public attribute of the operator behind a `RecordedOperator`; `isinstance` with a protocol needs it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: RecordedOperator | None, owner: type) -> Any:
        return self if instance is None else instance._of(self._name)  # noqa: SLF001 - one class in two parts


@functools.lru_cache(64)
def _kind(names: tuple[str, ...]) -> type[RecordedOperator]:
    """Return a class with the attributes *names*: runtime checks of protocols look at the class."""
    return type("RecordedOperator", (RecordedOperator,), {name: _Passed(name) for name in names})


def recorded_operator(raw: Operator, pipeline: Pipeline, store: Store, audit: Port, reason: str) -> Operator:
    """Return *raw* with a record and an outcome for each call of a public method.

    Each call raises StoreError with the code "audit", with nothing done, if the record cannot be written.
    """
    names = tuple(sorted(name for name in dir(raw) if not name.startswith("_")))
    return cast("Operator", _kind(names)(raw, pipeline, store, audit, reason))


class _Checked:
    """One public attribute of the operator behind `checked_operator`; see `_Passed`."""

    def __init__(self, name: str, check: Check) -> None:
        self._name = name
        self._check = check

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = getattr(instance._raw, self._name)  # noqa: SLF001 - one class in two parts
        if not callable(value):
            return value

        @functools.wraps(value)
        def call(*args: Any, **given: Any) -> Any:
            arguments = inspect.signature(value).bind(*args, **given).arguments
            self._check(self._name, arguments.get("adopt") is not None)
            return value(*args, **given)

        return call


def checked_operator(raw: Operator, check: Check) -> Operator:
    """Return *raw*, of which each method is called only if *check* does not refuse it; it writes no records."""
    names = [name for name in dir(raw) if not name.startswith("_")]
    kind = type("CheckedOperator", (), {"__slots__": ("_raw",), **{name: _Checked(name, check) for name in names}})
    made: Any = kind()
    made._raw = raw  # noqa: SLF001 - one class in two parts
    return cast("Operator", made)


def unrecorded(operator: Operator) -> Operator:
    """Return the adapter's own operator, for callers that write a more detailed record themselves."""
    return operator._raw if isinstance(operator, RecordedOperator) else operator  # noqa: SLF001 - two parts of one thing
