"""Mutants of scans over changing documents: the difference between two versions is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Replace, Upsert
from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, wrapped

Written = TypeVar("Written", Upsert, Replace)


class OneTime(AdapterWrapper):
    """Every chunk says that it was written at one moment, so a document that was written again looks like the old."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write."""
        return (yield from self.inner.upsert(_timeless(operation)))

    def replace(self, operation: Replace) -> Flow[int]:
        """Replace."""
        return (yield from self.inner.replace(_timeless(operation)))


def _timeless(operation: Written) -> Written:
    records = tuple([one._replace(tag=one.tag._replace(time=1.0)) for one in operation.records])
    return replace(operation, records=records)


VERSIONS = (
    Mutant("the time of writing is lost", "a document that was written again is not noticed", "R17", wrapped(OneTime)),
    Mutant(
        "a scan goes on in another version",
        "the rest of a document comes from the version that is there by then",
        "R17",
        patches=(("vectoracl.engine.paging:_Version", "takes", lambda _: _goes_on),),
    ),
)


def _goes_on(self: object, hit: object) -> bool:
    self.last = self.last._replace(generation=hit.tag.generation, chunk=hit.id)  # type: ignore[attr-defined]
    return True
