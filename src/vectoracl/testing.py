"""For tests of applications: principals without tokens, and a check that two principals are apart."""

from __future__ import annotations

from typing import Any

from vectoracl.client import VectorACL
from vectoracl.principal import Principal


def principal(id: str = "tester", tenant: str = "test", **claims: Any) -> Principal:  # noqa: A002 - the field's name
    """Return a principal that says of itself that a test made it; *claims* are `Principal`'s other fields."""
    return Principal(id, tenant, authenticated_by="testing", **claims)


def assert_isolated(acl: VectorACL, a: Principal, b: Principal, *, k: int = 10) -> None:
    """Assert that neither of two principals of different tenants sees a chunk that only the other's tenant owns.

    Both must see at least one chunk of their own tenant (an empty store proves nothing). For up to 100 chunks of each
    it checks that the other one's fetch, count and search by the chunk's own vector do not find it.
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
        for hit in mine:
            if any(found.tenant == own.tenant for found in theirs.fetch([(hit.document, hit.id)])):
                raise AssertionError(f"{other.tenant!r} fetched a chunk of {own.tenant!r}")
            assert hit.vector is not None
            if any(found.tenant == own.tenant for found in theirs.search(hit.vector, k=k)):
                raise AssertionError(f"{other.tenant!r} found a chunk of {own.tenant!r}")
