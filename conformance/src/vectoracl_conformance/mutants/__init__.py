"""Mutants: correct adapters with one deliberate fault, which the named check must detect."""

from dataclasses import replace

from vectoracl_conformance.mutants.concurrent_writers import BESIDE
from vectoracl_conformance.mutants.core import CORE
from vectoracl_conformance.mutants.defeat_devices import DEVICES
from vectoracl_conformance.mutants.generated_calls import CALLS
from vectoracl_conformance.mutants.governance import GOVERNANCE
from vectoracl_conformance.mutants.lexical import WORDS
from vectoracl_conformance.mutants.nodes import NODE_MUTANTS
from vectoracl_conformance.mutants.reads import READING
from vectoracl_conformance.mutants.sessions import SESSIONS
from vectoracl_conformance.mutants.versions import VERSIONS
from vectoracl_conformance.mutants.writes import WRITING

GENERAL = tuple(
    replace(one, home=f"{__name__}:GENERAL")
    for one in (
        *READING,
        *NODE_MUTANTS,
        *BESIDE,
        *VERSIONS,
        *WORDS,
        *WRITING,
        *SESSIONS,
        *CORE,
        *DEVICES,
        *CALLS,
        *GOVERNANCE,
    )
)
__all__ = ["GENERAL"]
