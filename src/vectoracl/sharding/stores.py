"""The identity of the stores of a plan, so that a shard runs against no other ones."""

from __future__ import annotations

from vectoracl.adapter_api.store_identity import running
from vectoracl.client.connect import AsyncVectorACL, VectorACL
from vectoracl.errors import RefusedError
from vectoracl.sharding.shards import StoreKey, key_of_store


def store_key(acl: VectorACL, store: str) -> StoreKey:
    """Return the key of *store*. Raises: RefusedError if the adapter does not identify it; StoreError."""
    return _key(acl, store, acl.store_identity(store))


async def async_store_key(acl: AsyncVectorACL, store: str) -> StoreKey:
    """See `store_key`."""
    return _key(acl, store, await acl.store_identity(store))


def _key(acl: VectorACL | AsyncVectorACL, store: str, identity: frozenset[str]) -> StoreKey:
    # Not by its data: a restored backup has the same, without what was written since.
    texts = running(identity)
    if not texts:
        raise RefusedError(
            f"The adapter {acl.config.stores[store].adapter!r} does not identify the physical store that it reaches, "
            "so shards cannot be bound to it. Run the job without shards.",
            field="adapter",
        )
    return key_of_store(sorted(texts), acl.meaning_of(store))
