"""The process that draws the calls: what it draws is what is drawn here, and it ends with the run."""

import pickle
import re
from dataclasses import replace

import pytest

from vectoracl.model.principal import Principal
from vectoracl_conformance.checks.reference_checks import _memory_capabilities
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.generated.planning import Planner, Space, dumps
from vectoracl_conformance.harness import Needs
from vectoracl_conformance.harnesses.memory import MemoryStore

CAPABILITIES = _memory_capabilities(MemoryStore(Needs(8, {})))
SPACE = Space(5, "quick", CAPABILITIES, ("cosine", "dot"), thousands=False)


def as_text(world, plan):
    """Return rows and calls as text, that of sets in order."""

    def text(value):
        if isinstance(value, frozenset | set):
            return sorted(map(repr, value))
        return value.tobytes() if hasattr(value, "tobytes") else repr(value)

    calls = [
        (one.mode, one.pages, one.call.principal, one.call.method, sorted((k, text(v)) for k, v in given.items()))
        for one in plan.calls
        for given in (one.call.arguments,)
    ]
    rules = [
        (name, sorted((action, text(table)) for action, table in own.items())) for name, own in world.rules.items()
    ]
    return [world.tenants, rules, plan.coverage, calls]


@pytest.mark.parametrize("ids", [("C4", "C1", "C2", "C3"), ("C2",)])
def test_the_calls_are_those_that_are_drawn_here(ids):
    with Planner(SPACE, ids) as planner:
        for id_ in ids:
            there, here = as_text(*planner.plan(id_)), as_text(*SPACE.plan(id_))
            for one, other in zip(there, here, strict=True):
                assert repr(one) == repr(other)


def test_a_principal_is_carried_with_everything_that_it_is_made_from():
    who = Principal(
        "ana", "acme", frozenset({"r"}), frozenset({"g"}), {"a": 1, "b": ("x", "y")}, "agent",
        authenticated_by="oidc:x", expires_at=12.5,
    )  # fmt: skip
    world, plan = SPACE.plan("C4")
    plan = replace(plan, calls=tuple(replace(one, call=replace(one.call, principal=who)) for one in plan.calls[:2]))
    _, again = pickle.loads(dumps(world, plan))
    assert [one.call.principal for one in again.calls] == [who, who]


def test_a_process_that_ends_early_is_no_measurement():
    with Planner(SPACE, ("C1",)) as planner:
        planner._process.kill()
        with pytest.raises(Abstain, match="ended early"):
            planner.plan("C1")


def test_it_reports_the_progress():
    space, reported = replace(SPACE, size="full"), []
    with Planner(space, ("C1",)) as planner:
        planner.plan("C1", reported.append)
    assert reported
    assert all(re.fullmatch(r"[a-z_]+, [\d,]+ of [\d,]+", one) for one in reported)


def test_it_ends_with_the_run():
    with Planner(SPACE, ("C1", "C2")) as planner:
        pass
    assert planner._process.poll() is not None
