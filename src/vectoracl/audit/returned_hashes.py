"""Keyed hashes of the chunks that a read returned, to find out later whether a read returned a certain chunk.

A hash is HMAC-SHA-256, with the key of the configuration, of a chunk's tenant, document and id. Without the key it
reveals nothing; with the key, the hash of a chunk in question is computed (`returned_hash`) and searched for in the
outcomes. With both the key and a list of ids, all hashes can be resolved, so keep the key separate from the records.
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
"""The maximum number of distinct chunks in one outcome; `more` is the number of those beyond it."""
_LENGTH = struct.Struct(">Q").pack


def check_key(key: str) -> bytes:
    """Return *key* as bytes. Raises: ConfigError if it is shorter than 32 bytes; it is not quoted."""
    data = key.encode(errors="surrogatepass")
    if len(data) < MIN_KEY_BYTES:
        raise ConfigError(
            f"audit.key has {len(data)} bytes; at least {MIN_KEY_BYTES} are required. Generate one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))".'
        )
    return data


def key_id(key: str) -> str:
    """Return the id of *key* in outcomes, 16 hex digits, to find the right key after it was changed."""
    return hmac.new(check_key(key), b"vectoracl audit key id", hashlib.sha256).hexdigest()[:16]


def returned_hash(key: str, tenant: str, document: str, chunk: str) -> str:
    """Return the hash of a returned chunk, 64 hex digits. Raises: ConfigError for a key that is too short."""
    return _hash(check_key(key), tenant, document, chunk)


def _hash(key: bytes, *parts: str) -> str:
    # Each part with its length in front: plain concatenation collides ("a" + "bc" is "ab" + "c").
    raw = [part.encode() for part in parts]
    return hmac.new(key, b"".join(_LENGTH(len(one)) + one for one in raw), hashlib.sha256).hexdigest()


class ReturnedIds:
    """Computes the part of an outcome that describes the returned chunks."""

    def __init__(self, key: str) -> None:
        self._key = check_key(key)
        self._id = key_id(key)

    def of(self, hits: Iterable[Hit]) -> dict[str, Any]:
        """Return {"key", "hashes", "more"} of the distinct chunks of *hits*, in order, at most `MOST_IDS`."""
        chunks = dict.fromkeys((hit.tenant, hit.document, hit.id) for hit in hits)
        hashes = [_hash(self._key, *one) for one, _ in zip(chunks, range(MOST_IDS), strict=False)]
        return {"key": self._id, "hashes": hashes, "more": len(chunks) - len(hashes)}
