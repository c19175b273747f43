"""The kit's harness over the stub, with words: an in-process engine of our own, so no report can claim more of it.

The stub serves every namespace here, also the default one, so that a request without one is answered as Pinecone does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from vectoracl.adapter_api.chunk_validation import load_metadata
from vectoracl.adapter_api.operations import Search
from vectoracl.filters.field_types import FieldType
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.harness import Harness, Mutant, Needs, Server, Store, Weakening
from vectoracl_pinecone.conformance.harness import namespace
from vectoracl_pinecone.conformance.mutants import Bent, Past, _mutant
from vectoracl_pinecone.names import namespace_of
from vectoracl_pinecone.requests import FetchBy, Listing, Put, Query, Remove, Settle

from pinecone_support.stub import KEY, Stub, stub

PREFIX = "vectoracl-"
_TAG = ("tenant", "document", "chunk", "generation", "label", "rev", "expires", "producer", "path", "time", "position")


class Open(Stub):
    """A stub that has every namespace, as Pinecone has."""

    def _space(self, name: Any) -> dict[str, dict[str, Any]]:
        return self.spaces.get(name or "", {})


class WordedStore(Store):
    """One stub; its rows are read from its own memory."""

    def __init__(self, needs: Needs, kind: str) -> None:
        self._stack = ExitStack()
        self._needs = needs
        words = "words" if kind == "document" else None
        made = stub(of=Open, kind=kind, metric="dotproduct", dimension=needs.dimension, words=words)
        self.stub = self._stack.enter_context(made)
        self.config = {"adapter": "pinecone", "host": self.stub.host, "api_key": KEY, "dimension": needs.dimension,
                       "metric": "inner", "kind": kind, "lexical": True}  # fmt: skip
        self.single = {**self.config, "parallel": 1}
        self.secrets = (KEY,)

    def parts(self) -> frozenset[str]:
        return frozenset(name for name, rows in self.stub.spaces.items() if rows)

    def census(self) -> Sequence[Record]:
        rows = [one for space in list(self.stub.spaces.values()) for one in list(space.values())]
        return [self._record(one) for one in rows if "acl_tenant" in one["metadata"]]  # not the notes of the index

    def _record(self, one: dict[str, Any]) -> Record:
        stored = one["metadata"]
        values = [stored[f"acl_{name}"] for name in _TAG]
        for place in (3, 5, 10):
            values[place] = int(values[place])
        kinds = {name: FieldType(kind) for name, kind in self._needs.metadata.items()}
        metadata = load_metadata(stored["acl_metadata"], kinds)
        return Record(Tag(*values), stored["acl_text"], np.asarray(one["values"], np.float32), dict(metadata))

    def carries(self, request: Any, tenant: str) -> bool | None:
        match request:
            case Put():
                tagged = all(one.metadata.get("acl_tenant") == tenant for one in request.records)
                return tagged and request.namespace == namespace(PREFIX, tenant)
            case Query() | Listing() | FetchBy() | Remove() | Settle():
                return request.namespace == namespace(PREFIX, tenant)
        return False

    def weakenings(self) -> Sequence[Weakening]:
        stray = {"id": "stray", "values": [1.0] * self._needs.dimension, "metadata": {"acl_text": "stray"}}
        space = "" if self.stub.kind == "vector" else "__default__"
        return (
            Weakening(
                "a record in the default namespace",
                lambda: self.stub.spaces.update({space: {"stray": stray}}),
                lambda: self.stub.spaces.pop(space),
            ),
        )

    def close(self) -> None:
        self._stack.close()


class WordedHarness(Harness):
    """The adapter with `lexical = true`, over one kind of index."""

    adapter = "pinecone"
    store = "stub"

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def server(self) -> Server:
        return Server("in-process", f"a stub of vectoracl {version('vectoracl')} with a small exact engine")

    def fresh(self, needs: Needs) -> Store:
        return WordedStore(needs, self._kind)

    def mutants(self) -> Sequence[Mutant]:
        return MUTANTS


# Faults that only a leg by words can have


class _Leg(Bent):
    """Bends one leg of a search."""

    operations = ("search",)

    def bend(self, request: Any) -> Any:
        if isinstance(request, Query) and request.words is not None:
            return self.leg(request)
        return request

    def leg(self, request: Query) -> Any:
        raise NotImplementedError


class Nowhere(_Leg):
    def leg(self, request: Query) -> Any:
        return Past(request.partition, replace(request, namespace=""))


class Elsewhere(_Leg):
    """The leg goes to a foreign tenant's namespace beside the own one, and its rows are dropped again."""

    def search(self, operation: Search) -> Any:
        found = yield from self.inner.search(operation)
        compiler = self.inner._compile  # type: ignore[attr-defined]  # a mutant reaches into it
        text = getattr(operation.query, "text", None)
        if text is None:
            return found
        from vectoracl.text.sparse_words import token_indices

        for tenant in self.tenants():
            if tenant != operation.partition:
                asked = compiler.by_words(tenant, True, operation.k, token_indices(text), rows=True)
                yield Past(operation.partition, replace(asked, namespace=namespace_of(PREFIX, tenant)))
        return found


class Unscoped(_Leg):
    """The leg keeps the condition of the words and loses scope and filter."""

    def leg(self, request: Query) -> Any:
        def held(condition: Any) -> Any:
            if "acl_words" in condition:
                return condition
            return next((one for part in condition.get("$and", []) if (one := held(part)) is not None), None)

        return replace(request, filter=held(request.filter or {}))


class VectorUnscoped(Bent):
    operations = ("search",)

    def bend(self, request: Any) -> Any:
        ranks = isinstance(request, Query) and request.words is None and request.top_k > 50 and not request.metadata
        return replace(request, filter=None) if ranks else request


MUTANTS: tuple[Mutant, ...] = (
    _mutant("words without a namespace", "the leg by words has no namespace", "R13", Nowhere),
    _mutant("words in every namespace", "the leg by words is asked of every tenant", "R13", Elsewhere),
    _mutant("words without the scope", "the leg by words has lost scope and filter", "R13", Unscoped),
    _mutant("the vector without the scope", "the leg by vector has lost scope and filter", "R13", VectorUnscoped),
)
