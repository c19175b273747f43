"""Keyed hashes of what a read returned, so that it can be told later whether a read returned a certain chunk.

A hash is HMAC-SHA-256, with the key of the configuration, of a chunk's tenant, document and id. Without the key it says
nothing of them; with it, the hash of a chunk in question is computed (`returned_hash`) and looked for in the
outcomes. Whoever has both the key and a list of ids can tell all of them, so the key is kept apart from the records.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterable
from typing import Any

from vectoracl.errors import ConfigError
from vectoracl.model.records import Hit

MIN_KEY_BYTES = 32
MOST_IDS = 10_000
"""How many different chunks one outcome holds; `more` says how many were returned beyond that."""
_LENGTH = struct.Struct(">Q").pack


def check_key(key: str) -> bytes:
    """Return *key* as bytes. Raises: ConfigError if it is shorter than 32 bytes; it is not quoted."""
    data = key.encode(errors="surrogatepass")
    if len(data) < MIN_KEY_BYTES:
        raise ConfigError(
            f"audit.key has {len(data)} bytes; {MIN_KEY_BYTES} at least are needed. Make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))".'
        )
    return data


def key_id(key: str) -> str:
    """Return what an outcome calls *key*, so that it is known which one to use after it was changed; 16 hex digits."""
    return hmac.new(check_key(key), b"vectoracl audit key id", hashlib.sha256).hexdigest()[:16]


def returned_hash(key: str, tenant: str, document: str, chunk: str) -> str:
    """Return what an outcome holds for a chunk that was returned, 64 hex digits. Raises: ConfigError: a short key."""
    return _hash(check_key(key), tenant, document, chunk)


def _hash(key: bytes, *parts: str) -> str:
    # Each part with its length in front: plain concatenation collides ("a" + "bc" is "ab" + "c").
    raw = [part.encode() for part in parts]
    return hmac.new(key, b"".join(_LENGTH(len(one)) + one for one in raw), hashlib.sha256).hexdigest()


class ReturnedIds:
    """Describes the chunks that a read returned, for its outcome."""

    def __init__(self, key: str) -> None:
        self._key = check_key(key)
        self._id = key_id(key)

    def of(self, hits: Iterable[Hit]) -> dict[str, Any]:
        """Return {"key", "hashes", "more"}: the different chunks of *hits* in their order, `MOST_IDS` at the most."""
        seen = dict.fromkeys((hit.tenant, hit.document, hit.id) for hit in hits)
        hashes = [_hash(self._key, *one) for one, _ in zip(seen, range(MOST_IDS), strict=False)]
        return {"key": self._id, "hashes": hashes, "more": len(seen) - len(hashes)}
