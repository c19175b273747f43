"""The harness of the core's memory adapter. Its census reads the dictionaries directly."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from vectoracl.memory.ports import Perform, shelf_of
from vectoracl.model.records import Record
from vectoracl_conformance.harness import Harness, Needs, Server, Store

_CENSUS = """
from vectoracl.memory.ports import shelf_of
from vectoracl.model.records import Record

def census(client):
    shelf = shelf_of({metric!r}, {dimension!r}, {name!r})
    with shelf.lock:
        rows = [row for part in shelf.partitions.values() for row in part.values()]
        return [Record(row.tag, row.text, row.vector, {metadata}) for row in rows]

def parts(client):
    return frozenset(shelf_of({metric!r}, {dimension!r}, {name!r}).partitions)
"""


def census_text(config: Mapping[str, Any], *, copied: bool = True) -> str:
    """Return text that defines `census(client)` and `parts(client)` in the process of the memory store of *config*.

    With *copied*, the metadata are plain dictionaries, whatever was written; else they are the objects that the store
    holds, so that a row which did not change can be recognised by them.
    """
    metadata = "dict(row.metadata)" if copied else "row.metadata"
    return _CENSUS.format(
        metric=config["metric"], dimension=config["dimension"], name=config["name"], metadata=metadata
    )


class MemoryStore(Store):
    """One shelf; `single` is the same, since there are no connections."""

    def __init__(self, needs: Needs, name: str = "") -> None:
        name = name or str(uuid.uuid4())
        self._shelf = shelf_of(needs.metric, needs.dimension, name)
        self.config = {"adapter": "memory", "dimension": needs.dimension, "metric": needs.metric, "name": name}
        self.single = self.config
        self.census_source = census_text(self.config)

    def census(self) -> Sequence[Record]:
        """Read every row."""
        with self._shelf.lock:
            return [
                Record(row.tag, row.text, row.vector, dict(row.metadata))
                for part in self._shelf.partitions.values()
                for row in part.values()
            ]

    def parts(self) -> frozenset[str]:
        """Name the partitions that exist, also empty ones."""
        return frozenset(self._shelf.partitions)

    def carries(self, request: object, tenant: str) -> bool | None:
        """A request names its partition, in which it is performed, and nowhere else."""
        return isinstance(request, Perform) and request.partition == request.operation.partition == tenant


class MemoryHarness(Harness):
    """The memory adapter."""

    adapter = "memory"
    store = "memory"
    metrics = ("cosine", "inner", "l2")

    def server(self) -> Server:
        """In this process."""
        return Server("in-process", f"vectoracl {version('vectoracl')}")

    def fresh(self, needs: Needs) -> Store:
        """Return an empty store."""
        return MemoryStore(needs)


harness = MemoryHarness()
