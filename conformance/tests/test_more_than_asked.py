"""A store that returns more of a row than was asked for: what it returns has to be that of the row as it is now."""

from dataclasses import replace

import pytest

from vectoracl_conformance.checks.reference_checks import _memory_capabilities
from vectoracl_conformance.generated.calls import Call
from vectoracl_conformance.generated.comparison import Comparison
from vectoracl_conformance.generated.pair import Pair
from vectoracl_conformance.generated.reference import Reference, writer
from vectoracl_conformance.generated.world import build_world
from vectoracl_conformance.harness import Needs
from vectoracl_conformance.harnesses.memory import MemoryStore

TENANT = "tenant of the row"
EVERYTHING = frozenset({"text", "metadata", "vector"})


class Generous(Reference):
    """A store that returns everything, and of texts what `said` makes of them."""

    said = staticmethod(lambda text: text)

    def calls(self, mode, calls):
        asked = [replace(one, arguments={**one.arguments, "include": EVERYTHING}) if one.method == "scan" else one
                 for one in calls]  # fmt: skip
        answers = super().calls(mode, asked)
        return [
            (kind, [hit._replace(text=self.said(hit.text)) for hit in value]) if one.method == "scan" else (kind, value)
            for one, (kind, value) in zip(calls, answers, strict=True)
        ]


@pytest.fixture(scope="module")
def stores():
    able = _memory_capabilities(MemoryStore(Needs(8, {})))
    world = build_world(4, able, size="quick", metrics=["cosine"])
    able = replace(able, dimension=world.dimension)
    made = [kind(world.fields, world.rules, able, world.more) for kind in (Reference, Generous)]
    for side in made:
        side.open()
    yield world, able, *made
    for side in made:
        side.end()


@pytest.fixture
def pair(stores):
    _, able, right, got = stores
    with right.branch(), got.branch():
        made = Pair([got], right, Comparison(able, right.wider, lambda: made.rows(), words=True))
        assert made.compare_census() is None
        yield made
        made.close()


@pytest.fixture
def chunk(stores):
    return next(one for chunks in stores[0].tenants.values() for one in chunks)


def calls(*chunks):
    """Return writes of *chunks*, one after the other, and a read that asks for ids alone after each."""
    who = writer(TENANT)
    for one in chunks:
        yield "sync", Call(who, "upsert", {"chunks": [one]})
        yield "sync", Call(who, "scan", {"include": frozenset()})


def test_a_row_that_no_census_has_shown_yet(pair, chunk):
    assert pair.perform(list(calls(chunk))) == []


def test_a_row_that_was_written_again_since_the_census(pair, chunk):
    assert pair.perform(list(calls(chunk))) == []
    assert pair.perform(list(calls(replace(chunk, text="another text"), replace(chunk, text="a third text")))) == []


def test_an_old_text_is_a_difference(pair, chunk, monkeypatch):
    assert pair.perform(list(calls(chunk))) == []
    monkeypatch.setattr(Generous, "said", staticmethod(lambda text: chunk.text))
    (found,) = pair.perform(list(calls(replace(chunk, text="another text"))))
    assert "its text is another one" in found.problem
