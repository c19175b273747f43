"""`vectoracl tenants switch`: moves a tenant to another store while its processes run."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    NOT_MEASURED,
    ConfigOption,
    JsonOption,
    Steps,
    confirmed,
    done,
    one_line,
    opened,
    out,
    person,
    plain,
    print_json,
)
from vectoracl.cli.operating import tell
from vectoracl.cli.tenants import TenantArgument
from vectoracl.copying.switch import MOST_STALL, STALL, Planned, Switch, Switched
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.model.identifiers import check_tenant

_STEPS = {
    "new": "copy, catch up, route",
    "begun": "continue the switch that was begun",
    "switched": "nothing: it was switched already",
}


def switch(
    tenant: TenantArgument,
    to: Annotated[str, typer.Option("--to", metavar="STORE", help="The store to move it to, by its name in the file.")],
    config: ConfigOption = DEFAULT_CONFIG,
    stall: Annotated[
        float,
        typer.Option(
            "--stall", metavar="SECONDS", help=f"Hold writes back for at most this long, up to {MOST_STALL:g}."
        ),
    ] = STALL,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, or why it is refused. Writes nothing.")
    ] = False,
    abort: Annotated[
        bool, typer.Option("--abort", help="Give up a switch that was begun, and delete what it copied. Asks first.")
    ] = False,
    remove_former: Annotated[
        bool,
        typer.Option(
            "--remove-former", help="After the switch: delete the rows that the former store holds. Asks first."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Move a tenant to another store while it is read and written: copy, catch up, compare, route.

    It needs `[tenants] routes`, a folder that every process reads. The tenant is served by its store while its rows are
    copied. Then its writes wait, at most --stall seconds, until the last changes are there and both stores are compared
    row by row. If they are the same, every process uses the new store from its next call on. After Ctrl-C or a crash
    the tenant has the one store or the other, and the same command continues.

    The rows in the former store stay, and are not read any more, until --remove-former.

    Exit codes: 0 done; 2 refused, not confirmed, or stopped by an error, and the tenant is served as before.
    """
    check_tenant(tenant)
    if sum((dry_run, abort, remove_former)) > 1:
        raise InvalidInputError("Pass one of --dry-run, --abort and --remove-former.", field="switch")
    reason = f"vectoracl tenants switch, run by {person()} at the command line"
    with opened(config, contact=False) as acl, Steps(quiet=as_json) as steps:
        work = Switch(acl, tenant, to, reason=reason, stall=stall, progress=steps.report)
        if abort or remove_former:
            steps.pause()
            _afterwards(work, tenant, to, abort=abort, yes=yes, as_json=as_json)
            return
        planned = work.plan()
        if planned.step != "switched" and acl.keeps(planned.former) and not acl.keeps(to):
            raise RefusedError(
                f"The store {to!r} is in the memory of this command: the rows would be gone at its end.", field="to"
            )
        result = None if dry_run else work.run()
    if as_json:
        print_json({"plan": _plan_json(planned), "result": None if result is None else _result_json(result)})
    else:
        _show(planned, result)
    done(CLEAN)


def _afterwards(work: Switch, tenant: str, to: str, *, abort: bool, yes: bool, as_json: bool) -> None:
    label = one_line(tenant, 60)
    what = (
        f"Delete what was copied of {label} into {one_line(to, 60)}"
        if abort
        else f"Delete the rows of {label} that its former store holds"
    )
    if not confirmed(what, [tenant], yes=yes, as_json=as_json):
        done(NOT_MEASURED)
    if abort:
        deleted = work.abort()
        lines = [f"gave the switch up; deleted {'the' if deleted is None else f'{deleted:,}'} copied rows"]
    else:
        lines = work.remove_former()
    tell(lines, as_json=as_json)


def _plan_json(planned: Planned) -> dict[str, Any]:
    return {
        "tenant": planned.tenant,
        "from": planned.former,
        "to": planned.to,
        "rows": planned.rows,
        "step": planned.step,
        "notes": [plain(note) for note in planned.notes],
    }


def _result_json(result: Switched) -> dict[str, Any]:
    one = result.comparison
    return {
        "written": result.written,
        "deleted": result.deleted,
        "passes": result.passes,
        "held": round(result.held, 3),
        "rows": None if one is None else one.source_rows,
        "digest": None if one is None else one.source_digest,
    }


def _show(planned: Planned, result: Switched | None) -> None:
    console = out()
    for note in planned.notes:
        console.print(Text.assemble(("note: ", "yellow"), plain(note)), soft_wrap=True)
    label = plain(planned.tenant)
    if result is None:
        rows = "" if planned.rows is None else f" ({planned.rows:,} rows)"
        former = f" from {plain(planned.former)}" if planned.former else ""
        console.print(Text(f"{label}{rows}{former} to {plain(planned.to)}: {_STEPS[planned.step]}"), soft_wrap=True)
        console.print(Text("A dry run: nothing was written.", "dim"))
        return
    if result.comparison is None:
        console.print(Text(f"{label} was switched to {plain(planned.to)} already."), soft_wrap=True)
        return
    console.print(
        Text.assemble(
            ("✓ ", "green"),
            f"{label} is served by {plain(planned.to)} now: {result.comparison.source_rows:,} rows compared, "
            f"{result.written:,} written in {result.passes} passes. Its writes waited for {result.held:.1f} s.",
        ),
        soft_wrap=True,
    )
    command = f"vectoracl tenants switch {one_line(planned.tenant, 60)} --to {one_line(planned.to, 60)} --remove-former"
    console.print(Text(f"The rows in {plain(planned.former)} stay until: {plain(command)}", "dim"), soft_wrap=True)
