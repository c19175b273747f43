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
            help="Then copy this existing table, collection or index in; it is read and never changed.",
        ),
    ] = None,
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print what would be run, and run nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --adopt: do not ask after the plan.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create or update what a store needs (roles, table and policies; collection; index). It can be run again.

    `--sql` prints it as text that an administrator can read: of PostgreSQL a script that can be changed and run, of
    other stores their requests. The store is contacted to see what it has, and not changed. `--adopt TABLE` plans,
    prints the plan, asks, and copies in batches; what it copied is recorded in the audit, and nothing is copied where
    that cannot be.
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
        typer.echo(plan.rstrip())  # as it is: no wrapping and no colour, so that it can be piped into psql


def _consent(*, yes: bool, as_json: bool) -> None:
    """Ask whether the plan is to be run; without a person and without --yes, it is not. Raises: RefusedError."""
    if yes:
        return
    if as_json:
        raise unasked("Run this plan (--sql prints it)")
    if not interactive():
        err().print(Text("Nothing was done: pass --yes to run this plan without being asked."), soft_wrap=True)
        done(NOT_MEASURED)
    if not typer.confirm("Run this?", err=True):
        err().print("Nothing was done.")
        done(NOT_MEASURED)
