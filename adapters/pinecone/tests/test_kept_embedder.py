"""The index keeps whose vectors it holds; another embedder is refused with the cure."""

from __future__ import annotations

from vectoracl_conformance.adapter_tests import kept_embedder
from vectoracl_conformance.adapter_tests.kept_embedder import One, Other, provision

from pinecone_support.stores import Provisioned


def test_an_existing_store_learns_its_embedder_at_the_next_provision(store: Provisioned) -> None:
    kept_embedder.write_before(store.config)
    provision(store.config, One())
    provision(store.config, One())
    kept_embedder.assert_kept(store.config, One(), Other())


def test_two_configurations_with_embedders_of_one_length_meet_in_one_store_for_asyncio(store: Provisioned) -> None:
    kept_embedder.assert_second_is_refused(store.config)
