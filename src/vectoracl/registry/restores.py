"""How a backup that was restored is noticed, as values.

A store carries *marks* in each tenant's partition: chunks of the reserved document `#vectoracl-mark`, whose label is
allowed to no one. Whoever takes documents out of the overlay, or notes them as erased, closes in this order:

1. write or delete the chunks,
2. insert a mark with a new random name,
3. read the marks and the chunks again (the census),
4. in one transaction of the registry, take the rows out and *require* the new mark.

A mark replaces those that were required when it was drawn: a copy of the store that has it was made after they were
inserted, so it has what they stand for. Several writers may close at the same time; each requires its own mark. If a
required mark is missing in the store, the store is older than the registry. If the store has a mark of a later version
than the registry's, the registry is older than the store. Either stops the tenant, in the registry and so for every
process, until `vectoracl registry verify` has compared all of its chunks.
"""

from __future__ import annotations

from typing import NamedTuple

from vectoracl.errors import StoppedTenantError

MARK_DOCUMENT = "#vectoracl-mark"
MARK_LABEL = "#mark"
OLDER_STORE = "store"
OLDER_REGISTRY = "registry"
VERIFYING = "verifying:"


class Marks(NamedTuple):
    """The registry's view of the marks of one store: the tenant's version, the time, and the required marks."""

    version: int
    now: float
    required: frozenset[str]


class SeenMarks(NamedTuple):
    """The marks of a store: their names, the greatest version among them (0 without marks), and those long written."""

    names: frozenset[str]
    newest: int
    old: frozenset[str] = frozenset()


class Closing(NamedTuple):
    """A mark that was inserted into *store*, the marks that were required when it was drawn, and those seen after it.

    `names` are the ones seen, the new one included if it is really there. `newest` is the greatest version of the
    others, and `old` are those of them that were written too long ago to belong to a drain that is under way. `mark` is
    "" for a store without marks.
    """

    store: str
    mark: str
    version: int
    required: frozenset[str]
    names: frozenset[str]
    newest: int = 0
    old: frozenset[str] = frozenset()


class Verified(NamedTuple):
    """The result of `registry verify` for one tenant.

    Attributes:
        tenant: The tenant.
        replayed: The number of changes that were taken from the journal.
        documents: The number of documents that were compared.
        corrected: Documents whose chunks contradicted the registry and were written again.
        deleted: Documents of which chunks were deleted: erased, unknown, or of another than the published version.
        incomplete: Documents of which published chunks are missing: write them again.
    """

    tenant: str
    replayed: int
    documents: int
    corrected: tuple[str, ...]
    deleted: tuple[str, ...]
    incomplete: tuple[str, ...]


_WHY = {
    OLDER_STORE: "its store was restored to an earlier moment than the registry's",
    OLDER_REGISTRY: "the registry was restored to an earlier moment than its store's or its journal's",
}


def stopped_error(tenant: str, reason: str) -> StoppedTenantError:
    """Return the refusal of every call of a tenant that is stopped for *reason*."""
    why = _WHY.get(reason, "`vectoracl registry verify` is at work, or was interrupted")
    error = StoppedTenantError(
        f"The tenant {tenant!r} is stopped: {why}. Run `vectoracl registry verify --tenant {tenant}`, which compares "
        "every chunk with the registry."
    )
    error.tenant = tenant
    return error
