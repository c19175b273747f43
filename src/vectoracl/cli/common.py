"""Shared parts of the commands: options, output for people and scripts, errors on one line, exit codes."""

from __future__ import annotations

import functools
import getpass
import os
import re
import shlex
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from vectoracl import hazmat
from vectoracl.adapter_api.contract import Progress as Report
from vectoracl.client.connect import VectorACL
from vectoracl.config import DEFAULT_PATH
from vectoracl.errors import (
    DeniedError,
    InvalidInputError,
    RefusedError,
    ScopeViolationError,
    StoreError,
    VectorACLError,
)
from vectoracl.model.principal import Principal

CLEAN = 0
FINDINGS = 1
NOT_MEASURED = 2
INTERRUPTED = 130
_LISTED = 20

EXIT_CODES = (
    "[dim]Exit codes: 0 clean, 1 findings, 2 not done or not measured (wrong input, no server), 130 interrupted.[/dim]"
)

ConfigOption = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration to use.", show_default=f"./{DEFAULT_PATH}"),
]
ConfigArgument = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help=f"The configuration; the same as -c. (default: ./{DEFAULT_PATH})"),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="NAME",
        help="The store of a tenant that the configuration does not route to a store.",
        show_default="the default store",
    ),
]
OperatedOption = Annotated[
    str | None,
    typer.Option("--store", metavar="NAME", help="The store to operate.", show_default="the configuration's default"),
]
AllOption = Annotated[
    bool,
    typer.Option(
        "--all",
        help="Act on every store of the configuration, one after another. A store that fails is reported and does not "
        "stop the others; the exit code is that of the worst.",
    ),
]
HomeOption = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="NAME", help="The store to act in.", show_default="where the configuration puts the tenant"
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print one JSON object on standard output, also for an error, and no progress. Usage errors (an unknown "
        "option, a missing argument) are printed as text on standard error.",
    ),
]
AsOption = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="ID@TENANT",
        help="The principal to act as; the tenant follows the last @. You hold the store's credentials anyway; the "
        "audit record shows that an operator at the command line acted.",
    ),
]
PipelineOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        metavar="NAME",
        help="The pipeline in whose name it is done; required if the configuration lists those that may write.",
        show_default=False,
    ),
]
DEFAULT_CONFIG = Path(DEFAULT_PATH)

P = ParamSpec("P")


def out() -> Console:
    """Return the console of standard output: colour only on a terminal, no markup and no highlighting in values."""
    return Console(highlight=False, soft_wrap=False)


def err() -> Console:
    """Return the console of standard error."""
    return Console(stderr=True, highlight=False)


def colored(console: Console) -> bool:
    """Return whether *console* shows colour: it is a terminal, and NO_COLOR is not set."""
    return console.color_system is not None and not console.no_color


def plain(text: object) -> str:
    """Return *text* without characters that control a terminal: stored text is not trusted.

    Control, format and surrogate characters, which can form escape sequences or reverse the reading order, become "�".
    """
    value = str(text)
    if value.isascii() and value.isprintable():
        return value
    return "".join(
        char if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else "\ufffd"
        for char in value.replace("\t", " ").replace("\r\n", "\n")
    )


def one_line(text: object, width: int) -> str:
    """Return *text* on one line of at most *width* characters."""
    flat = " ".join(plain(text).split())
    return flat if len(flat) <= width else flat[: max(0, width - 1)].rstrip() + "…"


def print_json(data: object) -> None:
    """Print *data* as JSON on standard output, in UTF-8 whatever the locale."""
    typer.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2, default=str))


