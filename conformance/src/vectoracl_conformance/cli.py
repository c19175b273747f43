"""The command `vectoracl conformance NAME | module:harness`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from vectoracl._util.private_files import try_output
from vectoracl_conformance.context.corpus import DECOYS
from vectoracl_conformance.isolated.clean_python import become, is_clean
from vectoracl_conformance.reporting.report import begin, print_table, write_html, write_json, write_junit
from vectoracl_conformance.running.runner import TIMEOUT, Ask, run
from vectoracl_conformance.running.soak import soak
from vectoracl_conformance.verdict import EXCUSABLE, REQUIRED

SILENT = 5.0  # seconds


def _listed(values: list[str] | None) -> list[str]:
    return [one.strip() for value in values or [] for one in value.split(",") if one.strip()]


def _refuse(aside: Console, text: str) -> NoReturn:
    aside.print(text, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(2)


def _names(ids: Iterable[str]) -> str:
    return " and ".join(sorted(ids)) or "no check"


def conformance(
    name: Annotated[str, typer.Argument(metavar="NAME | MODULE:HARNESS", help="An installed adapter, or a harness.")],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="ID", help="Run only these checks (W3, or R1,R2); the exit code is then 1 or 2."
        ),
    ] = None,
    decoys: Annotated[
        int,
        typer.Option(
            "--decoys", min=50, max=100_000, help="Number of foreign chunks that are nearer than each owned one."
        ),
    ] = DECOYS,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Repeat the run with this seed.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the store, and print its address.")] = False,  # noqa: FBT002
    known: Annotated[
        list[str] | None,
        typer.Option(
            "--known",
            metavar="ID=WHY",
            help="Declare a known deviation, with its reason, of a provisional check of versions (R17, W12).",
        ),
    ] = None,
    mutants: Annotated[  # noqa: FBT002
        bool, typer.Option("--mutants", help="Also run every deliberately broken adapter, against its own check first.")
    ] = False,
    matrix: Annotated[  # noqa: FBT002
        bool, typer.Option("--matrix", help="Also run every check against every broken adapter (minutes).")
    ] = False,
    timing: Annotated[  # noqa: FBT002
        bool, typer.Option("--timing", help="Also time a search next to 500 and 20,000 foreign rows; only reported.")
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", min=0, help="Number of broken adapters to run in parallel; 0: one per processor, at most 4."
        ),
    ] = 0,
    mutant: Annotated[
        list[str] | None,
        typer.Option("--mutant", metavar="NAME", help="Run only this mutant, or those of a check (by its id)."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=10, metavar="SECONDS", help="Time limit without any output; each check has a fifth of it."
        ),
    ] = TIMEOUT,
    python: Annotated[
        str,
        typer.Option(
            "--python",
            metavar="PATH",
            help="The interpreter for X6, ideally of an environment without the kit.",
        ),
    ] = "",
    quick: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--quick",
            help="Run the named checks alone, on memory half a minute: no generated calls (C1 to C4) and no X6. "
            "Certifies nothing: the exit code is never 0.",
        ),
    ] = False,
    hours: Annotated[
        float,
        typer.Option("--hours", min=0, metavar="N", help="Then repeat the generated calls with new seeds for N hours."),
    ] = 0.0,
    json_path: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the report as JUnit XML.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one self-contained page.")
    ] = None,
) -> None:
    """Certify an adapter: run attacks against it, and report the evidence that it withstood them.

    The report (--json) is the certificate. Exit codes: 0 conformant, 1 not conformant, 2 not measured, or not
    completely, 3 nothing failed and nothing is certified (--quick).
    """
    console, aside = Console(highlight=False), Console(stderr=True, highlight=False)
    chosen = _listed(only)
    unknown = [one for one in chosen if one not in REQUIRED]
    pairs = {one.partition("=")[0].strip(): one.partition("=")[2].strip() for one in known or []}
    unknown += [one for one in pairs if one not in REQUIRED]
    if unknown:
        _refuse(aside, f"There is no check {', '.join(unknown)}. The checks are {', '.join(REQUIRED)}.")
    for id_, why in pairs.items():
        if id_ not in EXCUSABLE:
            _refuse(aside, f"--known {id_} is refused: a deviation can be declared for {_names(EXCUSABLE)} only. {id_} "
                    "has to pass. Leave the option out to see the failure and how to reproduce it.")  # fmt: skip
        if not why:
            _refuse(aside, f'--known {id_} has no reason. Write --known {id_}="why it deviates".')
    ask = Ask(
        name,
        chosen,
        decoys,
        seed,
        keep,
        pairs,
        "matrix" if matrix else "quick" if mutants or mutant else "",
        jobs,
        _listed(mutant),
        timeout,
        timing=timing,
        python=python,
        quick=quick,
        path=_PATH,
    )
    if quick and (chosen or hours or mutants or matrix or mutant or timing):
        _refuse(aside, "--quick runs one fixed part of the kit. Leave it out to use the other options.")
    if hours and chosen:
        _refuse(aside, "--hours follows a complete run. Leave --only out, or --hours.")
    outputs = [
        (path, write)
        for path, write in ((json_path, write_json), (junit, write_junit), (html, write_html))
        if path is not None
    ]

    for path, write in outputs:
        try:
            try_output(path)
            if path.is_file():
                begin(ask, path, write)
        except OSError as error:
            _refuse(aside, f"The report {path} cannot be written, so nothing was run: {error.strerror}.")

    printed_at = [-SILENT]  # a pipe gets the first check, and then one every few seconds

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "mutant":
            killed_by = " ".join(event["killed_by"])
            result = f"killed by {killed_by}" if killed_by else "survived"
            aside.print(f"mutant {event['done']} of {event['total']}, {event['name']}: {result}", style="dim")
        elif event["event"] == "note" and event["outcome"] not in ("passed", "unsupported, verified"):
            why = " ".join(str(event.get("reason", "")).split())[:300]  # at once: the run may take minutes more
            aside.print(f"{event['id']} {event['mode']}: {event['outcome']}: {why}", markup=False, soft_wrap=True)
        elif event["event"] == "note" and (aside.is_terminal or time.monotonic() >= printed_at[0] + SILENT):
            printed_at[0] = time.monotonic()
            aside.print(f"{event['id']} {event['mode']}: {event['outcome']}", style="dim")
        elif event["event"] == "progress" and time.monotonic() >= printed_at[0] + SILENT:
            printed_at[0] = time.monotonic()
            aside.print(event["text"], style="dim", markup=False)
        elif event["event"] == "soak":
            aside.print(f"repetition {event['runs']}, seed {event['seed']}: {len(event['failures']) or 'none'} failed; "
                        f"{event['left']:.2f} hours left", style="dim")  # fmt: skip
        elif event["event"] == "kept":
            aside.print(f"The store is kept on {event['on']}:", *(f"  {k} = {v!r}" for k, v in event["config"].items()),
                        sep="\n", markup=False, soft_wrap=True)  # fmt: skip
            if sys.stdin.isatty() and aside.is_terminal:
                aside.input("Press Enter to continue. A server that was started for this run is then stopped. ")

    try:
        report = run(ask, watch)
    except KeyboardInterrupt:
        aside.print("Stopped; nothing was measured.", style="yellow")
        raise typer.Exit(130) from None
    if hours:
        report = soak(report, hours, watch)
    print_table(report, console)
    for path, write in outputs:
        write(report, path)
        if path == json_path and path.is_file():
            aside.print(f"{path}: sha256 {sha256(path.read_bytes()).hexdigest()}", style="dim", soft_wrap=True)
    raise typer.Exit(report.exit_code)


def register(app: typer.Typer, **given: Any) -> None:
    """Add the command to *app*."""
    app.command("conformance", **given)(conformance)


app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)
app.command("conformance")(conformance)
_PATH: list[str] = []
"""Where the harness is imported from, in the adapter's processes, besides what is installed."""


def start(words: Sequence[str]) -> None:
    """Run the command with *words* as its arguments, in this process or, if this is a program of ours, instead of it.

    The verdict, the report and the exit code come from an interpreter that neither the environment's variables nor the
    files of an installed distribution have changed.
    """
    program = sys.argv[1:] in ([*words], ["conformance", *words])
    if program and not is_clean():
        become(__name__, [str(Path(one).resolve()) for one in sys.path], words=words)
    app([*words], prog_name="vectoracl conformance")


def main(path: Sequence[str] = ()) -> None:
    """Run the command without `vectoracl`; *path* are folders from which the harness can be imported."""
    _PATH.extend(path)
    start(sys.argv[1:])


if __name__ == "__main__":
    # A module that is run has another name, under which it could not be imported again.
    from vectoracl_conformance.cli import main as run_command

    run_command()
