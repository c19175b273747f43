"""Generated calls: they are performed by the adapter's process and by the reference, and the answers are compared."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl import Chunk
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.generated.bench import Bench
from vectoracl_conformance.generated.content import Census
from vectoracl_conformance.generated.reference import Side
from vectoracl_conformance.isolated import child
from vectoracl_conformance.isolated.changed_rows import changed_rows
from vectoracl_conformance.isolated.process import Far, OtherError
from vectoracl_conformance.mutants.generated_calls import altered

MEMORY = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 4, "name": "shared"}}}
CLAIMS = {"id": "u", "tenant": "a", "authenticated_by": "a test"}


@pytest.fixture
def far():
    process = Far(limit=20)
    process.ask("client", 1, MEMORY, "sync", True)
    chunks = [Chunk(str(number), "d", "text", np.eye(4)[number]) for number in range(3)]
    process.ask("call", 1, CLAIMS, [], "upsert", (chunks,), {})
    yield process
    process.close()


def count(far, number=1):
    return far.ask("call", number, CLAIMS, [], "count", (), {})


def test_a_branch_leaves_nothing_behind(far):
    for mode in ("sync", "async"):
        far.ask("branch")
        far.ask("client", 2, MEMORY, mode, False)
        far.ask("call", 2, CLAIMS, [], "delete", (), {"document": "d"})
        assert count(far, 2) == 0
        far.ask("end")
        assert count(far) == 3


def test_branches_are_nested(far):
    far.ask("branch")
    far.ask("branch")
    far.ask("end")
    far.ask("client", 2, MEMORY, "sync", False)
    assert count(far, 2) == 3
    far.ask("end")
    assert count(far) == 3


def test_a_branch_that_ends_by_itself_is_reported(far):
    far.ask("branch")
    with pytest.raises(OtherError, match="ended by itself"):
        far.ask("source", "import os\nos._exit(3)")
    assert count(far) == 3
    with pytest.raises(ValueError, match="no branch"):
        far.ask("end")


def test_what_the_process_wrote_can_be_read(far):
    far.ask("source", "import warnings\nwarnings.warn('a word')\nprint('another')")
    assert "a word" in far.said()
    assert "another" in far.said()


LENT = """
from dataclasses import replace

class Lending:
    kept = {}

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def fetch(self, operation):
        if operation.refs not in self.kept:
            self.kept[operation.refs] = yield from self._inner.fetch(operation)
        return self.kept[operation.refs]

def dress(opened):
    return replace(opened, adapter=Lending(opened.adapter))
"""


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_caller_changes_what_it_was_given(far, mode):
    """So that a store is noticed that lends its own vectors and metadata; one that gives copies is not."""
    chunk = Chunk("m", "d", "text", np.eye(4)[0], metadata={"a": {"b": [1]}})
    far.ask("call", 1, CLAIMS, [], "upsert", ([chunk],), {})
    fetch = (CLAIMS, [], "fetch", ([("d", "m")],), {"include": {"text", "metadata", "vector"}})
    given = []
    for source in ("", LENT):
        far.ask("branch")
        far.ask("source", source)
        far.ask("client", 2, MEMORY, mode, False)
        for _ in range(2):
            ((_, (hit,)),) = far.ask("calls", 2, [fetch])
            given.append((hit.vector.tolist(), hit.metadata))
        far.ask("end")
    right = ([1.0, 0.0, 0.0, 0.0], {"a": {"b": [1]}})
    assert given == [right, right, right, ([9.0] * 4, {})]


FAULTS = {
    "a count without the scope": "    def count(self, operation):\n"
    "        return self._inner.count(replace(operation, scope=ALWAYS))",
    "the order of hits": "    def search(self, operation):\n"
    "        found = yield from self._inner.search(operation)\n"
    "        return found._replace(hits=found.hits[::-1])",
    "the call after a lost connection": """
    lost = False

    def count(self, operation):
        scope = ALWAYS if self.lost else operation.scope
        self.lost = False
        try:
            return (yield from self._inner.count(replace(operation, scope=scope)))
        except Exception:
            self.lost = True
            raise
""",
    "calls in flight": """
    flying = 0

    def search(self, operation):
        import threading, time
        self.flying += 1
        time.sleep(0.002)
        try:
            found = yield from self._inner.search(operation)
        finally:
            alone = self.flying < 12
            self.flying -= 1
        return found if alone else found._replace(hits=found.hits[1:])
""",
    "half of a write": """
    def upsert(self, operation):
        try:
            return (yield from self._inner.upsert(operation))
        except Exception:
            if len(operation.records) > 1:
                yield from self._inner.upsert(replace(operation, records=operation.records[:1]))
            raise
""",
    "an end": "    def fetch(self, operation):\n        import os\n        os._exit(1)",
}


@pytest.fixture(scope="module")
def bench():
    made = Bench(3, "quick")
    yield made
    made.close()


def test_a_right_adapter_passes_the_bench(bench):
    assert bench.kill(altered("")) is None


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_adapter_dies_on_the_bench(bench, name):
    assert bench.kill(altered(FAULTS[name])) is not None
    assert bench.kill("this is not Python") is not None


_PARTS = st.tuples(st.sampled_from("ab"), st.sampled_from("de"), st.sampled_from("xyz"))
_CONTENT = st.tuples(st.sampled_from(["t", "T", ""]), st.integers(0, 2), st.sampled_from([0.0, -0.0, 0.5]))
_STATES = st.lists(st.dictionaries(_PARTS, _CONTENT, max_size=6), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(states=_STATES, forgotten=st.sets(st.integers(1, 5)))
def test_a_census_of_changes_is_the_whole_one(states, forgotten):
    """Rows that are changed in their place, new and gone; also after a census that the other side did not get."""
    stored, seen = {}, None
    child._DRESS["census"] = lambda _: list(stored.values())
    child._CLIENTS[1] = None
    try:
        for number, state in enumerate(states):
            for key in stored.keys() - state.keys():
                del stored[key]
            for (tenant, document, chunk), (text, value, component) in state.items():
                row = stored.get((tenant, document, chunk))
                if row is not None and number % 2:  # as a store does that keeps one object for each row
                    row.vector[0] = component
                    row.metadata["v"] = value
                    text = row.text
                    state[tenant, document, chunk] = (text, value, component)
                else:
                    vector = np.array([component, 1.0], np.float32)
                    stored[tenant, document, chunk] = Record(
                        Tag(tenant, document, chunk, time=1.0), text, vector, {"v": value}
                    )
            if number in forgotten:
                child._changes("")  # whoever asked was cut off
            answer = pickle.loads(pickle.dumps(child._changes("" if seen is None else seen.mark)))
            mark, gone, rows = changed_rows(answer)
            seen = Census(rows, seen, mark, gone)
            held = {place: (row.text, row.metadata["v"], row.vector[0].item()) for place, row in seen.rows.items()}
            assert held == state
            assert not seen.twice
    finally:
        child._DRESS.clear()
        child._CLIENTS.clear()


@pytest.mark.parametrize("gone", [[["a", "d", "x"]], ["a"], [("a", 1, "x")], [{}]])
def test_a_census_whose_keys_are_not_keys_is_no_answer(gone):
    class Liar:
        def ask(self, *_):
            return "mark", gone, []

    with pytest.raises(Abstain):
        Side(Liar(), {}, {}, {}).census()
