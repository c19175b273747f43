"""`vectoracl check`: the actual isolation of a store, and the statements that fix deviations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from vectoracl.adapter_api.loading import load
from vectoracl.adapter_api.posture import CORE_RULES, PREFIXES, Posture, Rule
from vectoracl.cli import posture_report
from vectoracl.cli.check_data import check_data
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    FINDINGS,
    AllOption,
    ConfigArgument,
    ConfigOption,
    JsonOption,
    colored,
    config_path,
    done,
    opened,
    out,
    plain,
    print_json,
)
from vectoracl.cli.operating import Outcomes, check_one_or_all, on_every_store
from vectoracl.cli.posture_report import Report
from vectoracl.cli.shards import JournalOption, ShardOption
from vectoracl.errors import InvalidInputError, RefusedError, VectorACLError

_WIDEST = 110
DEFAULT_ADAPTER = "pgvector"


class Level(StrEnum):
    """The lowest severity of a finding that makes the exit code 1."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Format(StrEnum):
    """The output format of findings."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    SQL = "sql"


def check(
    argument: ConfigArgument = None,
    config: ConfigOption = DEFAULT_CONFIG,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="NAME", help="Check only this store.", show_default="all stores, as --all"),
    ] = None,
    dsn: Annotated[
        str | None,
        typer.Option(
            "--dsn",
            metavar="DSN",
            envvar="VECTORACL_CHECK_DSN",
            show_envvar=True,
            help="Check this database instead, even if vectoracl did not create it. Other users of the machine can see "
            "a command's arguments: prefer the environment variable.",
        ),
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", metavar="SCHEMA.TABLE", help="With --dsn: check only this table.")
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            "--role",
            metavar="ROLE",
            help="With --dsn: check this role, if the application does not connect as the role of the dsn.",
        ),
    ] = None,
    tenant_column: Annotated[
        str | None,
        typer.Option(
            "--tenant-column",
            metavar="NAME",
            help="With --dsn: the column with the tenant of a row, or column->>key of a JSON column. Without it the "
            "column is guessed, and since a guess proves nothing, the grade is none.",
        ),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            "--adapter",
            metavar="NAME",
            help="With --dsn or --explain: the adapter whose rules apply.",
            show_default="pgvector, or by ID",
        ),
    ] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="Explain one rule, e.g. PG001.")
    ] = None,
    fail_on: Annotated[
        Level | None,
        typer.Option(
            "--fail-on",
            help="The exit code is 1 from this severity on. Notes describe intended behaviour.",
            show_default="warning",
        ),
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="The output: json like --json, sarif for code scanners, sql as a script.")
    ] = Format.TEXT,
    shard: ShardOption = None,
    journal: JournalOption = None,
    *,
    data: Annotated[
        bool,
        typer.Option(
            "--data",
            help="Read every row instead, and report those that the store would not take today. It reads all tenants "
            "past the policy, and is recorded so.",
        ),
    ] = False,
    every: AllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read the actual configuration of a store, and print the statement that fixes each finding.

    It reads catalogues and settings as the role that serves; it reads no rows and changes nothing. With --dsn it checks
    every table with a vector column of a database that vectoracl did not create. With --data it reads the rows instead,
    as the operator; with --shard and --journal several processes divide them.

    --format sql prints one script per table, in an order that can be run, and lists what it cannot fix.

    Exit codes: 0 nothing to fix, 1 findings (see --fail-on), 2 could not be measured.
    """
    if as_json and form not in (Format.TEXT, Format.JSON):
        raise InvalidInputError(f"Pass --json or --format {form.value}, not both.", field="format")
    form = Format.JSON if as_json else form
    if data:
        _check_for_data(dsn, table, role, tenant_column, adapter, explain, fail_on, form=form)
        check_one_or_all(store, every=every)
        check_data(config_path(config, argument), store, shard=shard, journal=journal, as_json=form is Format.JSON)
    refuse_shards(shard, journal)
    if explain is not None:
        _explain(explain, adapter or DEFAULT_ADAPTER, form)
        return
    if adapter is not None and dsn is None:
        raise InvalidInputError(
            "--adapter is only for --dsn or --explain; a configuration names its own adapter.", field="adapter"
        )
    if dsn is None and (table, role, tenant_column) != (None, None, None):
        raise InvalidInputError(
            "--table, --role and --tenant-column are only for --dsn; a configuration has its own.", field="dsn"
        )
    check_one_or_all(store, every=every)
    if dsn is not None and (argument is not None or config != DEFAULT_CONFIG or store is not None or every):
        raise InvalidInputError(
            "Give either a configuration with its --store or --all, or --dsn (VECTORACL_CHECK_DSN), not both.",
            field="dsn",
        )
    if dsn is not None:
        adapter = adapter or DEFAULT_ADAPTER
        hooks = load(adapter)
        postures: Mapping[str, Posture] | None = hooks.vectoracl_inspect(
            dsn=dsn, table=table, role=role, tenant_column=tenant_column
        )
        if postures is None:
            raise RefusedError(f"The adapter {adapter!r} can only check configured stores.", field="dsn")
        outcomes = Outcomes(postures)
        rules = _rules(adapter)
    else:
        outcomes, rules = _configured(config_path(config, argument), store, every=every, quiet=form is Format.JSON)
    _print(outcomes, rules, form)
    levels = list(Level)
    counted = {level.value for level in levels[: levels.index(fail_on or Level.WARNING) + 1]}
    findings = [finding for posture in outcomes.results.values() for finding in posture.findings]
    done(outcomes.code(FINDINGS if any(finding.rule.severity in counted for finding in findings) else CLEAN))


