"""Puts a mutant into the adapter of a process that this module is bundled into; the kit is not installed there."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Client
from typing import Any

from vectoracl.adapter_api.contract import Opened
from vectoracl.model.records import Record
from vectoracl_conformance.harness import HarnessError, Mutant, Store

Door = tuple[str, bytes]
"""Where the process of the harness can be asked what the store holds: an address, and the key to it."""


class SeenStore(Store):
    """The store as a mutant sees it: its rows are read by the harness, or by its text in this process.

    Args:
        names: The names that the texts which were put into this process have defined.
        door: Where to ask the harness; None for a store that lives in this process.
    """

    def __init__(self, names: Mapping[str, Any], door: Door | None) -> None:
        self._names = names
        self._door = door

    def census(self) -> Sequence[Record]:
        """Read every row."""
        rows: Sequence[Record] = self._names["census"](None) if self._door is None else self._ask(b"census")
        return rows

    def parts(self) -> frozenset[str] | None:
        """Name what the store keeps per tenant."""
        if self._door is None:
            return self._names["parts"](None) if "parts" in self._names else None
        parts: frozenset[str] | None = self._ask(b"parts")
        return parts

    def _ask(self, what: bytes) -> Any:
        assert self._door is not None
        address, key = self._door
        with Client(address, authkey=key) as connection:
            connection.send_bytes(what)
            word, answer = connection.recv()
        if word != "ok":
            raise HarnessError(answer)
        return answer


def put_in(
    mutants: Iterable[Mutant], name: str, names: Mapping[str, Any], door: Door | None
) -> Callable[[Opened], Opened]:
    """Return `dress` for the mutant of *name*, whose patches are applied at once, for as long as the process lives."""
    (mutant,) = (one for one in mutants if one.name == name)
    store = SeenStore(names, door)
    root = __name__.partition(".")[0]
    for target, attribute, make in mutant.patches:
        module, _, inner = target.partition(":")
        if module.partition(".")[0] == root:  # what the kit does itself is not done here
            continue
        owner: Any = importlib.import_module(module)
        owner = getattr(owner, inner) if inner else owner
        old = owner.__dict__[attribute] if isinstance(owner, type) else getattr(owner, attribute)
        setattr(owner, attribute, make(old))
    wrap = mutant.wrap
    return lambda opened: opened if wrap is None else wrap(opened, store)
