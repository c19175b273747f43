"""Recognises what extensions and managed services ship, from the table in `recognised.json`.

`adapters/pgvector/tools/recognise.py` generates the table, with its date, on servers that have the extensions. A
function is recognised if its name, arguments, language, body and attributes have a known digest *and* it belongs to a
superuser or to the owner of its extension. A version that is not in the table is judged by the same digests: functions
that did not change between versions are known, and changed ones are findings until the table is generated again.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from vectoracl_pgvector.posture.reach_rows import Function, Native, OtherRelation

if TYPE_CHECKING:
    from vectoracl_pgvector.posture.reach_graph import Graph


@cache
def table() -> dict[str, Any]:
    """Return the table: its `date`, the `servers` it was generated on, `extensions`, `services` and `leakproof`."""
    text = files("vectoracl_pgvector.posture").joinpath("recognised.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@cache
def _of_extension(name: str) -> frozenset[str]:
    versions = table()["extensions"].get(name, {})
    return frozenset(digest for version in versions.values() for digest in version["functions"])


@cache
def _of_services() -> frozenset[tuple[str, str, str, str]]:
    return frozenset(
        (one["owner"], one["schema"], one["name"], one["digest"])
        for service in table()["services"].values()
        for one in service
    )


def system_leakproof() -> frozenset[int]:
    """Return the OIDs of functions that PostgreSQL itself marks LEAKPROOF, in any version of the table."""
    return _leakproof()


@cache
def _leakproof() -> frozenset[int]:
    return frozenset(table()["leakproof"])


def function(one: Function, graph: Graph) -> bool:
    """Return whether its extension, or a managed service, ships exactly this function."""
    owner = graph.roles.get(one.owner)
    if owner is None:
        return False
    if one.extension:
        ours = owner.superuser or one.owner == one.extension_owner
        return ours and one.identity in _of_extension(one.extension)
    return owner.superuser and (owner.name, one.schema, one.name, one.identity) in _of_services()


def leakproof(one: Function) -> bool:
    """Return whether an extension ships this function as LEAKPROOF."""
    return bool(one.extension) and one.identity in _of_extension(one.extension)


def unknown_native(one: Native) -> int:
    """Return the number of native functions of an extension that are not in the table."""
    known_digests = _of_extension(one.extension)
    return sum(identity not in known_digests for identity in one.identities)


def relation(other: OtherRelation, graph: Graph) -> bool:
    """Return whether an extension ships this relation for its own data."""
    if not other.extension:
        return False
    versions = table()["extensions"].get(other.extension, {})
    owner = graph.roles.get(other.owner)
    return any(other.name in version["relations"] for version in versions.values()) and bool(owner and owner.superuser)
