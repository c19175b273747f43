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
    """List the tenants with their sizes and tiers, and advise which of them to move.

    Small tenants share a part of the store; a large tenant is faster in a separate part. The exit code is 1 if a move
    is advised.
    """
    with operating(config_path(config, argument), store) as (_, operator):
        tenants = operator.tenants()
    # A tenant whose id is no longer valid is neither served nor moved.
    tenants = [
        replace(one, advice="", note=_FORMER) if shown_tenant(one.tenant) != one.tenant else one for one in tenants
    ]
    advised = [one for one in tenants if one.advice]
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
            for one in tenants
        ]
        print_json({"tenants": rows})
    else:
        _show(tenants)
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
    """Run *act* on a tenant in *store* (None: the tenant's store), after *before*, which may stop it; record it.

    *stays* describes the traces that the store's operator cannot remove.
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
    """Move a tenant into a separate physical part while reads and writes continue, in stores where tenants share one.

    The part is a partition with an index (pgvector) or a shard (Qdrant, on a cluster that is set up for it). Stores
    that always keep a separate part per tenant refuse it.
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
    """Move a tenant back into the part that small tenants share (pgvector).

    All reads and writes wait while its rows are copied, for at most `demote_stall` seconds; after that it is rolled
    back. Other stores refuse it.
    """
    with Steps(quiet=as_json) as steps:

        def act(operator: Operator) -> list[str]:
            return operator.demote(tenant, progress=steps.report)

        _on_tenant(config, store, tenant, "demote", act, as_json=as_json)


def _keeper(operator: Operator) -> TenantKeeper:
    """Return *operator* if it manages the tenant lifecycle. Raises: RefusedError."""
    if isinstance(operator, TenantKeeper):
        return operator
    raise RefusedError(
        "This store has no separate part per tenant that could be created or deactivated. A tenant begins with its "
        "first write; to delete it: vectoracl tenants remove.",
        field="adapter",
    )


def _remover(operator: Operator) -> TenantRemover:
    """Return *operator* if it can remove tenants. Raises: RefusedError."""
    if isinstance(operator, TenantRemover):
        return operator
    raise RefusedError(
        "The adapter of this store cannot remove a tenant. To delete its chunks, use a handle of the tenant: "
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
    """Create a tenant in a store with a separate part per tenant (Weaviate), with its own key if keys are per tenant.

    In other stores a tenant begins with its first write, and this is refused.
    """
    _on_tenant(config, store, tenant, "create", lambda one: _keeper(one).create(tenant), as_json=as_json)


def deactivate(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Stop serving a tenant: it reads as if it did not exist. Its chunks stay on the server's disk (Weaviate)."""
    _on_tenant(config, store, tenant, "deactivate", lambda one: _keeper(one).deactivate(tenant), as_json=as_json)


def offload(
    tenant: TenantArgument,
    config: ConfigOption = DEFAULT_CONFIG,
    store: HomeOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Stop serving a tenant and move its chunks to cheaper storage, if the server has one (Weaviate)."""
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


_FORMER = "not a valid tenant id any more: it is not served, and can be removed by the name shown here"


def _meant(tenant: str, config: Path, store: str | None) -> tuple[str, str | None]:
    """Return the tenant that `tenants list` shows as *tenant*, and its store if its id is not valid any more.

    Raises: InvalidTenantError if *tenant* is not a tenant id, and the store has no tenant that is shown as *tenant*.
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
            f"The name is ambiguous, so nothing was removed. Pass one of the names that `tenants list` shows: "
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
    """Delete a tenant: its chunks, its key, and its name in the store. It asks first; this cannot be undone.

    After an interruption, run it again to complete it. A tenant that is unknown to the store is refused (exit code 2).
    For a tenant id that only an earlier version accepted, pass the name that `tenants list` shows. Where tenants begin
    with their first write, a later write creates the tenant again, so revoke its principals first.
    """
    tenant, store = _meant(tenant, config, store)
    label = one_line(shown_tenant(tenant), 60)

    def ask(acl: VectorACL, name: str) -> None:
        operator = acl.operator(name)
        try:
            _remover(operator)  # do not ask about something that cannot be done
        finally:
            operator.close()
        if yes:
            return
        if as_json:
            raise unasked(f"Delete the tenant {label}")
        if not interactive():
            err().print(Text("Nothing was done: pass --yes to remove a tenant without a question."), soft_wrap=True)
            done(NOT_MEASURED)
        question = f"Delete the tenant {label} with all of its chunks from the store {one_line(name, 60)}?"
        if not typer.confirm(question, err=True):
            err().print("Nothing was done.")
            done(NOT_MEASURED)

    def act(operator: Operator) -> list[str]:
        lines = _remover(operator).remove(tenant)
        if not lines:
            raise RefusedError(
                f"The store holds nothing of the tenant {label}, so nothing was removed. "
                "`vectoracl tenants list` lists the tenants.",
                field="tenant",
            )
        return lines

    _on_tenant(config, store, tenant, "remove", act, as_json=as_json, before=ask, stays=STAYS)


STAYS = (
    "Its name remains outside the store: in the audit records, in checkpoint files of copies, in backups and snapshots "
    "of the store, and in your configuration if that names it."
)
"""The traces that `tenants remove` does not remove."""
