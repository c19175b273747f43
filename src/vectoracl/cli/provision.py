"""`vectoracl provision`: creates or updates a store, with the owner's credentials."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from vectoracl import hazmat
from vectoracl.cli import shards
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    NOT_MEASURED,
    AllOption,
    ConfigArgument,
    ConfigOption,
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
from vectoracl.cli.operating import (
    Outcomes,
    check_one_or_all,
    heading,
    on_every_store,
    operating,
    operator_of,
    tell,
)
from vectoracl.cli.shards import JournalOption, ShardOption
from vectoracl.client.connect import VectorACL
from vectoracl.errors import InvalidInputError
from vectoracl.sharding import AdoptJob


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
    shard: ShardOption = None,
    journal: JournalOption = None,
    *,
    every: AllOption = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements or requests without running them.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --adopt: do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Create or update the objects of a store (roles, table and policies; collection; index). It can be run again.

    `--sql` prints them for an administrator: a script for PostgreSQL, the requests for other stores. The store is
    contacted to read its present state, and not changed. `--adopt TABLE` imports existing rows: it prints the plan,
    asks, and copies in batches. The import is recorded in the audit; if that is impossible, nothing is copied.

    With --adopt, --shard I/N and --journal DIR several processes or machines divide the documents. The first one checks
    every row; nothing is copied while a row cannot be imported.
    """
    check_one_or_all(store, every=every)
    if shard is not None or journal is not None:
        _shard(
            config_path(config, argument), store, adopt, shard, journal, whole=every or sql, yes=yes, as_json=as_json
        )
    if every:
        if adopt is not None:
            raise InvalidInputError("--adopt imports into one store: pass --store instead of --all.", field="all")
        with opened(config_path(config, argument), contact=False) as acl:
            outcomes = _planned(acl, as_json=as_json) if sql else _provisioned(acl, as_json=as_json)
        done(outcomes.code(CLEAN))
    with operating(config_path(config, argument), store) as (acl, operator):
        if sql or adopt is not None:
            plan = operator.plan(adopt=adopt)
            if adopt is None:
                plan += _registry_plan(acl)
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
                lines += [*_under_registry(acl, store), *_routes(acl)]
            else:
                reason = f"vectoracl provision --adopt {adopt!a}, run by {person()} at the command line"
                lines = hazmat.adopt(acl, adopt, operator=operator, store=store, reason=reason, progress=steps.report)
    tell(lines, as_json=as_json)


def _shard(
    config: Path,
    store: str | None,
    adopt: str | None,
    shard: str | None,
    journal: Path | None,
    *,
    whole: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Run one shard of an import, and end the command."""
    if adopt is None or whole:
        raise InvalidInputError(
            "--shard is only for --adopt TABLE, without --sql and --all: a store is provisioned once.", field="shard"
        )
    kept = shards.journal_for(shard, journal)
    if shard is None or kept is None:
        raise InvalidInputError("Pass --shard I/N with --journal.", field="shard")
    if not yes:
        raise InvalidInputError(
            "A shard asks no question. Read the plan with --sql, then pass --yes to every shard.", field="yes"
        )
    reason = f"vectoracl provision --adopt {adopt!a} --shard {shard}, run by {person()} at the command line"
    with opened(config, store, contact=False) as acl, Steps(quiet=as_json) as steps:
        ran = shards.run(AdoptJob(acl, adopt, reason=reason, store=store), shard, kept, steps.report)
    shards.show(ran, as_json=as_json, verb="copied")


def _under_registry(acl: VectorACL, store: str | None) -> list[str]:
    """Create the registry's tables and bring the store under it, if there is a registry."""
    if acl.registry is None:
        return []
    from vectoracl.client.registry_setup import provision_registry

    return provision_registry(acl, [store or acl.config.default])


def _routes(acl: VectorACL) -> list[str]:
    """Create the folder of the routes, if the configuration names one."""
    if acl.routes is None or not acl.routes.create():
        return []
    return [f"created the routes of tenants in {acl.routes.folder}"]


def _registry_plan(acl: VectorACL) -> str:
    """Return the statements that create the registry's tables, in its own database."""
    if acl.registry is None:
        return ""
    from vectoracl.registry.migrate import script

    return f"\n-- the registry, in its own database\n{script(acl.registry.database)}"


def _planned(acl: VectorACL, *, as_json: bool) -> Outcomes[str]:
    def plan(store: str) -> str:
        with operator_of(acl, store) as operator:
            text = operator.plan().rstrip()
        text += _registry_plan(acl).rstrip()
        if not as_json:
            typer.echo(f"-- store {one_line(store, 60)} ({acl.config.stores[store].adapter})\n{text}\n")
        return text

    outcomes = on_every_store(acl, plan, as_json=as_json)
    if as_json:
        print_json(outcomes.as_json(lambda text: {"sql": text}))
    return outcomes


def _provisioned(acl: VectorACL, *, as_json: bool) -> Outcomes[list[str]]:
    def provisioned(store: str) -> list[str]:
        with operator_of(acl, store) as operator, Steps(quiet=as_json) as steps:
            steps.step(f"provisioning {plain(store)}", 0, None)
            lines = operator.provision(progress=steps.report)
        lines += [*_under_registry(acl, store), *_routes(acl)]
        if not as_json:
            heading(acl, store)
            tell(lines, as_json=False)
        return lines

    outcomes = on_every_store(acl, provisioned, as_json=as_json)
    if as_json:
        print_json(outcomes.as_json(lambda lines: {"done": lines}))
    return outcomes


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
