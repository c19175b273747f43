"""Broken adapters by which the kit tests its own measurements; no check has to notice them."""

from __future__ import annotations

from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.mutants.reads import PostFilter
from vectoracl_conformance.wrappers.adapter_wrapper import wrapped


class RanksEveryone(PostFilter):
    """The control whose time follows the foreign rows."""

    factor = 20_000


LEAKY = Mutant(
    "ranks everyone",
    "the time of a search follows the foreign rows",
    "",
    wrapped(RanksEveryone),
    home=f"{__name__}:CONTROLS",
)
CONTROLS = (LEAKY,)
