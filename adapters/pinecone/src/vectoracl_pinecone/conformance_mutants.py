"""Faults that only Pinecone can have: for the conformance kit, each with the check that has to notice."""

from __future__ import annotations

from vectoracl_conformance.harness import Mutant

MUTANTS: tuple[Mutant, ...] = ()
