"""Deliberately broken adapters. Each breaks one thing of a right one, and the check that it names has to notice."""

from vectoracl_conformance.mutants.beside import BESIDE
from vectoracl_conformance.mutants.core import CORE
from vectoracl_conformance.mutants.devices import DEVICES
from vectoracl_conformance.mutants.reading import READING
from vectoracl_conformance.mutants.sessions import SESSIONS
from vectoracl_conformance.mutants.versions import VERSIONS
from vectoracl_conformance.mutants.words import WORDS
from vectoracl_conformance.mutants.writing import WRITING

GENERAL = (*READING, *BESIDE, *VERSIONS, *WORDS, *WRITING, *SESSIONS, *CORE, *DEVICES)
__all__ = ["GENERAL"]
