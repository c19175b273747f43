"""A harness whose own mutants end the process, hang, or die as they should; for the tests of the crew."""

from __future__ import annotations

import os
import time

from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.harnesses.memory import MemoryHarness
from vectoracl_conformance.mutants.reads import Honest
from vectoracl_conformance.wrappers.adapter_wrapper import wrapped


def _exit(_):
    os._exit(0)


def _hang(_):
    time.sleep(3600)


class Deadly(MemoryHarness):
    def mutants(self):
        return [
            Mutant("exits", "the process ends", "R1", store=_exit),
            Mutant("hangs", "nothing comes back", "R1", store=_hang),
            Mutant("open", "foreign rows come back", "R1", wrapped(Honest)),
            Mutant("open, said to be odd", "foreign rows come back", "W1", wrapped(Honest)),
            Mutant("right", "nothing", "R1"),
        ]