def program() -> str:
    """Return how this command line was called, so that printed commands can be run unchanged."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "vectoracl":
        return f"{Path(sys.executable).name} -m vectoracl"
    if called.name != "vectoracl":  # tests and wrappers
        return "vectoracl"
    if "UV_RUN_RECURSION_DEPTH" in os.environ:  # `uv run` puts the environment on the path for its child only
        return f"{_uv()} run vectoracl"
    path = shutil.which("vectoracl")
    return "vectoracl" if path and Path(path).resolve() == called.resolve() else shlex.quote(str(called))


def _uv() -> str:
    """Return how uv was called: from the variable UV, since uv may not be on the path."""
    uv = Path(os.environ.get("UV", "uv"))
    if shutil.which("uv") is not None and Path(str(shutil.which("uv"))).resolve() == uv.resolve():
        return "uv"
    if not uv.is_absolute():
        return "uv"
    return shlex.quote(str(uv.relative_to(Path.cwd()) if uv.is_relative_to(Path.cwd()) else uv))


def command_line(*parts: str, config: Path = DEFAULT_CONFIG, store: str | None = None) -> str:
    """Return the line of a shell that runs `vectoracl` with *parts*, on *config* and its *store*."""
    more = [*(["-c", str(config)] if config != DEFAULT_CONFIG else []), *(["--store", store] if store else [])]
    return " ".join([program(), *(_quoted(plain(one)) for one in (*parts, *more))])


def _quoted(part: str) -> str:
    # Double quotes where they suffice: POSIX shells and those of Windows know them.
    return f'"{part}"' if re.fullmatch(r"[\w .,:?@/-]*[ ,?][\w .,:?@/-]*", part) else shlex.quote(part)


def show_commands(console: Console, lines: Sequence[str]) -> None:
    """Print *lines* of a shell so that they can be copied; a long line continues after a backslash."""
    for line in lines:
        if len(line) + 2 > console.width:
            left, separator, right = line.rpartition(' "')
            if not separator:
                left, _, right = line.rpartition(" ")
            line = f"{left} \\\n      {separator.strip()}{right}"
        console.print(Text(f"  {line}"), soft_wrap=True)


def counted(number: int, one: str) -> str:
    """Return *number* with its noun: "1 document", "2 documents"."""
    return f"{number:,} {one}" + ("" if number == 1 else "s")


def done(code: int) -> NoReturn:
    """End the command with *code*."""
    raise typer.Exit(code)


def hint(error: VectorACLError) -> str:
    """Return a hint on what to do next that the message lacks, or ""."""
    match error:
        case DeniedError():
            return "`vectoracl explain --as ID@TENANT` shows what the policy permits and why."
        case ScopeViolationError():
            return "This is an incident, not your mistake: keep the audit records and run `vectoracl check`."
        case StoreError() if error.sent == "unknown":
            return "It may or may not have been applied; you can run the same command again."
    return ""


def error_object(error: VectorACLError) -> dict[str, object]:
    """Return *error* as it is printed with --json."""
    # `plain`, since a path or id may hold characters without a form in JSON.
    notes = [plain(note) for note in getattr(error, "__notes__", ())]
    return {"code": error.code, "message": plain(error), "hint": hint(error), "notes": notes}


def exit_code(error: VectorACLError) -> int:
    """Return the exit code of a command that ends with *error*."""
    return FINDINGS if isinstance(error, ScopeViolationError) else NOT_MEASURED


def report(error: VectorACLError, *, as_json: bool, store: str = "") -> None:
    """Print *error*, of *store* if that is named, on one line with a hint; with *as_json* as an object."""
    if as_json:
        print_json({"error": error_object(error)})
        return
    console = err()
    place = f"store {plain(store)}: " if store else ""
    console.print(Text.assemble(("error: ", "bold red"), place, plain(error)), soft_wrap=True)
    notes = [plain(note) for note in getattr(error, "__notes__", ())]
    for line in (hint(error), *notes):
        if line:
            console.print(Text(line, "dim"), soft_wrap=True)
    if error.__cause__ is not None:  # attached only with debug_errors = true
        cause = f"caused by {type(error.__cause__).__name__}: {error.__cause__}"
        console.print(Text(plain(cause), "dim"), soft_wrap=True)


def command(function: Callable[P, None]) -> Callable[P, None]:
    """Make *function* a command: vectoracl errors and Ctrl-C are printed on one line. Other exceptions are bugs."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json", False))
        try:
            function(*args, **kwargs)
        except VectorACLError as error:
            report(error, as_json=as_json)
            raise typer.Exit(exit_code(error)) from None
        except (KeyboardInterrupt, typer.Abort) as stop:  # Abort: Ctrl-C, or the end of input, at a question
            message = " ".join(plain(one) for one in ("Interrupted.", *getattr(stop, "__notes__", ())))
            err().print(Text(message), soft_wrap=True)
            raise typer.Exit(INTERRUPTED) from None

    return run


def operator(who: str, doing: str) -> Principal:
    """Return the principal of `--as ID@TENANT`; the tenant follows the last @.

    Raises: InvalidInputError, InvalidPrincipalError, InvalidTenantError.
    """
    name, at, tenant = who.rpartition("@")
    if not at or not name or not tenant:
        raise InvalidInputError(
            "--as takes ID@TENANT (a principal's id and its tenant), for example --as reader@acme.", field="as"
        )
    return hazmat.operator_principal(name, tenant, f"vectoracl {doing} --as, run by {person()} at the command line")


def person() -> str:
    """Return the name of the operating system's user, for the audit."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry for this user, as in some containers
        return "unknown"


def config_path(option: Path, argument: Path | None) -> Path:
    """Return the configuration's path, given as an argument or by -c. Raises: InvalidInputError if by both."""
    if argument is not None and option not in (DEFAULT_CONFIG, argument):
        raise InvalidInputError("Pass the configuration once, as an argument or with -c.", field="config")
    return option if argument is None else argument


