"""Mutants as text, which breaks an adapter in its own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vectoracl_conformance.harness import Harness, HarnessError, Mutant, Store
from vectoracl_conformance.isolated.put_in import Door
from vectoracl_conformance.isolated.remote import process_of
from vectoracl_conformance.isolated.source_bundle import bundle, bundled

_PUT_IN = "vectoracl_conformance.isolated.put_in"
_TEXT = """{bundle}
from {put_in} import put_in
{mutants}
dress = put_in(mutants, {name!r}, globals(), {door!r})
"""
_OF_A_MODULE = "from {module} import {name} as mutants"
_OF_THE_HARNESS = """import importlib
kind = importlib.import_module({module!r})
for one in {qualified!r}.split("."):
    kind = getattr(kind, one)
mutants = kind.mutants(object.__new__(kind))
"""


def as_text(mutant: Mutant, harness: Harness, store: Store, python: str = "") -> Mutant:
    """Return *mutant* with the text that breaks the adapter of *store* in its process. Raises: HarnessError."""
    return replace(mutant, source=text_of(mutant, harness, lambda: process_of(store, python).door()))


def text_of(mutant: Mutant, harness: Harness, door: Callable[[], Door | None]) -> str:
    """Return the text that puts *mutant* into the process of the adapter; "" if it breaks only the store.

    Args:
        mutant: A mutant with a text, with a home, or one of those of *harness*.
        harness: The harness.
        door: Returns where the mutant can ask for the store's rows; None for a store in the adapter's process.

    Raises: HarnessError if it is none of them, or if its module cannot be bundled.
    """
    if mutant.source:
        return mutant.source
    if mutant.wrap is None and not mutant.patches:
        return ""
    kind = type(harness)
    module, _, name = mutant.home.partition(":")
    if module:
        modules = (_PUT_IN, module)
        mutants = _OF_A_MODULE.format(module=bundled(module, *modules), name=name)
    elif any(one.name == mutant.name for one in harness.mutants()):
        modules = (_PUT_IN, kind.__module__)
        mutants = _OF_THE_HARNESS.format(module=bundled(kind.__module__, *modules), qualified=kind.__qualname__)
    else:
        raise HarnessError(f"The mutant {mutant.name!r} has no home, and is not one of the harness's `mutants()`.")
    return _TEXT.format(
        bundle=bundle(*modules), put_in=bundled(_PUT_IN, *modules), mutants=mutants, name=mutant.name, door=door()
    )
