"""The conformance kit of vectoracl: certifies that an adapter applies the scope before the store ranks."""

from vectoracl_conformance.harness import (
    Engine,
    Harness,
    HarnessError,
    Mutant,
    Needs,
    Server,
    Store,
    Weakening,
    load_harness,
)

__all__ = ["Engine", "Harness", "HarnessError", "Mutant", "Needs", "Server", "Store", "Weakening", "load_harness"]
