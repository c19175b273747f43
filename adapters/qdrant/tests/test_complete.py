"""`complete` says the truth of a server whose ranking loses rows: of hits, of groups and of what is in a group."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectoracl.adapter_api.operations import Found, Replace, Search, Upsert
from vectoracl.engine.drivers import run
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.queries import HybridQuery, VectorQuery
from vectoracl_conformance.adapter_tests.lost_rows import CASES, ROWS, records
from vectoracl_conformance.adapter_tests.shapes import TENANT
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.requests import Rank, RankGroups, RankLegs, Write

from qdrant_support.model import Model

ADAPTER = QdrantAdapter(QdrantConfig(url="http://localhost", dimension=2, words=False), {})
WORDED = QdrantAdapter(QdrantConfig(url="http://localhost", dimension=2), {})


class Server:
    """A model of a server that ranks without the chunks that it has lost; what it lists is whole."""

    parallel = 1

    def __init__(self, *lost: tuple[str, str]) -> None:
        self.model = Model()
        self.lost = set(lost)

    def execute(self, request: Any, timeout: float | None) -> Any:
        del timeout
        match request:
            case Rank():
                return self._ranked(request)[: request.limit]
            case RankLegs():
                return tuple(self._ranked(request.legs[0]) for _ in request.legs)
            case RankGroups():
                rank = Rank(request.partition, request.filter, request.vector, 100, request.payload)
                groups: dict[str, list[Any]] = {}
                for point in self._ranked(rank):
                    groups.setdefault(point.payload["document"], []).append(point)
                return [point for group in list(groups.values())[: request.limit] for point in group[: request.size]]
        return self.model(request)

    def _ranked(self, request: Rank) -> list[Any]:
        whole = Rank(request.partition, request.filter, request.vector, 100, request.payload)
        found = self.model(whole)
        return [one for one in found if (one.payload["document"], one.payload["chunk_id"]) not in self.lost]

    def close(self) -> None:
        """There is nothing to close."""


def filled(*lost: tuple[str, str]) -> Server:
    server = Server(*lost)
    for document, chunks in ROWS.items():
        run(ADAPTER.upsert(Upsert(TENANT, ALWAYS, records(document, chunks, "text"))), {"store": server})
    return server


def searched(server: Server, k: int, per_group: int | None, adapter: QdrantAdapter = ADAPTER) -> Found:
    vector = np.array([1.0, 0.5], np.float32)
    query: Any = VectorQuery(vector) if adapter is ADAPTER else HybridQuery("text", vector)
    more: dict[str, Any] = {} if per_group is None else {"group_by": "document", "per_group": per_group}
    return run(adapter.search(Search(TENANT, ALWAYS, ALWAYS, query, k, frozenset(), **more)), {"store": server})


@pytest.mark.parametrize("adapter", [ADAPTER, WORDED], ids=["vector", "hybrid"])
@pytest.mark.parametrize(("lost", "k", "per_group", "complete"), CASES)
def test_what_the_ranking_lost_is_said(
    lost: list[tuple[str, str]], k: int, per_group: int | None, complete: bool, adapter: QdrantAdapter
) -> None:
    found = searched(filled(*lost), k, per_group, adapter)
    assert found.complete == complete
    assert (found.shortfall is None) == complete


@pytest.mark.parametrize("adapter", [ADAPTER, WORDED], ids=["vector", "hybrid"])
@pytest.mark.parametrize("per_group", [None, 3])
def test_what_a_broken_off_replacement_left_is_not_missed(per_group: int | None, adapter: QdrantAdapter) -> None:
    """Its points are of no published version, and no row that a search could have found."""
    server = filled()

    class KilledError(Exception):
        pass

    def broken(request: Any, timeout: float | None) -> Any:
        if isinstance(request, Write):
            server.model(Write(request.partition, request.operations[:3]))
            raise KilledError
        return Server.execute(server, request, timeout)

    port = Server()
    port.execute = broken  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        run(ADAPTER.replace(Replace(TENANT, ALWAYS, "one", records("one", 5, "text"))), {"store": port})
    found = searched(server, 10, per_group, adapter)
    assert len(found.hits) == 6
    assert found.complete
