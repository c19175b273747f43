"""`vectoracl provision`: creates or updates a store, with the owner's credentials."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from vectoracl import hazmat
from vectoracl.cli.common import (
    DEFAULT_CONFIG,
    NOT_MEASURED,
    ConfigArgument,
    ConfigOption,
    JsonOption,
    OperatedOption,
    Steps,
    config_path,
    done,
    err,
    interactive,
    out,
    person,
    print_json,
    unasked,
)
from vectoracl.cli.operating import operating, tell


def provision(
    argument: ConfigArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    store: OperatedOption = None,
    adopt: Annotated[
        str | None,
        typer.Option(
            "--adopt",
            metavar="TABLE",
            help="Then import this existing table, collection or index; it is only read.",
        ),
    ] = None,
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements or requests without running them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --adopt: do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create or update the objects of a store (roles, table and policies; collection; index). It can be run again.

    `--sql` prints them for an administrator: a script for PostgreSQL, the requests for other stores. The store is
    contacted to read its present state, and not changed. `--adopt TABLE` imports existing rows: it prints the plan,
    asks, and copies in batches. The import is recorded in the audit; if that is impossible, nothing is copied.
    """
    with operating(config_path(config, argument), store) as (acl, operator):
        if sql or adopt is not None:
            plan = operator.plan(adopt=adopt)
            if sql:
                _print_plan(plan, as_json=as_json)
                return
            if not as_json:
                out().print(Text(plan.rstrip()), soft_wrap=True)
            _consent(yes=yes, as_json=as_json)
        with Steps(quiet=as_json) as steps:
            steps.step("provisioning", 0, None)
            if adopt is None:
                lines = operator.provision(progress=steps.report)
            else:
                reason = f"vectoracl provision --adopt {adopt!a}, run by {person()} at the command line"
                lines = hazmat.adopt(acl, adopt, operator=operator, store=store, reason=reason, progress=steps.report)
    tell(lines, as_json=as_json)


def _print_plan(plan: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"sql": plan})
    else:
        typer.echo(plan.rstrip())  # without wrapping and colour, so that it can be piped into psql


def _consent(*, yes: bool, as_json: bool) -> None:
    """Ask whether to run the plan; without a terminal and without --yes, it is not run. Raises: RefusedError."""
    if yes:
        return
    if as_json:
        raise unasked("Run this plan (--sql prints it)")
    if not interactive():
        err().print(Text("Nothing was done: pass --yes to run this plan without a question."), soft_wrap=True)
        done(NOT_MEASURED)
    if not typer.confirm("Run this?", err=True):
        err().print("Nothing was done.")
        done(NOT_MEASURED)
