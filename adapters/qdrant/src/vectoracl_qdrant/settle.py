"""Completes or removes what interrupted writes left in a tenant, before a registry takes over. A flow.

A registry knows a version of a document by its generation alone, and reads neither marks nor heads (`versions`). So
each document is left with the one version that readers see now, without marks, and the heads go. A document that is
written under the registry, or after the registry was removed again, needs none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from qdrant_client import models

from vectoracl.adapter_api.contract import Flow
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.requests import Scroll, Write
from vectoracl_qdrant.versions import Versions


class Settled(NamedTuple):
    """The number of points that were removed, and of those whose mark was."""

    removed: int
    unmarked: int


def settled(
    config: QdrantConfig, compiled: QdrantCompiler, versions: Versions, pages: Pages, tenant: str
) -> Flow[Settled]:
    """Remove what readers of *tenant* do not see, then the marks and the heads."""
    whole = compiled.rows(tenant)
    assert whole is not None
    points = yield from pages.keys(tenant, whole)
    stale = yield from versions.stale(tenant, points)
    gone: list[str] = []
    marked: list[str] = []
    for point in points:
        document, generation, version, mark = versions.of(point)
        if (document, generation, version) in stale:
            gone.append(str(point.id))
        elif mark is not None:
            marked.append(str(point.id))
    for ids in _parts(gone, config.page):
        yield from Write(tenant, tuple(compiled.drop(tenant, compiled.ids(ids))))
    for ids in _parts(marked, config.page):
        yield from Write(tenant, tuple(compiled.unmarked(tenant, compiled.ids(ids))))
    heads = models.Filter(must=[*versions.heads.of(tenant)])
    if (yield from Scroll(tenant, heads, 1)).points:  # else nothing is written
        selector = models.FilterSelector(filter=heads, shard_key=compiled.shard(tenant))
        yield from Write(tenant, (models.DeleteOperation(delete=selector),))
    return Settled(len(gone), len(marked))


def _parts(ids: list[str], size: int) -> Iterator[Iterable[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
