"""What a hostile review found: each test failed once."""

from __future__ import annotations

from typing import Any

import pytest

import vectoracl
from vectoracl import Chunk, F, InvalidInputError, Like, Predicate
from vectoracl.engine.drivers import run
from vectoracl.engine.pipeline import retried
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import Eq
from vectoracl.testing import principal

CONFIG: dict[str, Any] = {
    "version": 1,
    "stores": {"main": {"adapter": "memory", "dimension": 2, "metadata": {"year": "number"}}},
}
ANN = principal("ann", "acme")


@pytest.fixture
def docs():
    with vectoracl.connect(CONFIG) as acl:
        yield acl.scoped(ANN)


def test_a_policy_without_rules_is_not_replaced_by_the_default_one():
    class Rules(list):
        version = "1"

        def decide(self, _principal, _action):
            return vectoracl.Decision.deny("no rule applies", self.version)

    with vectoracl.connect(CONFIG, policy=Rules()) as acl, pytest.raises(vectoracl.DeniedError):
        acl.scoped(ANN).count()


def test_an_empty_sink_is_not_replaced_by_another():
    class Kept(list):
        write = note = list.append

        def close(self):
            pass

    kept = Kept()
    with vectoracl.connect(CONFIG, sink=kept) as acl:
        acl.scoped(ANN).count()
    assert [sorted(one)[0] for one in kept] == ["action", "decision"]


@pytest.mark.parametrize("sent", ["no", "unknown"])
def test_a_write_that_may_have_been_applied_is_not_sent_again(sent: Any):
    # Between the two attempts another writer may have changed or deleted what the first one wrote.
    tries = []

    def flow():
        tries.append(1)
        raise StoreError("lost", sent=sent, retryable=True)
        yield

    class Clock:
        parallel = 1

        def execute(self, _request: Any, _timeout: Any) -> None:
            pass

        def close(self) -> None:
            pass

    with pytest.raises(StoreError) as caught:
        run(retried(flow, write=True), {"clock": Clock()})
    assert (len(tries), caught.value.sent) == ({"no": 3, "unknown": 1}[sent], sent)


def test_numbers_beyond_floats_are_refused(docs: Any):
    huge = 10**400
    for ask in (
        lambda: docs.search([1, 0], min_score=huge),
        lambda: docs.search([1, 0], min_score=-huge),
        lambda: docs.search([1, 0], timeout=huge),
        lambda: docs.search([1, 0], timeout=1e308),
        lambda: principal(expires_at=huge),
        lambda: principal(expires_at=float("nan")),
    ):
        with pytest.raises(InvalidInputError):
            ask()


def test_not_equal_has_a_json_form_for_the_tags_fields(docs: Any):
    docs.upsert([Chunk("a", "d", "", [1, 0]), Chunk("a", "e", "", [1, 0])])
    where = Predicate.from_dict({"field": "@document", "op": "ne", "value": "d"})
    assert where == (F["@document"] != "d")
    assert docs.count(where) == 1


class Sly(str):
    """Passes for `year` where it is looked up."""

    __slots__ = ()

    def startswith(self, *_: Any) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return other == "year"

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return hash("year")


def test_a_field_that_passes_for_another_is_refused(docs: Any):
    with pytest.raises(InvalidInputError):
        docs.count(Eq(Sly("@label"), 2020))


def test_a_document_that_equals_every_other_is_still_one_document(docs: Any):
    with pytest.raises(InvalidInputError):
        docs.replace(Sly("d"), [Chunk("a", "e", "", [1, 0])])


def test_like_this_keeps_the_other_chunks_of_its_document(docs: Any):
    docs.upsert(
        [
            Chunk("asked", "near", "", [1, 0]),
            Chunk("next", "near", "", [0.9, 0.1]),
            Chunk("more", "near", "", [0.8, 0.2]),
            Chunk("c", "far", "", [0.1, 0.9]),
            Chunk("d", "farther", "", [0, 1]),
        ]
    )
    like = Like("asked", "near")
    assert [hit.id for hit in docs.search(like, k=1, group_by="document")] == ["next"]
    assert [hit.id for hit in docs.search(like, k=2, group_by="document")] == ["next", "c"]
    assert [hit.id for hit in docs.search(like, k=1, group_by="document", per_group=2)] == ["next", "more"]
    assert [hit.id for hit in docs.search(like, k=2)] == ["next", "more"]


def test_nothing_is_written_into_a_generation_that_the_scope_leaves_out():
    # The record was judged as generation 0 and stored in the document's own, which is on hold.
    class Hold:
        version = "1"

        def decide(self, principal, _action):
            held = F["@docgen"] == "1:d:1"
            scope = vectoracl.Scope.of([vectoracl.Grant(principal.tenant, ~held)])
            return vectoracl.Decision(True, scope, ("on hold",), self.version)

    config = {**CONFIG, "stores": {"main": {**CONFIG["stores"]["main"], "name": "held"}}}
    with vectoracl.connect(config) as acl, vectoracl.connect(config, policy=Hold()) as held:
        for _ in range(2):
            acl.scoped(ANN).replace("d", [Chunk("a", "d", "", [1, 0])])
        for write in (held.scoped(ANN).upsert, lambda chunks: held.scoped(ANN).replace("d", chunks)):
            with pytest.raises(vectoracl.UnsupportedPredicateError):
                write([Chunk("b", "d", "", [1, 0])])
        assert held.scoped(ANN).count() == 0
        assert acl.scoped(ANN).count() == 1


def test_a_mistyped_adapter_is_not_offered_for_installation():
    with pytest.raises(vectoracl.AdapterNotFoundError, match="did you mean 'memory'") as caught:
        vectoracl.connect({"version": 1, "stores": {"main": {"adapter": "memroy"}}})
    assert "pip" not in str(caught.value)
    assert caught.value.install == ""
