"""An answer that takes several requests has one version of each document, whatever is written between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Search
from vectoracl.filters.predicate import ALWAYS, Eq, Not
from vectoracl.model.queries import VectorQuery
from vectoracl_conformance.adapter_tests import interleaved
from vectoracl_conformance.adapter_tests.interleaved import FIELDS, Read
from vectoracl_conformance.adapter_tests.shapes import TENANT, TEXT
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.config import PineconeConfig

from pinecone_support.model import Model

SETTINGS = {"api_key": "none", "index": "i", "dimension": 2, "page": 2, "fetch_by_metadata": True}


def adapter(**settings: Any) -> PineconeAdapter:
    return PineconeAdapter(PineconeConfig.model_validate({**SETTINGS, **settings}), FIELDS)


ADAPTER = adapter()
NOT_THE_OTHERS = Not(Eq("by", "other"))


def search() -> Flow[list[str]]:
    query = VectorQuery(np.array([1.0, 0.5], np.float32))
    found = yield from ADAPTER.search(Search(TENANT, ALWAYS, NOT_THE_OTHERS, query, 9, TEXT))
    return [hit.text for hit in found.hits]


READS: dict[str, Read] = {
    "scan": lambda: interleaved.scan(ADAPTER),
    "scan of some": lambda: interleaved.scan(ADAPTER, NOT_THE_OTHERS, 3),
    "fetch": lambda: interleaved.fetch(ADAPTER),
    "fetch by listing": lambda: interleaved.fetch(adapter(fetch_by_metadata=False)),
    "search": search,
}


@pytest.mark.parametrize("read", READS)
def test_one_version_of_a_document_in_every_order(read: str) -> None:
    first = interleaved.begin(ADAPTER, Model())
    interleaved.assert_one_version(
        lambda: interleaved.world(READS[read], interleaved.made_again(ADAPTER), Model(first.records))
    )