@contextmanager
def opened(config: Path, store: str | None = None, *, contact: bool = True) -> Iterator[VectorACL]:
    """Open *config*, with *contact* also its default store; close it at the end."""
    acl = VectorACL(config, store=store)
    with acl:
        if contact:
            acl.open()
        yield acl


@contextmanager
def opened_for(principal: Principal, config: Path, store: str | None) -> Iterator[VectorACL]:
    """Open *config* for *principal* and close it at the end; only the store of its tenant is contacted.

    Raises: InvalidInputError if the configuration does not route the tenant to *store*.
    """
    with opened(config, store, contact=False) as acl:
        home = acl.store_of(principal.tenant)
        if store not in (None, home):
            raise InvalidInputError(
                f"The configuration routes the tenant {plain(principal.tenant)} to the store {plain(home)!r}, not to "
                f"{plain(store)!r}. Omit --store.",
                field="store",
            )
        if home == acl.config.default:
            acl.open()
        yield acl


class Steps:
    """Progress on standard error: bars on a terminal, plain lines in a pipe, nothing if *quiet*.

    In a pipe each step is printed when it begins, and again every `EVERY` seconds while it lasts, even without
    progress: a thread prints it, since a model or a server may block the main thread.
    """

    EVERY = 5.0

    def __init__(self, *, quiet: bool) -> None:
        console = err()
        # With FORCE_COLOR rich treats a pipe as a terminal; a dumb terminal cannot show bars.
        bars = sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal
        self._lines = not quiet and not bars
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            expand=True,
            disable=quiet or not bars,
        )
        self._tasks: dict[str, Any] = {}
        self._now: tuple[str, float, int, int | None] | None = None  # the step, its start time, and its progress
        self._stopped = threading.Event()
        self._printer = threading.Thread(target=self._repeat, name="vectoracl-progress", daemon=True)

    def __enter__(self) -> Steps:
        self._bars.start()
        if self._lines:
            self._printer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    def _repeat(self) -> None:
        while not self._stopped.wait(self.EVERY):
            now = self._now
            if now is not None and (now[3] is None or now[2] < now[3]):
                self._print(now)

    @staticmethod
    def _print(now: tuple[str, float, int, int | None]) -> None:
        what, began, done_, total = now
        count = "" if total in (None, 1) and done_ < 2 else f": {done_:,}" + ("" if total is None else f" of {total:,}")
        seconds = time.monotonic() - began
        typer.echo(f"{one_line(what, 200)}{count}" + (f" ({seconds:.0f} s)" if seconds >= 1 else " …"), err=True)

    def step(self, what: str, done_: int, total: int | None) -> None:
        """Show that *done_* of *total* units (None: unknown) of the step *what* are done. A `contract.Progress`."""
        if self._lines:
            before, self._now = self._now, (what, time.monotonic(), done_, total)
            if before is not None and before[0] == what:
                self._now = (what, before[1], done_, total)
            elif what not in self._tasks:
                self._tasks[what] = None
                self._print(self._now)
            return
        task = self._tasks.get(what)
        if task is None:
            task = self._tasks[what] = self._bars.add_task(plain(what), total=total, count="")
        count = f"{done_:,}" if total is None else f"{done_:,}/{total:,}"
        self._bars.update(task, completed=done_, total=total, count="" if total in (None, 1) and done_ < 2 else count)

    def pause(self) -> None:
        """End the bars and lines, so that a question can be asked."""
        self._bars.stop()
        self._stopped.set()

    @property
    def report(self) -> Report:
        """The method `step`, as a callback."""
        return self.step


def confirmed(what: str, names: Sequence[str], *, yes: bool, as_json: bool = False) -> bool:
    """Show *names* and ask whether to do *what*; *yes* answers it, and without a terminal the answer is no.

    Raises: RefusedError with *as_json*, since a script cannot answer a question.
    """
    if yes:
        return True
    if as_json:
        raise unasked(what)
    console = err()
    for name in names[:_LISTED]:
        console.print(Text(f"  {one_line(name, 200)}"), soft_wrap=True)
    if len(names) > _LISTED:
        console.print(Text(f"  … and {len(names) - _LISTED:,} more", "dim"))
    if not interactive():
        console.print(Text(f"{what}? It was not done: pass --yes to do it without a question."), soft_wrap=True)
        return False
    if typer.confirm(f"{what}?", err=True):
        return True
    console.print("Nothing was deleted.")
    return False


def unasked(what: str) -> RefusedError:
    """Return the error of a command with --json that would have to ask whether to do *what*."""
    return RefusedError(
        f"{what}? With --json there is no question, so it was not done: pass --yes to do it.", field="yes"
    )


def interactive() -> bool:
    """Return whether there is a terminal to ask questions."""
    return sys.stdin.isatty() and sys.stderr.isatty()
