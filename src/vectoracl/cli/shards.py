"""`--shard I/N` of the long commands: one shard of a job. All shards share a folder with the plan and the results."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.text import Text

from vectoracl.adapter_api.contract import Progress
from vectoracl.cli.common import CLEAN, FINDINGS, counted, done, out, plain, print_json
from vectoracl.errors import InvalidInputError
from vectoracl.sharding import Journal, Plan, Result, Total
from vectoracl.sharding.job import Job

T = TypeVar("T")
_SHOWN = 10
_KEPT = (
    "This shard was finished by an earlier run: its result was kept in the journal and nothing was done now. To do the "
    "job again, pass another --journal."
)

ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do only the I-th of N shards of the work, for several processes or machines. Run all of them, in any "
        "order and with the same options; a shard can be repeated.",
    ),
]
JournalOption = Annotated[
    Path | None,
    typer.Option(
        "--journal",
        metavar="DIR",
        help="With --shard: the folder that keeps the plan and the results, the same one for all shards. The first "
        "shard makes the plan.",
    ),
]


@dataclass(frozen=True, slots=True)
class Which:
    """One shard: its number from 1, and how many there are."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def which(given: str) -> Which:
    """Parse `I/N`. Raises: InvalidInputError."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", given, re.ASCII)
    shard = Which(*map(int, match.groups())) if match else Which(0, 0)
    if not 1 <= shard.number <= shard.of:
        raise InvalidInputError(
            f"--shard takes I/N, the number of a shard and how many there are, such as 1/8; got {plain(given)[:40]!r}.",
            field="shard",
        )
    return shard


def journal_for(shard: str | None, journal: Path | None) -> Journal | None:
    """Return the journal of --journal; None without --shard. Raises: InvalidInputError, ConfigError."""
    if shard is None:
        if journal is not None:
            raise InvalidInputError("--journal is only for --shard I/N.", field="journal")
        return None
    which(shard)
    if journal is None:
        raise InvalidInputError(
            "Pass --journal DIR with --shard: a folder that all shards of this job can write to, and no other job.",
            field="journal",
        )
    return Journal(journal)


def refuse(shard: str | None, **given: object) -> None:
    """Refuse options, by their names, that a shard cannot have. Raises: InvalidInputError."""
    for name, value in given.items():
        if shard is not None and value:
            raise InvalidInputError(
                f"--{name.replace('_', '-')} acts on the whole: run the command without --shard for it.", field=name
            )


@dataclass(frozen=True, slots=True)
class Ran:
    """One shard that was run, and the sum of all if it was the last one."""

    which: Which
    plan: Plan
    result: Result
    left: tuple[str, ...]
    total: Total | None

    @property
    def code(self) -> int:
        """The exit code."""
        good = self.result.good and (self.total is None or self.total.good)
        return CLEAN if good else FINDINGS


def run(job: Job, shard: str, journal: Journal, progress: Progress) -> Ran:
    """Plan *job*, unless *journal* holds the plan; run *shard*, and add up the results if none is missing."""
    one = which(shard)
    plan = job.plan_shards(one.of, journal=journal, progress=progress)
    result = Result.parse(job.run_shard(plan.shards[one.number - 1], journal=journal, progress=progress))
    results = journal.results()
    finished = {each.index for each in results}
    left = tuple(each.name for each in plan.parts if each.index not in finished)
    return Ran(one, plan, result, left, None if left else job.finish(plan, results))


def show(ran: Ran, *, as_json: bool, verb: str = "written") -> None:
    """Print what a shard did, and end the command."""
    if as_json:
        print_json(_json(ran))
        done(ran.code)
    console = out()
    for note in ran.plan.notes:
        console.print(Text.assemble(("note: ", "yellow"), plain(note)), soft_wrap=True)
    result = ran.result
    counts = f"{result.written:,} rows {verb}" + (f", {result.changed:,} brought up to date" if result.changed else "")
    what = f"{result.present:,} rows read" if result.job == "check" else f"{counts}, {result.present:,} were there"
    console.print(Text(f"Shard {ran.which} of the plan {ran.plan.digest[:8]}: {what}."), soft_wrap=True)
    if result.kept:
        console.print(Text(_KEPT, "yellow"), soft_wrap=True)
    show_faults(result.census if ran.total is None else ran.total.census)
    if ran.total is None:
        more = f" and {len(ran.left) - _SHOWN:,} more" if len(ran.left) > _SHOWN else ""
        console.print(Text(f"Not finished yet: {', '.join(ran.left[:_SHOWN])}{more}. Run these shards too.", "dim"))
    else:
        show_total(ran.total)
    done(ran.code)


def show_total(total: Total) -> None:
    """Print the sum of all shards."""
    console = out()
    good = sum(one.good for one in total.census)
    rows = f"{total.rows:,} rows compared" if total.job != "check" else f"{total.rows:,} rows checked"
    text = f"All of {counted(total.shards, 'shard')}: {rows}, {good:,} of {counted(len(total.census), 'tenant')} good."
    mark = ("✓ ", "green") if total.good else ("✗ ", "bold red")
    console.print(Text.assemble(mark, text), soft_wrap=True)
    for note in total.notes:
        console.print(Text(plain(note), "dim"), soft_wrap=True)


def show_faults(census: Any) -> None:
    """Print the tenants with differences or faults."""
    console = out()
    for one in [each for each in census if not each.good][:_SHOWN]:
        console.print(Text.assemble((plain(one.tenant), "bold red"), f" in the store {plain(one.store)}:"))
        for reason, count in one.faults.items():
            console.print(Text(f"  {count:,} rows: {plain(reason)}"), soft_wrap=True)
        if one.comparison is not None:
            parts = ", ".join(f"{getattr(one.comparison, name):,} {name}" for name in ("missing", "extra", "different"))
            console.print(Text(f"  {parts}"), soft_wrap=True)
        examples = one.examples or (() if one.comparison is None else one.comparison.examples)
        for line in examples:
            console.print(Text(f"    {plain(line)}", "dim"), soft_wrap=True)


def _json(ran: Ran) -> dict[str, Any]:
    result = ran.result.data()
    return {
        "shard": str(ran.which),
        "plan": ran.plan.digest,
        "notes": [plain(note) for note in ran.plan.notes],
        "written": result["written"],
        "present": result["present"],
        "changed": result["changed"],
        "kept": result["kept"],
        "census": clean(result["census"]),
        "left": list(ran.left),
        "total": None if ran.total is None else total_json(ran.total),
    }


def total_json(total: Total) -> dict[str, Any]:
    """Return the sum of all shards as it is printed with --json."""
    data = total.data()
    return {
        "good": total.good,
        "rows": total.rows,
        **{name: data[name] for name in ("shards", "written", "present", "changed", "notes")},
        "census": clean(data["census"]),
    }


def clean(data: Any) -> Any:
    """Return *data* with every text as `plain` shows it."""
    if isinstance(data, str):
        return plain(data)
    if isinstance(data, list):
        return [clean(one) for one in data]
    if isinstance(data, dict):
        return {plain(name): clean(one) for name, one in data.items()}
    return data
