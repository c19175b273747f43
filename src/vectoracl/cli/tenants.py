"""`vectoracl tenants`: lists tenants and moves, creates, deactivates and removes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from vectoracl import hazmat
from vectoracl.adapter_api.contract import Operator, TenantInfo, TenantKeeper, TenantRemover
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    FINDINGS,
    NOT_MEASURED,
    ConfigArgument,
    ConfigOption,
    HomeOption,
    JsonOption,
    OperatedOption,
    Steps,
    config_path,
    done,
    err,
    interactive,
    one_line,
    opened,
    out,
    person,
    plain,
    print_json,
    unasked,
)
from vectoracl.cli.operating import operating, tell
from vectoracl.client.connect import VectorACL
from vectoracl.config import read
from vectoracl.errors import RefusedError
from vectoracl.model.identifiers import check_tenant, shown_tenant

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id, exactly as it was verified.")]


def tenants_list(
    argument: ConfigArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    store: OperatedOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the tenants with their size, where they live, and which of them should move.

    Small tenants share a part of the store; a large one is faster in a part of its own. The exit code is 1 if a move
    is advised.
    """
    with operating(config_path(config, argument), store) as (_, operator):
        found = operator.tenants()
    # One that is not served now, and not moved either.
    found = [replace(one, advice="", note=_FORMER) if shown_tenant(one.tenant) != one.tenant else one for one in found]
    advised = [one for one in found if one.advice]
    if as_json:
        rows = [
            {
                "tenant": one.tenant,
                "shown": shown_tenant(one.tenant),
                "rows": one.rows if one.state == "active" else None,
                "tier": one.tier,
                "state": one.state,
                "advice": one.advice,
                "note": one.note,
            }
            for one in found
        ]
        print_json({"tenants": rows})
    else:
        _show(found)
    done(FINDINGS if advised else CLEAN)


