"""`vectoracl tenants`: lists tenants and moves, creates, deactivates and removes them."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from vectoracl import hazmat
from vectoracl._util.signatures import takes
from vectoracl.adapter_api.contract import JointMover, Operator, Progress, TenantInfo, TenantKeeper, TenantRemover
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    FINDINGS,
    NOT_MEASURED,
    AllOption,
    ConfigArgument,
    ConfigOption,
    HomeOption,
    JsonOption,
    OperatedOption,
    Steps,
    config_path,
    done,
    err,
    error_object,
    exit_code,
    interactive,
    one_line,
    opened,
    out,
    person,
    plain,
    print_json,
    unasked,
)
from vectoracl.cli.operating import (
    Outcomes,
    check_one_or_all,
    heading,
    on_every_store,
    operating,
    operator_of,
    tell,
)
from vectoracl.client.connect import VectorACL
from vectoracl.config import read
from vectoracl.errors import RefusedError, StoreError, VectorACLError
from vectoracl.model.identifiers import check_tenant, shown_tenant

TenantArgument = Annotated[str, typer.Argument(metavar="TENANT", help="The tenant's id, exactly as it was verified.")]


def tenants_list(
    argument: ConfigArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    store: OperatedOption = None,
    *,
    every: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the tenants with their sizes and tiers, and advise which of them to move.

    Small tenants share a part of the store; a large tenant is faster in a separate part. The exit code is 1 if a move
    is advised.
    """
    check_one_or_all(store, every=every)
    if every:
        with opened(config_path(config, argument), contact=False) as acl:
            outcomes = _every_list(acl, as_json=as_json)
        done(outcomes.code(_advised(one for found in outcomes.results.values() for one in found)))
    with operating(config_path(config, argument), store) as (_, operator), Steps(quiet=as_json) as steps:
        tenants = _listed(operator, steps.report)
    if as_json:
        print_json(_list_json(tenants))
    else:
        _show(tenants)
    done(_advised(tenants))


def _every_list(acl: VectorACL, *, as_json: bool) -> Outcomes[list[TenantInfo]]:
    def listed(store: str) -> list[TenantInfo]:
        with operator_of(acl, store) as operator, Steps(quiet=as_json) as steps:
            found = _listed(operator, steps.report)
        if not as_json:
            heading(acl, store)
            _show(found, lambda tenant: "" if acl.store_of(tenant) == store else f" --store {shlex.quote(store)}")
        return found

    outcomes = on_every_store(acl, listed, as_json=as_json)
    if as_json:
        print_json(outcomes.as_json(_list_json))
    return outcomes


def _listed(operator: Operator, progress: Progress | None = None) -> list[TenantInfo]:
    shows = progress is not None and takes(operator.tenants, "progress")
    listed = operator.tenants(progress=progress) if shows else operator.tenants()
    # A tenant cannot be moved if its id is no longer valid: no principal can belong to it.
    return [replace(one, advice="", note=_FORMER) if shown_tenant(one.tenant) != one.tenant else one for one in listed]


def _advised(tenants: Iterable[TenantInfo]) -> int:
    return FINDINGS if any(one.advice for one in tenants) else CLEAN


def _list_json(tenants: list[TenantInfo]) -> dict[str, object]:
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
    return {"tenants": rows}


def _show(found: list[TenantInfo], option: Callable[[str], str] = lambda _: "") -> None:
    """Print *found*; *option* is what a command about a tenant needs in addition, to act in this store."""
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
        command = f"vectoracl tenants {one.advice} {one_line(one.tenant, 60)}"
        advice = Text(plain(command + option(one.tenant)) if one.advice else "", "yellow")
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


