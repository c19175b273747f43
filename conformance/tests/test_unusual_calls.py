"""Unusual but right adapters pass the generated calls: some that are drawn, or all with `VECTORACL_UNUSUAL=all`."""

import os
import random
import sys

import pytest

from vectoracl_conformance.context.corpus import DIMENSION
from vectoracl_conformance.generated.run import Setting, declared, run_generated
from vectoracl_conformance.harnesses.generated_unusual import UnusualHarness, unusual
from vectoracl_conformance.harnesses.unusual import ODD
from vectoracl_conformance.isolated.interpreter import plain

pytestmark = pytest.mark.timeout(1800)

SEED = int(os.environ.get("VECTORACL_UNUSUAL_SEED", "1"))
DRAWN = 2
HARNESSES = {**{one.name: one for one in unusual()}, **{f"odd: {name}": one for name, one in ODD.items()}}


def chosen():
    if os.environ.get("VECTORACL_UNUSUAL") == "all":
        return list(HARNESSES)
    return random.Random(SEED).sample(list(HARNESSES), DRAWN)


@pytest.fixture(scope="module")
def environment():
    made = plain("", [path for path in sys.path if path])
    yield made
    made.close()


@pytest.mark.parametrize("name", chosen())
def test_passes_the_generated_calls(environment, name):
    one = HARNESSES[name]
    harness = one if name.startswith("odd: ") else UnusualHarness(one)
    setting = Setting(harness, SEED, "quick", environment, harness.variant.source)
    notes, report = run_generated(setting)
    assert [(note.id, note.mode, note.outcome, note.reason) for note in notes if note.outcome != "passed"] == []
    assert len(notes) == 8
    assert report.calls > 100


@pytest.mark.parametrize("name", ODD)
def test_an_odd_one_opens_with_another_dimension_than_the_named_checks_have(environment, name):
    harness = ODD[name]
    assert declared(Setting(harness, SEED, "quick", environment, harness.variant.source)).dimension != DIMENSION