def _show(found: list[TenantInfo]) -> None:
    console = out()
    if not found:
        console.print("No tenants yet.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("tenant", overflow="fold")
    table.add_column("rows", justify="right")
    table.add_column("tier")
    table.add_column("state")
    table.add_column("advice")
    for one in found:
        advice = Text(f"vectoracl tenants {one.advice} {one_line(one.tenant, 60)}" if one.advice else "", "yellow")
        if one.note:
            advice.append(f"{': ' if one.advice else ''}{plain(one.note)}", "dim")
        rows = f"{one.rows:,}" if one.state == "active" else "–"
        table.add_row(Text(plain(shown_tenant(one.tenant)), "bold"), rows, one.tier, one.state, advice)
    console.print(table)


def _on_tenant(
    config: Path,
    store: str | None,
    tenant: str,
    action: str,
    act: Callable[[Operator], list[str]],
    *,
    as_json: bool,
    before: Callable[[VectorACL, str], None] = lambda _acl, _store: None,
    stays: str = "",
) -> None:
    """Do *act* to a tenant in *store* (None: the one that it lives in), after *before* agreed; record it.

    *stays* says what the store's operator does not reach.
    """
    reason = f"vectoracl tenants {action}, run by {person()} at the command line"
    with opened(config, store, contact=False) as acl:
        name = acl.store_of(tenant) if store is None else store
        before(acl, name)
        lines = hazmat.on_tenant(acl, act, action=action, tenant=tenant, store=name, reason=reason)
    tell(lines, as_json=as_json, stays=stays)


def promote(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Give a tenant a physical part of its own, while reads and writes go on, where tenants can share one.

    That is a partition with an index of its own (pgvector), or a shard of its own (Qdrant, on a cluster that was set
    up for it). Stores that keep a part for each tenant anyway refuse it and say so.
    """
    with Steps(quiet=as_json) as steps:

        def act(operator: Operator) -> list[str]:
            return operator.promote(tenant, progress=steps.report)

        _on_tenant(config, store, tenant, "promote", act, as_json=as_json)


def demote(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Move a tenant back to the part that small tenants share, where the store has such parts (pgvector).

    Everybody's reads and writes wait while its rows are copied: `demote_stall` seconds at the most, else it is rolled
    back. Stores that keep a part for each tenant, or have no way back, refuse it and say so.
    """
    with Steps(quiet=as_json) as steps:

        def act(operator: Operator) -> list[str]:
            return operator.demote(tenant, progress=steps.report)

        _on_tenant(config, store, tenant, "demote", act, as_json=as_json)


def _keeper(operator: Operator) -> TenantKeeper:
    """Return *operator* as one that leads tenants through their life. Raises: RefusedError."""
    if isinstance(operator, TenantKeeper):
        return operator
    raise RefusedError(
        "This store keeps no part for each tenant that could be created or put to rest. A tenant begins with its first "
        "write; to delete one: vectoracl tenants remove.",
        field="adapter",
    )


def _remover(operator: Operator) -> TenantRemover:
    """Return *operator* as one that removes tenants. Raises: RefusedError."""
    if isinstance(operator, TenantRemover):
        return operator
    raise RefusedError(
        "The adapter of this store cannot remove a tenant. To delete the chunks of one, use its own handle: "
        "acl.scoped(Principal.service(id, tenant, reason)).delete(where=ALWAYS).",
        field="adapter",
    )


def create(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Create a tenant in a store that keeps a part for each (Weaviate), with a key of its own where it has such keys.

    Elsewhere a tenant begins with its first write, and this is refused.
    """
    _on_tenant(config, store, tenant, "create", lambda one: _keeper(one).create(tenant), as_json=as_json)


def deactivate(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Stop serving a tenant: it reads as if it were not there. Its chunks stay on the server's disk (Weaviate)."""
    _on_tenant(config, store, tenant, "deactivate", lambda one: _keeper(one).deactivate(tenant), as_json=as_json)


def offload(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Stop serving a tenant and move its chunks to cheaper storage, where the server has such (Weaviate)."""
    _on_tenant(config, store, tenant, "offload", lambda one: _keeper(one).offload(tenant), as_json=as_json)


def activate(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Serve a tenant again that was deactivated or offloaded (Weaviate)."""
    _on_tenant(config, store, tenant, "activate", lambda one: _keeper(one).activate(tenant), as_json=as_json)


_FORMER = "no id of a tenant any more: it is not served, and can be removed by the name that stands here"


def _meant(tenant: str, config: Path, store: str | None) -> tuple[str, str | None]:
    """Return the tenant that `tenants list` shows as *tenant*, with its store where its id does not say that.

    Raises: InvalidTenantError if *tenant* is no tenant id, and none that the store holds is shown so.
    """
    if shown_tenant(tenant) == tenant:
        return tenant, store
    with operating(config, store) as (_, operator):
        names = {one.tenant for one in operator.tenants()}
    meant = sorted(name for name in names if tenant in (name, shown_tenant(name)))
    if not meant:
        check_tenant(tenant)
    if len(meant) != 1:
        raise RefusedError(
            f"Two tenants can be meant, so nothing was removed. Name one of them as `tenants list` shows it: "
            f"{', '.join(shown_tenant(name) for name in meant)}.",
            field="tenant",
        )
    return meant[0], store or read(config)[0].default


def remove(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a tenant: its chunks, its key, and its name in the store. It asks first; there is no way back.

    After an interruption, run it again: it finishes. A tenant of which the store holds nothing is refused (exit code
    2). A tenant whose id a former version took and this one refuses is named as `tenants list` shows it. A write of
    the tenant that comes later makes it again where tenants begin with their first write, so take its
    principals away first.
    """
    tenant, store = _meant(tenant, config, store)
    shown = one_line(shown_tenant(tenant), 60)

    def ask(acl: VectorACL, name: str) -> None:
        operator = acl.operator(name)
        try:
            _remover(operator)  # a question about what cannot be done is not asked
        finally:
            operator.close()
        if yes:
            return
        if as_json:
            raise unasked(f"Delete the tenant {shown}")
        if not interactive():
            err().print(Text("Nothing was done: pass --yes to remove a tenant without being asked."), soft_wrap=True)
            done(NOT_MEASURED)
        asked = f"Delete the tenant {shown} with all of its chunks from the store {one_line(name, 60)}?"
        if not typer.confirm(asked, err=True):
            err().print("Nothing was done.")
            done(NOT_MEASURED)

    def act(operator: Operator) -> list[str]:
        lines = _remover(operator).remove(tenant)
        if not lines:
            raise RefusedError(
                f"The store holds nothing of the tenant {shown}, so nothing was removed. "
                "`vectoracl tenants list` shows the tenants that there are.",
                field="tenant",
            )
        return lines

    _on_tenant(config, store, tenant, "remove", act, as_json=as_json, before=ask, stays=STAYS)


STAYS = (
    "Its name stays where the store is not: in the audit records, in checkpoint files of copies, in backups and "
    "snapshots of the store, and in your configuration if that names it."
)
"""The places that `tenants remove` does not reach."""
