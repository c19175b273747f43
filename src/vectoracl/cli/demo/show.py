"""The demo's output: the result of a search without a scope next to the principal's result."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vectoracl.adapter_api.demo_attacks import Attempt
from vectoracl.cli.common import one_line, plain, show_commands
from vectoracl.cli.demo.run import REPETITIONS, Asked, Line, Outcome, name_of

_WIDEST = 110
_OWN, _FOREIGN = "green", "red"
_STYLE = {"refused": "green", "nothing": "green", "LEAK": "bold white on red"}


def show(console: Console, outcome: Outcome, notes: Sequence[str], commands: Sequence[str]) -> None:
    """Print the demo; *notes* state where data were written, *commands* can be run next."""
    width = min(console.width, _WIDEST)
    console.print(_head(outcome), width=width)
    for answer in outcome.asked:
        console.print(_question(answer, width), width=width)
    console.print(_sum(outcome), width=width)
    console.print(_attempts(outcome.attempts), width=width)
    console.print(_end(outcome, notes), width=width)
    show_commands(console, commands)


def _head(outcome: Outcome) -> Panel:
    text = Text()
    text.append(f"{outcome.chunks:,} chunks of {outcome.documents:,} documents, {outcome.tenants} tenants", "bold")
    text.append(f", written as each tenant's own principal in {outcome.seconds:.1f} s\n")
    text.append(f"{plain(outcome.server)}, isolation grade ", "dim")
    text.append(plain(outcome.grade), "bold")
    return Panel(text, title="vectoracl demo", title_align="left", border_style="cyan", box=box.ROUNDED)


def _question(asked: Asked, width: int) -> Group:
    who = name_of(asked.principal)
    room = (width - 3) // 2 - 6
    head = Text.assemble((f"{one_line(who, width // 2)} ", "bold cyan"), "asks ")
    timing = f"  {asked.p50_ms:.1f} ms"
    head.append(f"“{one_line(asked.query, max(10, width - head.cell_len - len(timing) - 2))}”", "italic")
    head.append(timing, "dim")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, expand=True)
    past = "without vectoracl (hazmat)" if room >= 26 else "past it (hazmat)"
    for title, style in ((past, "bold red"), (f"what {who} gets", "bold green")):
        table.add_column(Text(one_line(title, room), style), ratio=1, no_wrap=True)
        table.add_column("", width=5, justify="right", style="dim")
    own = asked.principal.tenant
    for place in range(max(len(asked.unscoped), len(asked.returned))):
        cells: list[Text] = []
        for lines in (asked.unscoped, asked.returned):
            cells += _cells(lines[place], own, room) if place < len(lines) else [Text(""), Text("")]
        table.add_row(*cells)
    counts = [(asked.foreign(lines), len(lines)) for lines in (asked.unscoped, asked.returned)]
    table.add_row(*(cell for foreign, of in counts for cell in (_count(foreign, of), Text(""))))
    return Group(Text(""), head, table)


def _cells(line: Line, own: str, room: int) -> list[Text]:
    """Return the cells of one hit: the owner by sign and colour, the document's name and the score; no text."""
    foreign = line.tenant != own
    name = line.document.removeprefix(f"{line.tenant}/")
    text = Text("✗ " if foreign else "✓ ", _FOREIGN if foreign else _OWN)
    text.append(f"{one_line(line.tenant, 14)} ", f"bold {_FOREIGN}" if foreign else _OWN)
    text.append(_shortened(name, room - text.cell_len), _FOREIGN if foreign else "default")
    return [text, Text(f"{line.score:.2f}")]


def _shortened(name: str, room: int) -> str:
    """Return the end of a document's name, which is more specific than its beginning."""
    flat = one_line(name, 1000)
    return flat if len(flat) <= room else "…" + flat[-max(1, room - 1) :]


def _count(foreign: int, of: int) -> Text:
    return Text(f"{foreign} of {of} foreign", f"bold {_FOREIGN}" if foreign else f"bold {_OWN}")


def _sum(outcome: Outcome) -> Group:
    nearest = sum(len(one.unscoped) for one in outcome.asked)
    foreign = sum(one.foreign(one.unscoped) for one in outcome.asked)
    got = sum(len(one.returned) for one in outcome.asked)
    leaked = sum(one.foreign(one.returned) for one in outcome.asked)
    text = Text()
    text.append(f"{foreign} of the {nearest} nearest chunks", "bold red" if foreign else "bold")
    text.append(" belonged to other tenants. Returned under vectoracl: ")
    text.append(f"{got}, foreign: {leaked}", f"bold {_FOREIGN if leaked else _OWN}")
    text.append(".")
    note = Text(
        "The first questions are headings from other tenants' texts; the last one is the same for two tenants. "
        f"Times are the median of {REPETITIONS[0]} to {REPETITIONS[1]} scoped searches, without the embedding of the "
        "question."
        + (" They rank by words and vector together; the left side ranks by vector alone." if outcome.hybrid else ""),
        "dim",
    )
    return Group(Text(""), text, note)


def _attempts(attempts: Sequence[Attempt]) -> Group:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, expand=True)
    table.add_column("forged attempt", no_wrap=True, style="bold")
    table.add_column("attempt, and the error that it met", ratio=1)
    table.add_column("outcome", no_wrap=True, justify="right")
    for one in attempts:
        met = Text(plain(one.tried))
        if one.error:
            met.append(f"\n{plain(one.error)}", "dim")
        table.add_row(one.attack, met, Text(one.outcome, _STYLE[one.outcome]))
    return Group(Text(""), table)


def _end(outcome: Outcome, notes: Sequence[str]) -> Panel:
    text = Text()
    if outcome.leaked:
        text.append("A chunk of another tenant was returned. This must not happen: please report it.\n", "bold red")
    for note in notes:
        text.append(f"{plain(note)}\n")
    text.rstrip()
    return Panel(text, title="next", title_align="left", border_style="red" if outcome.leaked else "cyan")
