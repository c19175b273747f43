"""The namespaces, record ids and metadata keys that the adapter creates; requests contain no others.

A tenant's namespace is the configured prefix and an injective, lower-case encoding of the tenant id: it is never empty
and never the default namespace, and two tenants share one only if their ids are the same string.

A record's id contains document, generation and chunk in a form that sorts like (document, generation, chunk id).
Pinecone lists ids in the order of their bytes, so a scan can page through them, and all chunks of a document have a
common prefix. The last part is a digest of (tenant, document, generation, chunk id), so an id belongs to one tenant
even if the record is moved to another namespace.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from vectoracl.errors import RefusedError
from vectoracl.filters.field_types import SHORT_NAMES, FieldType
from vectoracl.filters.validation import declarable
from vectoracl.model.records import Tag, stored_key
from vectoracl_pinecone.config import Keys

DEFAULT_NAMESPACE = "__default__"
_READABLE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}\Z")
_NAMESPACE = re.compile(r"[a-z0-9_.-]{1,250}\Z")
_SORTED_HEX = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789abcdefghijklmnopqrstuv")
_NAME_BYTES = 100
_KEY_DIGITS = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(65_536)
def namespace_of(prefix: str, tenant: str) -> str:
    """Return the namespace of *tenant*.

    `PREFIXt-acme` where the id is of small letters, digits, `_`, `.` and `-`; `PREFIXx-` with the id's bytes in hex
    where it is short enough (100 bytes); else `PREFIXh-` with a digest of 256 bits. The letter after the prefix
    distinguishes the three forms, so no id can have the name of another one.
    """
    if not tenant:
        raise RefusedError("A request without a tenant was refused before it was sent.")
    if _READABLE.match(tenant):
        return f"{prefix}t-{tenant}"
    raw = tenant.encode()
    if len(raw) <= _NAME_BYTES:
        return f"{prefix}x-{raw.hex()}"
    return f"{prefix}h-{hashlib.blake2b(raw, digest_size=32).hexdigest()}"


def tenant_of(prefix: str, namespace: str) -> str | None:
    """Return the tenant that *namespace* names; None where it is a digest, or no tenant's namespace at all."""
    kind, _, name = namespace.removeprefix(prefix).partition("-")
    if not namespace.startswith(prefix):
        return None
    if kind == "t":
        tenant = name
    elif kind == "x":
        try:
            tenant = bytes.fromhex(name).decode()
        except ValueError:
            return None
    else:
        return None
    return tenant if tenant and namespace_of(prefix, tenant) == namespace else None


def check_namespace(prefix: str, partition: str | None, namespace: object) -> None:
    """Refuse every namespace but the tenant's own: the last gate before the client, which drops an empty one.

    Raises: RefusedError with the code "confinement", with nothing sent.
    """
    if (
        not prefix
        or not isinstance(namespace, str)
        or not _NAMESPACE.match(namespace)
        or namespace == DEFAULT_NAMESPACE
        or not namespace.startswith(prefix)
        or len(namespace) == len(prefix)
        or (partition is not None and namespace != namespace_of(prefix, partition))
        or partition == ""
    ):
        error = RefusedError("A request outside of its tenant's namespace was refused before it was sent.")
        error.code = "confinement"
        raise error


def unused_namespace(prefix: str) -> str:
    """Return a namespace that no tenant has and that is never written to: no tenant's begins with these letters."""
    return f"{prefix}nobody-"


def about_namespace(prefix: str) -> str:
    """Return the namespace of the store's notes about itself, which no tenant has for the same reason."""
    return f"{prefix}about-"


def _sorted_name(raw: bytes) -> str:
    """Return *raw* in characters that sort as its bytes do (base32, with digits before letters)."""
    return base64.b32encode(raw).decode().rstrip("=").translate(_SORTED_HEX)


@lru_cache(16_384)
def name_part(name: str) -> str:
    """Return the part of an id that stands for *name*: it sorts like the names by their first 100 bytes.

    A longer name keeps its first 100 bytes, followed by `~` and a digest, which sorts after every shorter name. The
    digest has 128 bits, so that an attacker cannot find two names with one prefix, whose records would be listed as
    those of one document.
    """
    raw = name.encode()
    if len(raw) <= _NAME_BYTES:
        return _sorted_name(raw)
    return f"{_sorted_name(raw[:_NAME_BYTES])}~{hashlib.blake2b(raw, digest_size=16).hexdigest()}"


