"""`vectoracl adapters`: the installed adapters."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.adapter_api.loading import Installed, installed, load
from vectoracl.cli.common import CLEAN, FINDINGS, JsonOption, done, out, plain, print_json
from vectoracl.errors import VectorACLError


def adapters(*, as_json: JsonOption = False) -> None:
    """List the installed adapters with their versions and isolation grades.

    The grade is the best that the adapter can reach: [b]predicate[/b] (isolation by vectoracl's filter),
    [b]partition[/b] (a physical part per tenant, chosen by vectoracl), [b]engine[/b] (the store itself refuses a
    request without a scope), [b]credential[/b] (the process has no credentials for another tenant). `check` shows the
    grade that a store actually reaches.

    This command imports every installed adapter; serving imports only the one that the configuration names.
    """
    rows = [_row(one) for one in installed()]
    if as_json:
        print_json({"adapters": rows})
    else:
        console = out()
        console.print(_table(rows))
        broken = [row for row in rows if row["error"]]
        for row in broken:
            console.print(Text(f"{row['adapter']}: {row['error']}", "red"))
    done(FINDINGS if any(row["error"] for row in rows) else CLEAN)


def _row(one: Installed) -> dict[str, Any]:
    row: dict[str, Any] = {
        "adapter": plain(one.adapter),
        "distribution": plain(one.distribution),
        "version": plain(one.version),
        "grade": None,
        "queries": [],
        "capabilities": None,
        "error": None,
    }
    try:
        can: Capabilities = load(one.adapter, one.distribution).vectoracl_describe()
    except VectorACLError as error:
        return {**row, "error": plain(error)}
    except Exception as error:  # noqa: BLE001 - one broken adapter must not hide the others
        return {**row, "error": f"cannot be described ({type(error).__name__})"}
    return {**row, "grade": can.grade, "queries": sorted(can.queries), "capabilities": described(can)}


def described(can: Capabilities) -> dict[str, Any]:
    """Return the capabilities of an adapter as JSON; `docs/switching-stores.md` shows them side by side."""
    return {
        "operations": sorted(can.operations),
        "lexical_scores": can.lexical_scores if can.queries - {"vector"} else None,
        "count": can.count,
        "facets": can.facets,
        "exact": can.exact,
        "group_by": can.group_by,
        "delete_counts": can.delete_counts,
        "atomic_upsert": can.atomic_upsert,
        "atomic_replace": can.atomic_replace,
        "visible": can.visible,
        "max_batch": can.max_batch,
        "max_chunk_bytes": can.max_chunk_bytes,
        "writes_in_flight": can.writes_in_flight,
        "max_k": can.max_k,
        "deadlines": can.deadlines,
        "copy_into": can.verbatim,
        "tuning": sorted(can.tuning),
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("adapter", "distribution", "version", "grade", "queries"):
        table.add_column(name, overflow="fold")
    for row in rows:
        grade = Text("broken", "red") if row["error"] else Text(row["grade"], "green")
        table.add_row(
            Text(row["adapter"], "bold"), row["distribution"], row["version"], grade, ", ".join(row["queries"])
        )
    return table
