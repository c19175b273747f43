"""Bringing stores under a registry: its tables, the documents that the stores hold already, and the stores' marks.

Nothing is written to a chunk. The mark comes last: until then no process with `[registry]` opens the store, and after
it none without.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vectoracl.adapter_api.contract import RegistryMarker, StoreSettler
from vectoracl.adapter_api.operations import Position, Scan
from vectoracl.client.connect import VectorACL, other_registry
from vectoracl.client.version_asserting import same_table
from vectoracl.engine.drivers import confined, run
from vectoracl.engine.governed_store import check_governable
from vectoracl.engine.recorded_operator import unrecorded
from vectoracl.errors import ConfigError, PostureError, RefusedError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Hit, Tag
from vectoracl.registry.restores import MARK_DOCUMENT, MARK_LABEL
from vectoracl.registry.values import Content

_PAGE = 1_000


def provision_registry(acl: VectorACL, stores: Iterable[str]) -> list[str]:
    """Create the registry's tables and bring *stores*, which are provisioned, under it. Can be repeated.

    Processes that write without the registry have to be stopped before: what they write afterwards is not registered.

    Args:
        acl: The opened configuration, with `[registry]`.
        stores: The names of stores.

    Returns:
        A line for each thing that was done.

    Raises:
        ConfigError: There is no `[registry]`, or its tables are of a later version.
        PostureError: A store is governed by another registry.
        RefusedError: An adapter cannot keep the registry's labels.
        StoreError: A store or the registry failed.
    """
    if acl.registry is None:
        raise ConfigError("There is no [registry] in the configuration. Add it (docs/governance.md).")
    lines = acl.registry.create()
    for name in stores:
        lines += _bring_under(acl, name, acl.registry.identity())
        lines += _let_assert(acl, name)
    return lines


def _let_assert(acl: VectorACL, name: str) -> list[str]:
    """Let the role of a store in the registry's own database read the versions that its reads assert."""
    assert acl.registry is not None
    found = acl.witness(acl._named(name))  # noqa: SLF001 - one package
    if found is None or found.readable or not same_table(acl.registry, found):
        return []
    acl.registry.let_assert(found.role)
    return [f"reads of the store {name} assert the registry's versions: {found.role} may read them"]


def _bring_under(acl: VectorACL, name: str, identity: str) -> list[str]:
    named = acl._named(name)  # noqa: SLF001 - one package
    check_governable(named.store)
    marked = acl._posture(named).registry  # noqa: SLF001 - one package
    if marked == identity:
        return [f"the store {name} is under the registry already"]
    if marked is not None:
        raise PostureError(other_registry(name, marked, identity))
    operator = acl.operator(name, reason="provision the registry")
    try:
        if not isinstance(operator, RegistryMarker):
            raise RefusedError(f"The adapter of the store {name!r} cannot mark it as governed.", field="registry")
        lines = operator.settle() if isinstance(operator, StoreSettler) else []
        for info in operator.tenants():
            lines += _import_tenant(acl, name, info.tenant)
        return [*lines, *operator.mark(identity)]
    finally:
        unrecorded(operator).close()


def _import_tenant(acl: VectorACL, name: str, tenant: str) -> list[str]:
    """Register the documents of one tenant as the store holds them."""
    assert acl.registry is not None
    found: dict[str, Content] = {}
    mixed: set[str] = set()
    for hits in _pages(acl, name, tenant):
        for hit in hits:
            _check_ungoverned(hit)
            known = found.get(hit.document)
            found[hit.document] = content = _with(known, hit)
            if known is None or content.generation > known.generation:
                mixed.discard(hit.document)
            elif hit.tag.generation == content.generation and (hit.tag.label, hit.tag.expires) != content[1:3]:
                mixed.add(hit.document)
    if mixed:
        raise RefusedError(
            f"{len(mixed):,} documents of the tenant {tenant!a} have chunks that expire at different times, or have "
            f"different labels, and under a registry a document has one: {', '.join(map(ascii, sorted(mixed)[:5]))}. "
            "Delete what has expired (`vectoracl sweep`), and replace these documents as a whole.",
            field="expires",
        )
    if not found:
        return []
    registered, made = acl.registry.import_content(tenant, found, "provision")
    labels = f", under {made} new labels that no one may read yet" if made else ""
    return [f"registered {registered:,} documents of the tenant {tenant}{labels}"]


def _check_ungoverned(hit: Hit) -> None:
    """Refuse what a former registry has written: its holds, revs and unpublished chunks are unknown to a new one."""
    if hit.tag.rev > 0 or hit.tag.label.startswith("#"):
        raise RefusedError(
            f"The tenant {hit.tenant!a} was governed by a registry before, and a new one knows nothing of its holds. "
            "Restore that registry, or fill a new one from an export (`vectoracl registry import FILE`).",
            field="registry",
        )


def without_marks(hits: Iterable[Hit]) -> Iterable[Hit]:
    """Return *hits* without the marks of the registry: they hold no content."""
    return (hit for hit in hits if (hit.document, hit.tag.label) != (MARK_DOCUMENT, MARK_LABEL))


def _with(known: Content | None, hit: Hit) -> Content:
    tag = hit.tag
    if known is None or tag.generation > known.generation:
        return Content(tag.generation, tag.label, tag.expires, 1)
    if tag.generation < known.generation:
        return known
    return known._replace(chunks=known.chunks + 1)


def read_tags(acl: VectorACL, store: str, tenant: str) -> list[Tag]:
    """Return the tags of all chunks of a tenant as the store has them: for the operator, past every scope.

    Args:
        acl: The opened configuration.
        store: The store's name.
        tenant: The tenant's id.

    Returns:
        The tags.

    Raises:
        StoreError: The store failed.
    """
    return [hit.tag for hits in _pages(acl, store, tenant) for hit in without_marks(hits)]


def _pages(acl: VectorACL, name: str, tenant: str) -> Iterable[list[Hit]]:
    named = acl._named(name)  # noqa: SLF001 - one package
    ports: Mapping[str, object] = {"store": acl._port(named, "port")}  # noqa: SLF001 - one package
    after: Position | None = None
    while True:
        operation = Scan(tenant, ALWAYS, ALWAYS, _PAGE, after, frozenset())
        flow = confined(named.store.adapter.scan(operation), tenant)
        rows = run(flow, ports, timeout=named.config.timeout)  # type: ignore[arg-type]  # a port
        yield list(rows.hits)
        if not rows.more or not rows.hits:
            return
        last = rows.hits[-1]
        after = Position(last.document, last.tag.generation, last.id)