def document_prefix(document: str) -> str:
    """Return the prefix of the ids of all chunks of *document*, and of no other."""
    return f"{name_part(document)}."


def _number(value: int) -> str:
    digits = f"{value:x}"
    return f"{len(digits):x}{digits}"  # the length in front: 9 sorts before 10


def record_id(tenant: str, document: str, generation: int, chunk: str) -> str:
    """Return the record's id, 462 characters at the most (Pinecone takes 512)."""
    key = stored_key(tenant, document, generation, chunk)[:_KEY_DIGITS]
    return f"{name_part(document)}.{_number(generation)}.{name_part(chunk)}.{key}"


def id_of(tag: Tag) -> str:
    """Return the id of the record that holds the chunk of *tag*."""
    return record_id(tag.tenant, tag.document, tag.generation, tag.chunk)


class Parts(NamedTuple):
    """A record's id, taken apart; the names are as `name_part` writes them."""

    document: str
    generation: int
    chunk: str

    @property
    def cut(self) -> bool:
        """Whether a name is longer than what sorts, so that the order within such names is not the ids' order."""
        return "~" in self.document or "~" in self.chunk


def parts(id_: str) -> Parts | None:
    """Take a record's id apart; None where it is not of our form."""
    try:
        document, number, chunk, key = id_.split(".")
        generation = int(number[1:], 16)
    except ValueError:
        return None
    if len(key) != _KEY_DIGITS or _number(generation) != number or not document or not chunk:
        return None
    return Parts(document, generation, chunk)


def field_key(keys: Keys, name: str, kind: FieldType) -> str:
    """Return the metadata key of a declared field. What is between the prefix and the next _ is the type: injective."""
    return f"{keys.fields}{SHORT_NAMES[kind]}_{name}"


def moment_keys(keys: Keys, name: str) -> tuple[str, str]:
    """Return the two keys of a datetime: whole seconds, and microseconds of the second. One double is too small."""
    return f"{keys.fields}date_{name}", f"{keys.fields}micro_{name}"


def present_key(keys: Keys, name: str) -> str:
    """Return the key that a record has if it has the metadata *name*, of any type."""
    return f"{keys.present}{name}"


def moment(value: datetime) -> tuple[int, int]:
    """Return an aware datetime as whole seconds since 1970 and microseconds (0 to 999,999); both are exact."""
    past = value - _EPOCH
    return past.days * 86_400 + past.seconds, past.microseconds


def number_text(value: float) -> str:
    """Return a number of a list as text, the same for equal numbers: Pinecone's lists hold strings only."""
    return float(value + 0.0).hex()


def flag(value: bool) -> str:  # noqa: FBT001 - it is the value itself
    """Return a boolean as the keyword that stands for it: one kind of equality less to get exactly right."""
    return "true" if value else "false"


def filterable(keys: Keys, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked *metadata* as the keys that can be filtered by.

    Keys that are not declared now are kept too, so that they can be declared later; a list with values of several
    types is split by type. What no field type can hold (objects, lists of lists) is only present.
    """
    payload: dict[str, Any] = {}
    for name, value in metadata.items():
        if declarable(name):
            payload[present_key(keys, name)] = True
            payload.update(_typed(keys.fields, name, value))
    return payload


def _typed(prefix: str, name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield f"{prefix}bool_{name}", flag(value)
    elif isinstance(value, str):
        yield f"{prefix}kw_{name}", value
    elif isinstance(value, int | float):
        yield f"{prefix}num_{name}", value + 0  # -0.0 + 0 is 0.0
    elif isinstance(value, datetime):
        seconds, micros = moment(value)
        yield f"{prefix}date_{name}", seconds
        yield f"{prefix}micro_{name}", micros
    elif isinstance(value, list | tuple):
        texts = [one for one in value if isinstance(one, str)]
        numbers = [number_text(one) for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
        if texts:
            yield f"{prefix}kws_{name}", texts
        if numbers:
            yield f"{prefix}nums_{name}", numbers
