"""The ids and payload paths that the adapter creates; requests contain no others.

Ids are global in a collection, so a chunk's point id is a digest of (tenant, document, generation, chunk id) and the
name of the version: a tenant cannot name, and so cannot overwrite, a point of another tenant, and two replacements of
one document never share a point. Metadata that filters use is in one object, and each key has its type as a prefix
(`fields.num_year`), so that a user's key never collides with a tag, values are never compared with those of another
type, and the only dots in a path are the adapter's.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from vectoracl.filters.datetimes import datetime_text
from vectoracl.filters.field_types import SHORT_NAMES, FieldType
from vectoracl.filters.validation import declarable
from vectoracl.model.records import Tag, stored_key
from vectoracl_qdrant.config import Payload

_ORDER_BYTES = 6  # 48 bits: exact in a double, which the server compares by
NO_VERSION = ""
_NAMED = "r:"
HEADS = "*heads"
"""The group of the documents' heads, in the tenant's key. No tenant is called so: a tenant's id has no *."""


def version_name(digest: str) -> str:
    """Return the name of the version that one replacement makes. Its points' ids depend on it."""
    return _NAMED + digest


def named(version: str) -> bool:
    """Return whether *version* is such a name; others are of upserts, and of replacements before there were names."""
    return version.startswith(_NAMED)


def point_id(tenant: str, document: str, generation: int, chunk: str, version: str = NO_VERSION) -> str:
    """Return the point's id: 128 bits of `records.stored_key`, and of the version's name if it has one, as a UUID."""
    key = stored_key(tenant, document, generation, chunk)
    if named(version):
        key = hashlib.blake2b(f"{key}{version}".encode(), digest_size=16).hexdigest()
    return str(uuid.UUID(hex=key[:32]))


def id_of(tag: Tag, version: str = NO_VERSION) -> str:
    """Return the id of the point that holds the chunk of *tag* in *version*."""
    return point_id(tag.tenant, tag.document, tag.generation, tag.chunk, version)


def head_id(tenant: str, document: str) -> str:
    """Return the id of the document's head, which names its published version (see `heads`)."""
    return point_id(HEADS, tenant, 0, document)


def shard_of(tenant: str) -> str:
    """Return the shard key of a tenant's own shard; in front of it is what the shared shard's name cannot have."""
    return f"tenant:{tenant}"


def order_of(document: str) -> int:
    """Return a number that sorts like the first six bytes of the document ids."""
    return int.from_bytes(document.encode()[:_ORDER_BYTES].ljust(_ORDER_BYTES, b"\0"), "big")


def field_path(payload: Payload, name: str, kind: FieldType) -> str:
    """Return the payload path of a declared field."""
    return f"{payload.fields}.{field_key(name, kind)}"


def field_key(name: str, kind: FieldType) -> str:
    """Return the key of a declared field in its object. The part up to the first underscore is the type: injective."""
    return f"{SHORT_NAMES[kind]}_{name}"


def flag(value: bool) -> str:  # noqa: FBT001 - it is the value itself
    """Return a boolean as the keyword that stands for it: one kind of equality less to get exactly right."""
    return "true" if value else "false"


def filterable(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return checked *metadata* as the object that can be filtered, and the names of the keys that are present.

    Keys that are not declared now are kept too, so that they can be declared later; a list with values of several
    types is split by type. What no field type can hold (objects, lists of lists) is only present.
    """
    payload: dict[str, Any] = {}
    present = sorted(name for name in metadata if declarable(name))
    for name in present:
        payload.update(_typed(name, metadata[name]))
    return payload, present


def _typed(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield f"bool_{name}", flag(value)
    elif isinstance(value, str):
        yield f"kw_{name}", value
    elif isinstance(value, int | float):
        yield f"num_{name}", value + 0  # -0.0 + 0 is 0.0
    elif isinstance(value, datetime):
        yield f"date_{name}", datetime_text(value)
    elif isinstance(value, list | tuple):
        texts = [one for one in value if isinstance(one, str)]
        numbers = [one + 0 for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
        if texts:
            yield f"kws_{name}", texts
        if numbers:
            yield f"nums_{name}", numbers
