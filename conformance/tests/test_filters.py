"""Every node of a filter is tried where it is declared, and refused where it is not."""

import pytest

from vectoracl.adapter_api.operations import OPERATIONS
from vectoracl.filters import predicate
from vectoracl.filters.predicate import NODES, Always
from vectoracl_conformance.checks.read import filters, nodes_in
from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.harnesses.memory import MemoryHarness
from vectoracl_conformance.mutants.generated_calls import altered
from vectoracl_conformance.running.run_checks import Options, run_checks, run_mutant
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper

STRANGE = """
import vectoracl.filters.predicate as nodes

class Strange(nodes.Predicate):
    '''A node of which this library and its kit know nothing.'''

Strange.__module__ = nodes.__name__
nodes.Strange = Strange
"""


def declaring(change):
    """Return an adapter that declares something else: *change* of its capabilities `can`."""
    body = f"""
    @property
    def capabilities(self):
        can = self._inner.capabilities
        return replace(can, {change})
    """
    return Mutant("altered", "declares something else", "R5", source=STRANGE + altered(body))


def test_every_node_has_a_filter():
    assert frozenset().union(*(nodes_in(where) for _, where in filters())) == frozenset(NODES)


def test_a_node_that_no_filter_tries_does_not_pass(monkeypatch):
    monkeypatch.setattr(predicate, "Strange", None, raising=False)  # so that it is gone afterwards
    exec(STRANGE, {})
    options = Options(seed=5, decoys=600, only=frozenset({"R5"}))
    kill = run_mutant(MemoryHarness(), declaring("predicates=can.predicates | {Strange}"), options)
    assert kill.right
    assert "Strange" in str(kill.reasons)


@pytest.mark.parametrize("node", sorted(set(NODES) - {Always}, key=str), ids=lambda one: one.__name__)
def test_a_node_that_is_not_declared_is_refused(node):
    options = Options(seed=5, decoys=600, only=frozenset({"R5", "X3"}), modes=("sync",))
    variant = declaring(f"predicates=can.predicates - {{nodes.{node.__name__}}}")
    for note in run_checks(MemoryHarness(), options, variant=variant):
        assert note.outcome == "passed", (note.id, note.reason)


@pytest.mark.parametrize("action", ["fetch", "count", "replace", "delete"])
def test_an_operation_that_is_not_declared_is_refused(action):
    options = Options(seed=5, decoys=600, only=frozenset({"X3"}), modes=("async",))
    variant = declaring(f"operations=can.operations - {{{action!r}}}")
    (note,) = run_checks(MemoryHarness(), options, variant=variant)
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
