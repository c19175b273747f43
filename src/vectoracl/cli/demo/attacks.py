"""The demo's attacks: real attempts against the live store, whose outcomes are computed from the replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vectoracl.adapter_api import loading
from vectoracl.adapter_api.contract import Flow, OpenContext
from vectoracl.adapter_api.demo_attacks import AttackContext, Attempt
from vectoracl.adapter_api.operations import Delete, Upsert
from vectoracl.client.connect import VectorACL
from vectoracl.config import adapter_config
from vectoracl.errors import InvalidInputError, ScopeViolationError, StoreError, VectorACLError
from vectoracl.filters.predicate import ALWAYS, F, Predicate
from vectoracl.filters.validation import check_fields
from vectoracl.model.records import Record, Tag

_Try = Callable[[VectorACL, AttackContext], Attempt]
_ROUNDS = 25
_K = 5
_FORGED = "forged by the demo"
ATTACKS = ("foreign id", "filter injection", "untagged write", "other tenant's tag", "stale connection")


def attempts(acl: VectorACL, forging: AttackContext, base: Path) -> list[Attempt]:
    """Make one attempt of each kind; the adapter's own attempts, which bypass the API, replace the core's.

    *base* is the folder of the configuration. Raises: VectorACLError if the store fails, which is not an outcome.
    """
    results = [_met(_foreign_id, "foreign id", acl, forging), _met(_filters, "filter injection", acl, forging)]
    own = list(_of_adapter(acl, forging, base))
    results += own
    covered = {one.attack for one in own}
    ours: dict[str, _Try] = {
        "untagged write": _untagged,
        "other tenant's tag": _other_tag,
        "stale connection": _alternating,
    }
    results += [_met(attempt, attack, acl, forging) for attack, attempt in ours.items() if attack not in covered]
    return sorted(results, key=lambda one: ATTACKS.index(one.attack) if one.attack in ATTACKS else len(ATTACKS))


def _met(attempt: _Try, attack: str, acl: VectorACL, forging: AttackContext) -> Attempt:
    """Make one attempt. A scope violation is a leak of the store, although the reply was dropped."""
    try:
        return attempt(acl, forging)
    except ScopeViolationError as error:
        return Attempt(attack, "the store returned rows outside the scope", "LEAK", _name(error))


def _of_adapter(acl: VectorACL, forging: AttackContext, base: Path) -> Sequence[Attempt]:
    name = acl.config.default
    store = acl.config.stores[name]
    hooks = loading.load(store.adapter, store.distribution)
    config = adapter_config(hooks.vectoracl_config_model(), store, name)
    context = OpenContext(name, check_fields(store.metadata), str(base), acl.config.debug_errors)
    results: Sequence[Attempt] | None = hooks.vectoracl_demo_attacks(config=config, context=context, forging=forging)
    return results or ()


def _name(error: VectorACLError) -> str:
    return type(error).__name__


def _foreign_id(acl: VectorACL, forging: AttackContext) -> Attempt:
    """Fetch by the exact (document, chunk id) pairs of the other tenant, and by the chunk ids alone."""
    victim = acl.scoped(forging.foreign).search(forging.vector, k=_K)
    pairs = [(hit.document, hit.id) for hit in victim]
    tried = f"fetch of {len(pairs)} chunks by their exact foreign ids"
    attacker = acl.scoped(forging.own)
    hits = [*attacker.fetch(pairs), *attacker.fetch([chunk for _, chunk in pairs])]
    leaked = sum(hit.tenant != forging.own.tenant for hit in hits)
    if not pairs:
        raise InvalidInputError("The other tenant has no chunks, so a fetch of its ids would prove nothing.")
    return Attempt("foreign id", tried, "LEAK" if leaked else "nothing", f"{leaked} chunks" if leaked else None)


def _filters(acl: VectorACL, forging: AttackContext) -> Attempt:
    """Search with filters that name the tenant, use a store's query language, or close a quotation."""
    other = forging.foreign.tenant
    quoted = f"x' OR tenant_id = '{other}' OR '1'='1"
    forged: tuple[Callable[[], Predicate], ...] = (
        lambda: F["tenant_id"] == other,
        lambda: F["@label"] == "default",
        lambda: Predicate.from_dict({"$or": [{"tenant_id": other}, {"1": "1"}]}),
        lambda: Predicate.from_dict({}),
        lambda: (F["@document"] == quoted) | ~(F["@document"] == quoted),
        lambda: F["@document"] == quoted,
    )
    tried = "filters with foreign keys, a store's own operators and SQL in a value"
    errors: list[str] = []
    leaked = 0
    for make in forged:
        try:
            result = acl.scoped(forging.own).search(forging.vector, k=_K, where=make())
        except (StoreError, ScopeViolationError):
            raise
        except VectorACLError as error:
            errors.append(_name(error))
        else:
            leaked += sum(hit.tenant != forging.own.tenant for hit in result)
    if leaked:
        return Attempt("filter injection", tried, "LEAK", f"{leaked} chunks")
    names = ", ".join(dict.fromkeys(errors))
    return Attempt("filter injection", tried, "refused" if errors else "nothing", names or None)


def _forge(acl: VectorACL, forging: AttackContext, tag: Tag) -> str:
    """Pass the adapter a record that the core did not tag, for the attacker's partition; return the error's name.

    If it is written, which is a leak, it is deleted again.
    """
    store = acl._named(acl.config.default).store  # noqa: SLF001 - an attack goes around the handles
    dimension = store.capabilities.dimension
    record = Record(tag, "forged", np.ones(dimension, np.float32), {})

    def flow() -> Flow[int]:
        written = yield from store.adapter.upsert(Upsert(forging.own.tenant, ALWAYS, (record,)))
        yield from store.adapter.delete(Delete(forging.own.tenant, ALWAYS, document=tag.document))
        return written

    try:
        acl.run(store, flow(), None)
    except StoreError:
        raise
    except VectorACLError as error:
        return _name(error)
    return ""


def _untagged(acl: VectorACL, forging: AttackContext) -> Attempt:
    met = _forge(acl, forging, Tag("", _FORGED, _FORGED))
    tried = "a record without a tag, passed to the adapter"
    return Attempt("untagged write", tried, "refused" if met else "LEAK", met or None)


def _other_tag(acl: VectorACL, forging: AttackContext) -> Attempt:
    met = _forge(acl, forging, Tag(forging.foreign.tenant, _FORGED, _FORGED))
    tried = "a record tagged with another tenant, passed to the adapter"
    return Attempt("other tenant's tag", tried, "refused" if met else "LEAK", met or None)


def _alternating(acl: VectorACL, forging: AttackContext) -> Attempt:
    """Serve one tenant many times, then another tenant on the same connections."""
    tried = f"another tenant's search right after {_ROUNDS} searches of the first tenant"
    first, second = acl.scoped(forging.own), acl.scoped(forging.foreign)
    for _ in range(_ROUNDS):
        first.search(forging.vector, k=_K)
    result = second.search(forging.vector, k=_K)
    leaked = sum(hit.tenant != forging.foreign.tenant for hit in result)
    if leaked or not result.complete:
        return Attempt("stale connection", tried, "LEAK", f"{leaked} chunks, complete: {result.complete}")
    return Attempt("stale connection", tried, "nothing")


def reopener(acl: VectorACL, source: Any) -> Callable[[Any], VectorACL]:
    """Return a function that opens *source*, the configuration of *acl*, on another client."""

    def reopen(client: Any) -> VectorACL:
        name = acl.config.default
        again = VectorACL(source, store=name, clients={name: client})
        return again.open()

    return reopen
