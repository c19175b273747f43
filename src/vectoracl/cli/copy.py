"""`vectoracl copy`: copies the chunks of tenants, with their tags, from one store to another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from vectoracl.cli import shards
from vectoracl.cli.common import CLEAN, FINDINGS, JsonOption, Steps, done, opened, out, person, plain, print_json
from vectoracl.cli.shards import JournalOption, ShardOption
from vectoracl.copying.checkpoint import Checkpoint
from vectoracl.copying.compare import Comparison
from vectoracl.copying.copy import Copy, Report
from vectoracl.copying.planning import PAGE, Plan, Side
from vectoracl.errors import InvalidInputError, without_context
from vectoracl.sharding import CopyJob

_MOST = 20


def copy(
    source: Annotated[Path, typer.Option("--from", metavar="FILE", help="The configuration to copy from.")],
    target: Annotated[Path, typer.Option("--to", metavar="FILE", help="The configuration to copy to.")],
    from_store: Annotated[
        str | None,
        typer.Option(
            "--from-store",
            metavar="NAME",
            help="Only this store of --from.",
            show_default="all",
        ),
    ] = None,
    to_store: Annotated[str | None, typer.Option("--to-store", metavar="NAME", help="Into this store of --to.")] = None,
    tenant: Annotated[
        list[str] | None, typer.Option("--tenant", metavar="ID", help="Only this tenant; can be repeated.")
    ] = None,
    tenants: Annotated[
        Path | None,
        typer.Option(
            "--tenants",
            metavar="FILE",
            help="A file of tenants, one id per line (- for standard input), if the store cannot list them.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="The file that records the progress of the copy.",
            show_default="next to --to: NAME.toml.copy",
        ),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", help="The maximum number of rows per request.", min=1, max=10_000)
    ] = PAGE,
    shard: ShardOption = None,
    journal: JournalOption = None,
    *,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="First delete the target's rows of the tenants named by --tenant, if they differ."
        ),
    ] = False,
    different_stores: Annotated[
        bool,
        typer.Option(
            "--different-stores",
            help="Copy although both sides seem to be one store, because you know that they are two. It is recorded.",
        ),
    ] = False,
    reembed: Annotated[
        bool,
        typer.Option("--reembed", help="Embed the texts again with the embedder of --to; the dimension may differ."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, or why it is refused. Writes nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Copy the chunks of all tenants with their tags into another store, of the same kind or another.

    Vectors, texts, metadata and tags stay unchanged, so policies mean the same afterwards. If that is impossible, the
    whole copy is refused: another dimension, metric, embedder or metadata declaration; rows of a tenant that exist in
    the target; tenant ids that look alike. The source is only read. With --reembed the embedder of --to embeds the
    texts again; use it to change the embedder.

    After Ctrl-C or a crash, the same command continues where it stopped. At the end both stores are read and compared
    row by row. Reads and writes bypass the policy, and are recorded so in the audit of both configurations.

    With --shard I/N and --journal DIR, several processes or machines divide the rows by tenants and key ranges. A shard
    that is repeated writes only what is missing; the last one prints the sum.

    Exit codes: 0 copied and the same (with --dry-run: it could be copied), 1 copied and something differs, 2 refused,
    or stopped by an error.
    """
    chosen = _chosen(tenant, tenants)
    shards.refuse(shard, overwrite=overwrite, checkpoint=checkpoint, dry_run=dry_run)
    kept = shards.journal_for(shard, journal)
    if overwrite and not tenant:
        raise InvalidInputError(
            "--overwrite deletes rows, so it requires each tenant by name: --tenant ID.", field="tenant"
        )
    if source.resolve() == target.resolve() and from_store == to_store:
        raise InvalidInputError(
            "--from and --to are the same store. To copy between two stores of one file, pass --from-store and "
            "--to-store.",
            field="to",
        )
    reason = f"vectoracl copy, run by {person()} at the command line"
    if shard is not None and kept is not None:
        with (
            opened(source, from_store, contact=False) as one,
            opened(target, to_store, contact=False) as other,
            Steps(quiet=as_json) as steps,
        ):
            job = CopyJob(
                Side(one, from_store),
                Side(other, to_store),
                reason=reason,
                tenants=chosen,
                named=bool(tenant),
                batch=batch,
                different_stores=different_stores,
                reembed=reembed,
            )
            ran = shards.run(job, shard, kept, steps.report)
        shards.show(ran, as_json=as_json)
    path = target.with_name(target.name + ".copy") if checkpoint is None else checkpoint
    parts = [str(source.resolve()), str(target.resolve()), from_store or "", to_store or ""]
    progress_file = Checkpoint(path, [*parts, "reembed"] if reembed else parts)
    with (
        opened(source, from_store, contact=False) as one,
        opened(target, to_store, contact=False) as other,
        Steps(quiet=as_json) as steps,
    ):
        work = Copy(
            Side(one, from_store),
            Side(other, to_store),
            reason=reason,
            checkpoint=progress_file,
            progress=steps.report,
            batch=batch,
            different_stores=different_stores,
            reembed=reembed,
        )
        steps.step("planning", 0, None)
        plan = work.plan(chosen, named=bool(tenant), overwrite=overwrite)
        steps.step("planning", 1, 1)
        report = None if dry_run else work.run(plan)
    if as_json:
        print_json({"plan": _plan_json(plan), "result": None if report is None else _report_json(report)})
    else:
        _show(plan, report)
    done(FINDINGS if report is not None and report.different else CLEAN)


