"""For tests of applications: principals without tokens, and a check that two principals are apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from vectoracl.client.connect import VectorACL
from vectoracl.client.retriever import ScopedRetriever
from vectoracl.errors import ScopeViolationError, UnsupportedPredicateError
from vectoracl.filters.predicate import F
from vectoracl.model.principal import Principal
from vectoracl.model.records import Hit


def principal(id: str = "tester", tenant: str = "test", **claims: Any) -> Principal:  # noqa: A002 - the field's name
    """Return a principal that says of itself that a test made it; *claims* are `Principal`'s other fields."""
    return Principal(id, tenant, authenticated_by="testing", **claims)


def assert_isolated(acl: VectorACL, a: Principal, b: Principal, *, k: int = 10) -> None:
    """Assert that neither of two principals of different tenants sees a chunk that only the other's tenant owns.

    Both must see at least one chunk of their own tenant (an empty store proves nothing). For up to 100 chunks of each
    it checks that the other one's fetch and search by the chunk's own vector do not find it, and that what they do
    find is also counted: a store that hands a foreign row out under another tenant's name is found by that.
    Raises: AssertionError that says which step failed.
    """
    if a.tenant == b.tenant:
        raise AssertionError("assert_isolated needs principals of two tenants")
    for own, other in ((a, b), (b, a)):
        page = acl.scoped(own).page(size=100, include={"vector"})
        mine = [hit for hit in page.hits if hit.tenant == own.tenant]
        if not mine:
            raise AssertionError(f"{own.tenant!r} has no chunk, so nothing was shown; write some first")
        theirs = acl.scoped(other)
        counted: dict[tuple[str, str], int] = {}
        try:
            for hit in mine:
                assert hit.vector is not None
                _apart(theirs, own, other, "fetched", theirs.fetch([(hit.document, hit.id)]), counted)
                _apart(theirs, own, other, "found", theirs.search(hit.vector, k=k), counted)
        except ScopeViolationError as error:
            raise AssertionError(f"the store answered {other.tenant!r} outside of its scope: {error}") from error


def _apart(
    theirs: ScopedRetriever,
    own: Principal,
    other: Principal,
    how: str,
    hits: Sequence[Hit],
    counted: dict[tuple[str, str], int],
) -> None:
    """Assert that *hits*, which *other* got, are neither *own*'s nor more than *other* counts."""
    if any(hit.tenant == own.tenant for hit in hits):
        raise AssertionError(f"{other.tenant!r} {how} a chunk of {own.tenant!r}")
    for pair, shown in Counter((hit.document, hit.id) for hit in hits).items():
        if pair not in counted:
            try:
                counted[pair] = theirs.count((F["@document"] == pair[0]) & (F["@chunk"] == pair[1]))
            except UnsupportedPredicateError:  # a store that does not count shows nothing by it
                return
        if shown > counted[pair]:
            raise AssertionError(f"{other.tenant!r} {how} a chunk that it does not count; is it of {own.tenant!r}?")
