"""`complete` says the truth of an index whose ranking loses rows: of hits, of groups and of what is in a group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vectoracl.adapter_api.operations import Found, Search, Upsert
from vectoracl.engine.drivers import run
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.queries import HybridQuery, Lexical, VectorQuery
from vectoracl_conformance.adapter_tests.lost_rows import CASES, ROWS, records
from vectoracl_conformance.adapter_tests.shapes import TENANT
from vectoracl_pinecone import compile as compiled
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.requests import Query

from pinecone_support.model import Model

SETTINGS = {"api_key": "none", "index": "i", "dimension": 2, "metric": "inner", "kind": "vector"}
QUERIES: dict[str, Any] = {
    "vector": VectorQuery(np.array([1.0, 0.5], np.float32)),
    "words": Lexical("apple"),
    "hybrid": HybridQuery("apple", np.array([1.0, 0.5], np.float32)),
}


class Index(Model):
    """A model of an index that, asked for many records, gives all but those that it has lost."""

    def __init__(self, *lost: tuple[str, str]) -> None:
        super().__init__()
        self.lost = set(lost)

    def __call__(self, request: Any) -> Any:
        if not isinstance(request, Query) or request.top_k < 2:
            return super().__call__(request)
        found = super().__call__(replace(request, top_k=100))
        kept = [one for one in found if (one.metadata["acl_document"], one.metadata["acl_chunk"]) not in self.lost]
        return tuple(kept[: request.top_k])


def adapter(kind: str) -> PineconeAdapter:
    return PineconeAdapter(PineconeConfig.model_validate({**SETTINGS, "lexical": kind != "vector"}), {})


def searched(kind: str, lost: list[tuple[str, str]], k: int, per_group: int | None) -> Found:
    index = Index(*lost)
    for document, chunks in ROWS.items():
        run(adapter(kind).upsert(Upsert(TENANT, ALWAYS, records(document, chunks, "apple"))), {"store": index})
    more: dict[str, Any] = {} if per_group is None else {"group_by": "document", "per_group": per_group}
    operation = Search(TENANT, ALWAYS, ALWAYS, QUERIES[kind], k, frozenset(), **more)
    return run(adapter(kind).search(operation), {"store": index})


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize(("lost", "k", "per_group", "complete"), CASES)
@pytest.mark.parametrize("ids", [1000, 2])
def test_what_the_ranking_lost_is_said(
    lost: list[tuple[str, str]],
    k: int,
    per_group: int | None,
    complete: bool,
    kind: str,
    ids: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "MAX_IDS", ids)  # so many a filter names of documents
    found = searched(kind, lost, k, per_group)
    assert found.complete == complete
    assert (found.shortfall is None) == complete