def _check_for_data(*others: object, form: Format) -> None:
    """Raises: InvalidInputError for options that --data cannot have."""
    if any(one is not None for one in others) or form not in (Format.TEXT, Format.JSON):
        raise InvalidInputError(
            "--data reads the rows of configured stores: pass it with --store or --all, --shard and --json only.",
            field="data",
        )


def refuse_shards(shard: str | None, journal: Path | None) -> None:
    """Raises: InvalidInputError for options of --data without it."""
    if shard is not None or journal is not None:
        raise InvalidInputError("--shard and --journal are only for --data.", field="shard")


def _configured(config: Path, store: str | None, *, every: bool, quiet: bool) -> tuple[Outcomes[Posture], list[Rule]]:
    """Check *store*, or all stores if it is None. Raises: the error of the store, if only one is to be checked."""
    with opened(config, store, contact=False) as acl:
        names = list(acl.config.stores) if store is None else [store]
        if len(names) > 1 or every:
            outcomes = on_every_store(acl, acl.check_store, as_json=quiet)
        else:
            outcomes = Outcomes({name: acl.check_store(name) for name in names})
        adapters = {acl.config.stores[name].adapter for name in outcomes.results}
    return outcomes, [rule for name in sorted(adapters) for rule in _rules(name)]


def _rules(adapter: str) -> list[Rule]:
    return [*CORE_RULES.values(), *(load(adapter).vectoracl_rules() or ())]


def _explain(identifier: str, adapter: str, form: Format) -> None:
    owner = PREFIXES.get(identifier.strip().upper()[:2])
    adapter = owner if owner is not None and owner != "vectoracl" else adapter
    rules = {rule.id: rule for rule in _rules(adapter)}
    rule = rules.get(identifier.strip().upper())
    if rule is None:
        known = ", ".join(sorted(rules)) or "none"
        raise InvalidInputError(
            f"The adapter {adapter!r} has no rule {identifier!r}. Its rules: {known}.", field="explain"
        )
    if form is Format.TEXT:
        console = out()
        text = posture_report.render_rule(rule, width=min(console.width, _WIDEST), color=colored(console))
        typer.echo(text, nl=False)
        return
    print_json(
        {
            "rule": rule.id,
            "title": rule.title,
            "severity": rule.severity,
            "lowers": rule.lowers,
            "explanation": rule.explanation,
            "page": rule.page,
        }
    )


def _print(outcomes: Outcomes[Posture], rules: list[Rule], form: Format) -> None:
    report = posture_report.Report.of(outcomes.results)
    match form:
        case Format.TEXT if outcomes.results:
            console = out()
            width = min(console.width, _WIDEST)
            typer.echo(posture_report.render_report(report, width=width, color=colored(console)), nl=False)
        case Format.JSON:
            print_json(_json(report, outcomes))
        case Format.SARIF:
            print_json(_sarif(report, rules, outcomes))
        case Format.TEXT:
            pass  # the errors are printed already
        case Format.SQL:
            text = posture_report.render_script(report)
            if not text and report.count:
                raise RefusedError("These stores cannot be changed by SQL; omit --format sql.", field="format")
            typer.echo(text, nl=False)


def _json(report: Report, outcomes: Outcomes[Posture]) -> dict[str, Any]:
    def own(posture: Posture) -> object:
        return json.loads(posture_report.render_json(posture))

    names = {name: replace(posture, findings=report.own[name]) for name, posture in report.postures.items()}
    common = [
        {**posture_report.json_finding(finding), "stores": [plain(name) for name in names]}
        for finding, names in report.common
    ]
    return {
        "summary": posture_report.json_summary(report),
        "everywhere": common,
        **Outcomes({**outcomes.by_store, **names}).as_json(own),
        "findings": report.count,
    }


def _sarif(report: Report, rules: list[Rule], outcomes: Outcomes[Posture]) -> dict[str, Any]:
    """Return one log with a run for each store; a finding of several stores is in the run of the first one.

    The run of a store that failed has no results and reports the failure of its execution.
    """
    logs = []
    for name, posture in outcomes.by_store.items():
        if isinstance(posture, VectorACLError):
            logs.append(_failed_run(name, posture, rules))
            continue
        shared = tuple(finding for finding, names in report.common if names[0] == name)
        own = replace(posture, findings=(*shared, *report.own[name]))
        logs.append(json.loads(posture_report.render_sarif(own, version=version("vectoracl"), rules=rules)))
    return {**logs[0], "runs": [run for log in logs for run in log["runs"]]}


def _failed_run(store: str, error: VectorACLError, rules: list[Rule]) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(
        posture_report.render_sarif(Posture("none", ()), version=version("vectoracl"), rules=rules)
    )
    text = f"The store {plain(store)} could not be checked: {plain(error)}"
    notification = {"level": "error", "message": {"text": text}}
    log["runs"][0]["invocations"] = [{"executionSuccessful": False, "toolExecutionNotifications": [notification]}]
    return log
