"""The second lock: tests every returned row against the scope. It is a tripwire, not the control."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vectoracl.errors import ScopeViolationError, StoreError
from vectoracl.filters.semantics import Test
from vectoracl.model.records import Hit
from vectoracl.model.values import native

_log = logging.getLogger("vectoracl")


def verify(
    hits: Sequence[Hit],
    partition: str,
    test: Test | None,
    *,
    needs_metadata: bool = False,
    adapter: str,
    decision_id: str,
) -> None:
    """Check that every hit belongs to *partition* and passes *test* (None: the whole partition is permitted).

    With *needs_metadata* a hit without metadata fails: "is missing" and "not" would hold for fields that were not
    fetched.

    Raises: ScopeViolationError if a hit fails; it quotes no row, and the whole reply has to be dropped.
    """
    wrong = 0
    # Unpacked and compared as tuples (a tag begins with tenant, document, chunk): this runs for every row of a reply.
    for id_, document, _, tenant, _, _, metadata, _, tag in hits:
        if (
            tenant != partition
            or tag[:3] != (partition, document, id_)
            or (test is not None and ((needs_metadata and metadata is None) or not test(tag, metadata or {})))
        ):
            wrong += 1
    if wrong:
        _log.critical("scope violation: adapter=%s decision=%s rows=%d of %d", adapter, decision_id, wrong, len(hits))
        raise ScopeViolationError(
            f"The store returned {wrong} of {len(hits)} rows outside the scope; the whole reply was dropped. "
            "Treat this as an incident.",
            adapter=adapter,
            decision_id=decision_id,
            rows=wrong,
        )


def counted(number: object, adapter: str, *, write: bool = False) -> int:
    """Return *number*, a count from an adapter, as an int; NumPy integers are accepted.

    Raises: StoreError with the code "malformed" for anything else (a float, a bool) and for a negative number.
    """
    plain = native(number)
    if isinstance(plain, int) and not isinstance(plain, bool) and plain >= 0:
        return int.__int__(plain)
    raise StoreError(
        f"The adapter {adapter!r} returned an invalid count ({type(number).__name__}). This is a fault of the adapter: "
        "report it to its author.",
        code="malformed",
        adapter=adapter,
        sent="unknown" if write else "no",
    )
