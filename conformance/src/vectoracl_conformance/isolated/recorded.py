"""Reads recorded requests and replies, which an untrusted process has sent.

They are objects of the library, of the adapter and of its client. So only classes of these packages are found, no
functions, and nothing of Python itself but plain data.
"""

from __future__ import annotations

import io
import pickle
from functools import cache
from importlib.metadata import distributions, packages_distributions
from typing import Any

from vectoracl_conformance.isolated.interpreter import DISTRIBUTION, LIBRARY, canonical, packages_of
from vectoracl_conformance.isolated.process import PoisonError, found_in_answers
from vectoracl_conformance.isolated.source_bundle import KIT, ROOT

_PLAIN = {
    "builtins": {"bytearray", "complex", "dict", "frozenset", "list", "range", "set", "slice", "tuple"},
    "collections": {"OrderedDict", "defaultdict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "uuid": {"UUID", "SafeUUID"},
    "types": {"SimpleNamespace"},
}
_MUTANTS = f"{KIT}.wrappers.adapter_wrapper"


@cache
def packages(adapter: str) -> frozenset[str]:
    """Return the packages whose objects requests are made of: the library, what offers *adapter*, and its client."""
    found = {LIBRARY}
    by_distribution: dict[str, set[str]] = {}
    for package, names in packages_distributions().items():
        for name in names:
            by_distribution.setdefault(canonical(name), set()).add(package)
    for one in distributions():
        if canonical(one.name) != LIBRARY and any(
            point.group == LIBRARY and point.name == adapter for point in one.entry_points
        ):
            found |= packages_of(one)
            for line in one.requires or ():
                match = DISTRIBUTION.match(line)
                found |= by_distribution.get(canonical(match.group()), set()) if match is not None else set()
    return frozenset(found - {KIT})


class _Recorded(pickle.Unpickler):
    def __init__(self, data: bytes, known: frozenset[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._known = known

    def find_class(self, module: str, name: str) -> Any:
        """Find a class of what requests are made of."""
        if name in _PLAIN.get(module, ()) or found_in_answers(module, name):
            return super().find_class(module, name)
        if module.partition(".")[0] == ROOT:  # of a mutant, which was put in under another name
            module = KIT + module[len(ROOT) :]
        if module.partition(".")[0] in self._known or module == _MUTANTS:
            kind = super().find_class(module, name)
            if isinstance(kind, type) and kind.__module__.partition(".")[0] in (self._known | {KIT}):
                return kind
        raise PoisonError(f"a recorded request holds {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """Make a message of protobuf, whose type the harness's imports have declared."""
        # It ships no types; and only some adapters' requests have messages, so it may not be installed.
        from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]

        name, data = pid
        kind = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
        return kind.FromString(data)


def load_recorded(data: bytes, adapter: str) -> Any:
    """Read one recorded request of *adapter*. Raises: PoisonError, and whatever a broken pickle raises."""
    return _Recorded(data, packages(adapter)).load()
