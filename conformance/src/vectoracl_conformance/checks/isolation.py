"""X6: the checks once more, with the adapter in a process that cannot see the kit."""

from __future__ import annotations

import sys

from vectoracl_conformance.checks.reference_checks import Place, out_of_sight
from vectoracl_conformance.context.assertions import Assertions
from vectoracl_conformance.context.registry import check


@check(
    "X6",
    "the same behaviour without the kit",
    attack=(
        "Run the adapter in a separate process that contains the library and nothing of the kit (no module, "
        "argument, environment, frame, parent or name that reveals it), and run the checks of reading and writing "
        "again there."
    ),
    breach=(
        "The adapter is correct only where it detects the test: an answer, or what is stored, differs without the kit."
    ),
)
async def x6_same_answers_where_the_kit_is_not_seen(t: Assertions) -> None:
    context = t.context
    store = context.store
    paths = [path for path in sys.path if path]
    place = Place(store.config, context.source, store.settle, context.python, paths, admit=store.admit)
    await out_of_sight(t, place, context.mode, context.rng.py.randrange(2**31), context.corpus.decoys)
