"""Every node of a filter is tried where it is declared, and refused where it is not."""

from dataclasses import replace

import pytest

from vectoracl.adapter_api.operations import OPERATIONS
from vectoracl.filters.predicate import NODES, Always, Predicate
from vectoracl_conformance.checks.read import filters, nodes_in
from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.harnesses.memory import MemoryHarness
from vectoracl_conformance.harnesses.unusual import OddHarness, adapted
from vectoracl_conformance.running.run_checks import Options, run_checks, run_mutant
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, wrapped


class Strange(Predicate):
    """A node of which this library and its kit know nothing."""


class Boasts(AdapterWrapper):
    @property
    def capabilities(self):
        return replace(self.inner.capabilities, predicates=self.inner.capabilities.predicates | {Strange})


def without(node):
    class Lacks(AdapterWrapper):
        @property
        def capabilities(self):
            return replace(self.inner.capabilities, predicates=self.inner.capabilities.predicates - {node})

    return Lacks


def test_every_node_has_a_filter():
    assert frozenset().union(*(nodes_in(where) for _, where in filters())) == frozenset(NODES)


def test_a_node_that_no_filter_tries_does_not_pass():
    options = Options(seed=5, decoys=600, only=frozenset({"R5"}))
    kill = run_mutant(MemoryHarness(), Mutant("boasts", "declares what nobody knows", "R5", wrapped(Boasts)), options)
    assert kill.right
    assert "Strange" in str(kill.reasons)


@pytest.mark.parametrize("node", sorted(set(NODES) - {Always}, key=str), ids=lambda one: one.__name__)
def test_a_node_that_is_not_declared_is_refused(node):
    options = Options(seed=5, decoys=600, only=frozenset({"R5", "X3"}), modes=("sync",))
    for note in run_checks(OddHarness(adapted(without(node))), options):
        assert note.outcome == "passed", (note.id, note.reason)


@pytest.mark.parametrize("action", ["fetch", "count", "replace", "delete"])
def test_an_operation_that_is_not_declared_is_refused(action):
    class Lacks(AdapterWrapper):
        @property
        def capabilities(self):
            return replace(self.inner.capabilities, operations=self.inner.capabilities.operations - {action})

    options = Options(seed=5, decoys=600, only=frozenset({"X3"}), modes=("async",))
    (note,) = run_checks(OddHarness(adapted(Lacks)), options)
    assert note.outcome == "passed", note.reason


def test_a_wrapper_forwards_every_operation():
    class Inner:
        def __getattr__(self, name):
            return lambda operation: (name, operation)

    wrapper = AdapterWrapper(Inner(), None)
    for kind, (method, _) in OPERATIONS.items():
        operation = object.__new__(kind)
        assert getattr(wrapper, method)(operation) == (method, operation)
    assert not hasattr(wrapper, "no_such_operation")