@without_context
def _chosen(named: list[str] | None, listed: Path | None) -> list[str] | None:
    """Return the tenants that were given, None for all. Raises: InvalidInputError."""
    if named and listed is not None:
        raise InvalidInputError("Pass --tenant or --tenants, not both.", field="tenants")
    if listed is None:
        return named or None
    try:
        text = sys.stdin.read() if str(listed) == "-" else listed.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InvalidInputError(f"The file {listed} of --tenants cannot be read as UTF-8.", field="tenants") from None
    return [line for line in text.splitlines() if line]


def _plan_json(plan: Plan) -> dict[str, Any]:
    moves = [
        {
            "tenant": one.tenant,
            "from": one.source.store.name,
            "to": one.target.store.name,
            "rows": one.rows,
            "state": one.state,
        }
        for one in plan.moves
    ]
    return {"tenants": moves, "notes": list(plan.notes)}


def _report_json(report: Report) -> dict[str, Any]:
    tenants = [
        {
            "tenant": one.tenant,
            "same": one.same,
            "source_rows": one.source_rows,
            "target_rows": one.target_rows,
            "missing": one.missing,
            "extra": one.extra,
            "different": one.different,
            "vector_difference": one.vector_difference,
            "source_digest": one.source_digest,
            "target_digest": one.target_digest,
            "examples": [plain(line) for line in one.examples],
        }
        for one in report.tenants
    ]
    return {"written": report.written, "seconds": round(report.seconds, 3), "tenants": tenants}


_TODO = {
    "copy": ("copy", "bold"),
    "overwrite": ("delete existing rows, copy", "bold red"),
    "resume": ("continue from the checkpoint", "bold"),
    "verify": ("copied; compare", "dim"),
    "there": ("exists, identical", "green"),
}


def _show(plan: Plan, report: Report | None) -> None:
    console = out()
    for note in plan.notes:
        console.print(Text.assemble(("note: ", "yellow"), plain(note)), soft_wrap=True)
    if not plan.moves:
        console.print("The source has no tenants: there is nothing to copy.")
        return
    if report is None:
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("tenant", overflow="fold")
        for name, justify in (("rows", "right"), ("from", "left"), ("to", "left"), ("plan", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]  # the two words above
        for one in plan.moves[:_MOST]:
            size = "?" if one.rows is None else f"{one.rows:,}"
            what, style = _TODO[one.state]
            table.add_row(
                Text(plain(one.tenant), "bold"),
                size,
                plain(one.source.store.name),
                plain(one.target.store.name),
                Text(what, style),
            )
        console.print(table)
        if len(plan.moves) > _MOST:
            console.print(Text(f"… and {len(plan.moves) - _MOST:,} more tenants (all of them with --json)", "dim"))
        console.print(Text("A dry run: nothing was written.", "dim"))
        return
    for wrong in report.different[:_MOST]:
        console.print(_differs(wrong), soft_wrap=True)
    rows = sum(one.target_rows for one in report.tenants)
    count = len(report.tenants) - len(report.different)
    largest = max((one.vector_difference for one in report.tenants), default=0.0)
    text = Text.assemble(
        ("✓ " if not report.different else "✗ ", "green" if not report.different else "bold red"),
        f"{report.written:,} chunks written in {report.seconds:.1f} s. Compared: {rows:,} rows, "
        f"{count:,} of {len(report.tenants):,} tenants the same (vectors within {largest:.1g}).",
    )
    console.print(text, soft_wrap=True)
    if report.different:
        console.print(
            Text(
                "Rows that were written during the copy differ: stop the writers, then copy these tenants again with "
                "--tenant ID --overwrite.",
                "dim",
            ),
            soft_wrap=True,
        )


def _differs(one: Comparison) -> Text:
    text = Text.assemble((plain(one.tenant), "bold red"))
    text.append(
        f": {one.source_rows:,} rows in the source, {one.target_rows:,} in the target; {one.missing:,} missing, "
        f"{one.extra:,} extra, {one.different:,} different"
    )
    for line in one.examples:
        text.append(f"\n  {plain(line)}", "dim")
    return text
