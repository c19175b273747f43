"""The form of every identifier: tenants, documents, chunks, metadata keys. One place, so that no two disagree.

Two identifiers are the same only if they are the same string. Look-alikes (case, composed and decomposed letters,
trailing blanks) are either refused or stay different; nothing is trimmed, folded or normalised on the way.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from vectoracl.errors import InvalidInputError, InvalidPrincipalError, InvalidTenantError

MAX_TENANT_BYTES = 256
MAX_ID_BYTES = 512
_WILDCARDS = frozenset("*?%")
_WILDCARD = "has a wildcard character (*, ? or %)"
# Cc control (with NUL), Cs surrogate (has no UTF-8 form), Cn unassigned, Cf format (zero-width and direction marks),
# Zl and Zp line separators: a person cannot see them, so two tenants would look alike.
_INVISIBLE = frozenset({"Cc", "Cs", "Cn", "Cf", "Zl", "Zp", "Co"})


def plain(value: str) -> str:
    """Return the characters of *value* as a `str` of no subclass, whose methods could say something else."""
    return value if type(value) is str else str.__str__(value)


def _problem(value: object, limit: int) -> str | None:
    """Say what is wrong with *value* as an identifier of at most *limit* UTF-8 bytes, or None."""
    if not isinstance(value, str):
        return f"must be a string, not {type(value).__name__}"
    value = plain(value)
    if not value:
        return "is empty"
    if len(value) > limit:
        return f"is longer than {limit} bytes"
    if value.isascii() and value.isprintable():
        return "begins or ends with a blank" if value[0] == " " or value[-1] == " " else None
    for char in value:
        if unicodedata.category(char) in _INVISIBLE:
            return f"has an invisible or control character (U+{ord(char):04X})"
    if len(value.encode()) > limit:
        return f"is longer than {limit} bytes"
    if value != value.strip():
        return "begins or ends with a blank"
    if not unicodedata.is_normalized("NFC", value):
        return "is not in Unicode normal form C"
    return None


def check_tenant(value: object) -> str:
    """Return *value* if it is a tenant id.

    A tenant id has 1 to 256 UTF-8 bytes in normal form C, no blank at either end, no invisible or control character
    and none of `*`, `?`, `%`, which some store or policy would read as "any".

    Raises: InvalidTenantError, which does not quote the value.
    """
    problem = _problem(value, MAX_TENANT_BYTES)
    if problem is None and isinstance(value, str):
        kept = plain(value)
        if not _WILDCARDS.intersection(kept):
            return kept
        problem = _WILDCARD
    raise InvalidTenantError(f"The tenant id {problem}. Pass the id exactly as it was verified.", field="tenant")


def check_principal_id(value: object, field: str = "id") -> str:
    """Return *value* if it is a principal's id (or role, or group): the form of a tenant id, up to 512 bytes.

    Raises: InvalidPrincipalError with `.field` = *field*.
    """
    problem = _problem(value, MAX_ID_BYTES)
    if problem is None and isinstance(value, str):
        kept = plain(value)
        if not _WILDCARDS.intersection(kept):
            return kept
        problem = _WILDCARD
    what = "The principal's id" if field == "id" else f"One of the principal's {field}"
    raise InvalidPrincipalError(f"{what} {problem}. Pass it exactly as it was verified.", field=field)


def check_id(value: object, field: str) -> str:
    """Return *value* if it is a document's or a chunk's id: 1 to 512 UTF-8 bytes, visible, in normal form C.

    Raises: InvalidInputError with `.field` = *field*.
    """
    problem = _problem(value, MAX_ID_BYTES)
    if problem is None and isinstance(value, str):
        return plain(value)
    raise InvalidInputError(f"The {field} {problem}.", field=field)


def check_text(value: object, field: str, limit: int = 1 << 20) -> str:
    """Return *value* if it is text that every store can hold: a string without NUL and lone surrogates.

    *limit* is in UTF-8 bytes. Raises: InvalidInputError with `.field` = *field*; the text is not quoted.
    """
    if not isinstance(value, str):
        raise InvalidInputError(f"{field} must be a string, not {type(value).__name__}.", field=field)
    value = plain(value)
    if "\0" in value:
        raise InvalidInputError(f"{field} holds a NUL character, which no store keeps.", field=field)
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:  # it holds the text, so it is over before another one is raised
            size = -1
        if size < 0:
            raise InvalidInputError(f"{field} holds a lone surrogate, which has no UTF-8 form.", field=field)
    if size > limit:
        raise InvalidInputError(f"{field} has {size} bytes; the limit is {limit}.", field=field)
    return value


def skeleton(tenant: str) -> str:
    """Return what is left of *tenant* when case, width, blanks and what cannot be seen are taken away."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tenant).casefold())
    return "".join(
        char for char in folded if not char.isspace() and unicodedata.category(char) not in ("Cf", "Cc", "Zl", "Zp")
    )


def look_alikes(tenants: Iterable[str]) -> list[list[str]]:
    """Return the groups of *tenants* that a person could take for each other, sorted."""
    alike: dict[str, set[str]] = {}
    for tenant in tenants:
        alike.setdefault(skeleton(tenant), set()).add(tenant)
    return sorted(sorted(group) for group in alike.values() if len(group) > 1)
