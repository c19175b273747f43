"""Helpers for tests of applications: principals without tokens, and an assertion that two tenants are isolated."""

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
    """Return a principal that is marked as created by a test.

    Args:
        id: The principal's id.
        tenant: The tenant's id.
        claims: Further fields of `Principal`.

    Returns:
        The principal, authenticated by "testing".
    """
    return Principal(id, tenant, authenticated_by="testing", **claims)


def assert_isolated(acl: VectorACL, a: Principal, b: Principal, *, k: int = 10) -> None:
    """Assert that neither of two principals of different tenants sees a chunk that only the other's tenant owns.

    Both must see at least one chunk of their tenant (an empty store proves nothing). For up to 100 chunks of each, it
    checks that fetch and search by the chunk's vector as the other principal do not return it, and that every chunk
    which they do return is also counted: this detects a store that returns a row under another tenant's name.

    Args:
        acl: The opened configuration.
        a: A principal of one tenant.
        b: A principal of another tenant.
        k: The number of hits per search.

    Raises:
        AssertionError: A step failed; the message names it.
    """
    if a.tenant == b.tenant:
        raise AssertionError("assert_isolated requires principals of two tenants")
    for own, other in ((a, b), (b, a)):
        page = acl.scoped(own).page(size=100, include={"vector"})
        mine = [hit for hit in page.hits if hit.tenant == own.tenant]
        if not mine:
            raise AssertionError(f"{own.tenant!r} has no chunks, so nothing can be proved; write some first")
        theirs = acl.scoped(other)
        counted: dict[tuple[str, str], int] = {}
        try:
            for hit in mine:
                assert hit.vector is not None
                _apart(theirs, own, other, "fetched", theirs.fetch([(hit.document, hit.id)]), counted)
                _apart(theirs, own, other, "found", theirs.search(hit.vector, k=k), counted)
        except ScopeViolationError as error:
            raise AssertionError(f"the store returned rows outside the scope of {other.tenant!r}: {error}") from error


def _apart(
    theirs: ScopedRetriever,
    own: Principal,
    other: Principal,
    how: str,
    hits: Sequence[Hit],
    counted: dict[tuple[str, str], int],
) -> None:
    """Assert that *hits*, returned to *other*, are neither chunks of *own* nor more than *other* counts."""
    if any(hit.tenant == own.tenant for hit in hits):
        raise AssertionError(f"{other.tenant!r} {how} a chunk of {own.tenant!r}")
    for pair, count in Counter((hit.document, hit.id) for hit in hits).items():
        if pair not in counted:
            try:
                counted[pair] = theirs.count((F["@document"] == pair[0]) & (F["@chunk"] == pair[1]))
            except UnsupportedPredicateError:  # a store without counts cannot be checked in this way
                return
        if count > counted[pair]:
            raise AssertionError(f"{other.tenant!r} {how} a chunk that it does not count; does {own.tenant!r} own it?")