def rebalance(
    argument: ConfigArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    store: OperatedOption = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the moves.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Make at most this many moves.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.001, help="Begin no move after this many seconds.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the moves that `tenants list` advises: interrupted ones first, then the largest tenants.

    It prints a line for each move, and nothing if there is nothing to move, so that it can run by cron. Small tenants
    are moved together where the store can. A tenant that cannot be moved is reported, and the next one is moved; if
    another move is in progress, it ends at once. After an interruption, run it again: no move is half done for good.
    The exit code is 1 if moves are left.
    """
    began = time.monotonic()
    with opened(config_path(config, argument), store, contact=False) as acl:
        name = acl.config.default if store is None else store
        moves = _Moves(acl, name, as_json=as_json)
        if dry_run:
            some = moves.advised()[:limit]
            if as_json:
                print_json(_list_json(some))
            elif some:
                _show(some)
            done(_advised(some))
        plan = _Plan(moves.advised, moves.together())
        while not moves.stopped and not (seconds is not None and time.monotonic() - began >= seconds):
            group = plan.next(limit=None if limit is None else limit - len(moves.made))
            if not group:
                break
            try:
                moves.make(group)
            except BaseException as stop:
                stop.add_note(f"Moves that were finished before: {len(moves.made)} of {plan.total}.")
                if as_json and isinstance(stop, VectorACLError):
                    print_json({**moves.as_json(plan.total), "error": error_object(stop)})
                    done(exit_code(stop))
                raise
    left = plan.total - len(moves.made)
    if as_json:
        print_json(moves.as_json(plan.total))
    elif left:
        out().print(Text(f"{left} of {plan.total} advised moves are left.", "yellow"), soft_wrap=True)
    done(FINDINGS if left else CLEAN)


def _urgency(one: TenantInfo) -> tuple[bool, bool, int]:
    """Return the place of an advised move: completed first, then the largest promoted, then the smallest demoted."""
    return (not one.note, one.advice != "promote", one.rows if one.advice == "demote" else -one.rows)


_OF_ONE_TENANT = frozenset({"copy_differs", "promotion_failed"})
"""The codes of failures after which other tenants can be moved."""
_ANOTHER_MOVE = "move_in_progress"
_FRESH = 60.0
"""The seconds after which the advice is read again: a run may take hours, and tenants grow and shrink."""
_ROWS_TOGETHER = 20_000
"""The most rows that are moved together: all of these tenants' writers pause at the end."""


class _Plan:
    """The moves that are still to be made, each tried once; the advice is read again from time to time."""

    def __init__(self, advised: Callable[[], list[TenantInfo]], together: int) -> None:
        self._read = advised
        self._together = together
        self._tried: set[str] = set()
        self._advised = advised()
        self._at = time.monotonic()

    @property
    def total(self) -> int:
        """The number of moves that were tried, or are advised now."""
        return len(self._tried | {one.tenant for one in self._advised})

    def next(self, *, limit: int | None) -> list[TenantInfo]:
        """Return the next tenants that can be moved together; none if the plan or *limit* is at its end."""
        if time.monotonic() - self._at >= _FRESH:
            self._advised, self._at = self._read(), time.monotonic()
        waiting = [one for one in self._advised if one.tenant not in self._tried]
        most = self._together if limit is None else min(self._together, limit)
        group: list[TenantInfo] = []
        for one in waiting:
            rows = one.rows + sum(other.rows for other in group)
            joins = one.advice == "promote" and rows <= _ROWS_TOGETHER
            if most < 1 or len(group) >= most or (group and not joins):
                break
            group.append(one)
            if not joins:
                break
        self._tried |= {one.tenant for one in group}
        return group


class _Moves:
    """Makes advised moves in one store, each with its record, and keeps their results."""

    def __init__(self, acl: VectorACL, store: str, *, as_json: bool) -> None:
        self._acl = acl
        self._store = store
        self._as_json = as_json
        self.stopped = ""
        self.made: list[dict[str, object]] = []
        self.refused: list[dict[str, object]] = []

    def advised(self) -> list[TenantInfo]:
        """Return the tenants to move, the most urgent first."""
        with operator_of(self._acl, self._store) as operator:
            return sorted((one for one in _listed(operator) if one.advice), key=_urgency)

    def together(self) -> int:
        """Return the number of tenants that the store moves together."""
        with operator_of(self._acl, self._store) as operator:
            return operator.together if isinstance(operator, JointMover) else 1

    def as_json(self, advised: int) -> dict[str, object]:
        """Return the JSON object of a run that found *advised* moves."""
        left = advised - len(self.made)
        return {"moved": self.made, "refused": self.refused, "left": left, "stopped": self.stopped or None}

    def make(self, group: list[TenantInfo]) -> None:
        """Make moves, or report which tenant cannot be moved. Raises: VectorACLError, if no tenant can be."""
        if len(group) > 1:
            try:
                self._made(group, self._run(group))
                return
            except (RefusedError, StoreError) as error:
                self._check(error)  # one of them cannot be moved: each is tried by itself
        for one in group:
            if self.stopped:
                return
            try:
                self._made([one], self._run([one]))
            except (RefusedError, StoreError) as error:
                self._check(error)
                if not self.stopped:
                    self._report(one, error)

    def _run(self, group: list[TenantInfo]) -> list[str]:
        tenants, action = [one.tenant for one in group], group[0].advice
        reason = f"vectoracl tenants rebalance, run by {person()} at the command line"
        with Steps(quiet=self._as_json or not sys.stderr.isatty()) as steps:

            def act(operator: Operator) -> list[str]:
                if len(tenants) > 1 and isinstance(operator, JointMover):
                    return operator.promote_together(tenants, progress=steps.report)
                move = operator.promote if action == "promote" else operator.demote
                return move(tenants[0], progress=steps.report)

            return hazmat.on_tenants(self._acl, act, action=action, tenants=tenants, store=self._store, reason=reason)

    def _check(self, error: RefusedError | StoreError) -> None:
        """Stop if another move is in progress; raise what every other tenant would meet too."""
        if isinstance(error, StoreError) and error.code not in _OF_ONE_TENANT:
            raise error
        if error.code == _ANOTHER_MOVE:
            self.stopped = error.message
            if not self._as_json:
                err().print(Text(plain(error.message), "yellow"), soft_wrap=True)

    def _report(self, one: TenantInfo, error: RefusedError | StoreError) -> None:
        self.refused.append({"tenant": one.tenant, "action": one.advice, "error": error_object(error)})
        if not self._as_json:
            label = one_line(shown_tenant(one.tenant), 60)
            err().print(Text(f"{one.advice} {label}: {plain(error.message)}", "yellow"), soft_wrap=True)

    def _made(self, group: list[TenantInfo], lines: list[str]) -> None:
        for one in group:
            own = lines if len(group) == 1 else [line for line in lines if line.startswith(f"{one.tenant!r} ")]
            self.made.append({"tenant": one.tenant, "action": one.advice, "done": own})
        if not self._as_json:
            tell(lines, as_json=False)


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
        _refuse_switched(acl, tenant, name)
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


def _refuse_switched(acl: VectorACL, tenant: str, store: str) -> None:
    """Refuse to remove rows that a switch of *tenant* writes, or that calls may still read. Raises: RefusedError."""
    entry = None if acl.routes is None else acl.routes.state().tenants.get(tenant)
    if entry is not None and (entry.to is not None or entry.former == store):
        to, option = (entry.store, "--remove-former") if entry.to is None else (entry.to, "--abort")
        raise RefusedError(
            f"The tenant {tenant!a} was switched or is being switched between stores. Nothing was removed. Run "
            f"`vectoracl tenants switch TENANT --to {to} {option}`.",
            field="tenant",
        )


STAYS = (
    "Its name remains outside the store: in the audit records, in checkpoint files of copies, in backups and snapshots "
    "of the store, and in your configuration if that names it."
)
"""The traces that `tenants remove` does not remove."""
