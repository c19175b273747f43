"""Mutants of filters: each node of the algebra in turn is declared and not compiled, or not declared and answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vectoracl.adapter_api.contract import Adapter, Capabilities, Flow
from vectoracl.adapter_api.operations import Operation
from vectoracl.filters.predicate import NODES, Always, Predicate
from vectoracl_conformance.context.node_filters import without
from vectoracl_conformance.harness import Mutant, Store
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, wrapped


def _uncompiled(node: type[Predicate]) -> Callable[[Adapter, Store], AdapterWrapper]:
    class Uncompiled(AdapterWrapper):
        @property
        def capabilities(self) -> Capabilities:
            return replace(self.inner.capabilities, predicates=self.inner.capabilities.predicates | {node})

        def perform(self, operation: Operation) -> Flow[Any]:
            where = getattr(operation, "where", None)
            if where is None:
                return super().perform(operation)
            return super().perform(replace(operation, where=without(node, where)))  # type: ignore[arg-type]  # it has one

    return Uncompiled


def _undeclared(node: type[Predicate]) -> Callable[[Adapter, Store], AdapterWrapper]:
    class Undeclared(AdapterWrapper):
        @property
        def capabilities(self) -> Capabilities:
            return replace(self.inner.capabilities, predicates=self.inner.capabilities.predicates - {node})

    return Undeclared


_UNCHECKED = (("vectoracl.engine.arguments", "check_supported", lambda _: lambda _predicate, _capabilities: None),)

NODE_MUTANTS = (
    *(
        Mutant(
            f"{node.__name__} not compiled",
            f"the adapter declares {node.__name__} and leaves it out of a caller's filter",
            "R5",
            wrapped(_uncompiled(node)),
        )
        for node in NODES
    ),
    *(
        Mutant(
            f"{node.__name__} not declared",
            f"the adapter does not declare {node.__name__}, and the core lets it pass",
            "X3",
            wrapped(_undeclared(node)),
            patches=_UNCHECKED,
        )
        for node in NODES
        if node is not Always  # it means that there is no filter
    ),
)
