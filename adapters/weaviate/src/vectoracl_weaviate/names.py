"""The names that the adapter creates: tenants, ids, properties, and the stored form of keywords. No others are sent.

A Weaviate tenant name has 1 to 64 letters, digits, `-` and `_`, but a vectoracl tenant id is any text of 256 bytes. An
id of the safe alphabet gets the prefix `t_`, any other is hashed after the prefix `h_`, so two ids never share a name.
The tokenization FIELD compares a whole value but trims white space around it, so a keyword is stored between two bars.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from vectoracl.filters.field_types import SHORT_NAMES, FieldType
from vectoracl.filters.validation import declarable
from vectoracl.model.records import Tag, stored_key

_SAFE = re.compile(r"[A-Za-z0-9_-]{1,62}\Z")
_HASH_BYTES = 30  # 60 hex digits: 62 characters with the prefix


def tenant_name(tenant: str) -> str:
    """Return Weaviate's name of *tenant*: readable where the id is of the safe alphabet, else a hash."""
    if _SAFE.match(tenant):
        return f"t_{tenant}"
    return f"h_{hashlib.blake2b(tenant.encode(), digest_size=_HASH_BYTES).hexdigest()}"


def readable(name: str) -> str | None:
    """Return the tenant whose name is *name*; None where it is a hash, or none of ours."""
    return name[2:] if name.startswith("t_") and _SAFE.match(name[2:]) else None


def id_of(tag: Tag, version: str = "") -> str:
    """Return the id of the object that holds the chunk of *tag*: 128 bits of `records.stored_key`, as a UUID.

    *version* names the replacement that made its generation, "" where none did: two replacements that meet in one
    generation write different objects. Where there is one, both are hashed together.
    """
    key = stored_key(tag.tenant, tag.document, tag.generation, tag.chunk)
    if version:
        key = hashlib.blake2b(f"{key}{version}".encode(), digest_size=16).hexdigest()
    return f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:32]}"


def seek_key(document: str, generation: int, chunk: str) -> str:
    """Return hex digits that sort as (document, generation, chunk id) does.

    Hex, because Weaviate's sort order of text and its `greater than` disagree on other alphabets. Ids hold no NUL.
    """
    return (document.encode() + b"\0" + generation.to_bytes(8, "big") + chunk.encode()).hex()


def property_of(name: str, kind: FieldType) -> str:
    """Return the property of a declared field. The part between the underscores is the type: injective."""
    return f"m_{SHORT_NAMES[kind]}_{name}"


def escape(value: str) -> str:
    """Return the stored form of a keyword."""
    return f"|{value}|"


def unescape(stored: str) -> str:
    """Return the keyword whose stored form is *stored*. Raises: ValueError."""
    if len(stored) < 2 or stored[0] != "|" or stored[-1] != "|":
        raise ValueError("not a stored keyword")
    return stored[1:-1]


def present(metadata: Mapping[str, Any]) -> list[str]:
    """Return the keys of *metadata* that are fields or can be declared as such later."""
    return sorted(name for name in metadata if declarable(name))


def known(name: str, kind: FieldType) -> tuple[str, str]:
    """Return the two markers of a declared field: of an object that has it, and of one that does not.

    An object has neither where its writer did not know the field, or knew it as another type: its property then says
    nothing, and its metadata has to be read. No metadata key begins like a marker (see `fields.declarable`).
    """
    return f"+{SHORT_NAMES[kind]}:{name}", f"-{SHORT_NAMES[kind]}:{name}"


def markers(metadata: Mapping[str, Any], fields: Mapping[str, FieldType]) -> list[str]:
    """Return what an object with *metadata* is marked with by a writer that knows *fields*."""
    return [known(name, kind)[name not in metadata] for name, kind in sorted(fields.items())]
