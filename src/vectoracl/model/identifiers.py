"""Checks of all identifiers: tenants, principals, documents, chunks and metadata keys.

Two identifiers are equal only if they are the same string. Look-alikes (case, composed and decomposed letters, trailing
blanks) are either refused or stay different; identifiers are never trimmed, folded or normalised.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from urllib.parse import quote

from vectoracl.errors import InvalidInputError, InvalidPrincipalError, InvalidTenantError
from vectoracl.model import identifier_tables as tables

MAX_TENANT_BYTES = 256
MAX_ID_BYTES = 512
_WILDCARDS = frozenset("*?%")
_WILDCARD = "has a wildcard character (*, ? or %)"
# Cc control (with NUL), Cs surrogate (has no UTF-8 form), Cn unassigned, Cf format (zero-width and direction marks),
# Zl and Zp line separators: they are invisible, so two tenants would look alike.
_INVISIBLE = frozenset({"Cc", "Cs", "Cn", "Cf", "Zl", "Zp", "Co"})


def _ranges(table: str) -> list[tuple[int, int]]:
    pairs = [one.partition("-") for one in table.split()]
    return [(int(first, 16), int(last or first, 16)) for first, _, last in pairs]


def _class(table: str) -> str:
    """Return *table* as the inside of a class of a regular expression."""
    return "".join(chr(a) if a == b else f"{chr(a)}-{chr(b)}" for a, b in _ranges(table))


class _Patterns:
    """Regular expressions from the tables of the standard, compiled for the first id with non-ASCII characters (20 ms).

    All characters of the tables are non-ASCII, so none of them is special inside a character class.
    """

    def __init__(self) -> None:
        pictograph = f"[{_class(tables.PICTOGRAPHS)}]"
        self.tenant = re.compile(rf"[ -~{_class(tables.ALLOWED)}]*\Z")
        self.ignorable = re.compile(f"[{_class(tables.IGNORABLE)}]")
        self.joined_before = re.compile(f"[{_class(tables.JOINS_NEXT)}]{_MARKS}\\Z")
        self.joined_after = re.compile(f"{_MARKS}[{_class(tables.JOINS_PREVIOUS)}]")
        self.pictograph_before = re.compile(f"{pictograph}[\ufe0f\U0001f3fb-\U0001f3ff]?\\Z")
        self.pictograph_after = re.compile(pictograph)
        self.emoji_before = re.compile(f"({pictograph}|[0-9#*])\\Z")


_patterns = cache(_Patterns)
_MARKS = r"[\u0300-\u036f\u0483-\u0489\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed]*"
_FLAG_BEFORE = re.compile("\U0001f3f4[\U000e0020-\U000e007e]*\\Z")
_HAN_BEFORE = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]\\Z")
_MONGOLIAN_BEFORE = re.compile("[\u1820-\u18aa]\\Z")
_ZWNJ, _ZWJ, _VIRAMA, _CONTEXT = "\u200c", "\u200d", 9, 64
# Symbols that are displayed as nothing: the blank of Braille, and the object replacement character.
_BLANKS = frozenset("\u2800\ufffc")


def plain(value: str) -> str:
    """Return *value* as a plain `str`: the methods of a subclass could return something else."""
    return value if type(value) is str else str.__str__(value)


def invisible(char: str) -> bool:
    """Return whether *char* is invisible, or visible only as a part of the letter before it."""
    return (
        unicodedata.category(char) in ("Cf", "Cc", "Zl", "Zp")
        or char in _BLANKS
        or _patterns().ignorable.match(char) is not None
        or unicodedata.combining(char) == 1
    )


def _after_virama(before: str) -> bool:
    """Return whether *before* ends with a virama, possibly followed by further marks."""
    for char in reversed(before):
        order = unicodedata.combining(char)
        if order in (0, _VIRAMA):
            return order == _VIRAMA
    return False


def _belongs(char: str, before: str, after: str) -> bool:
    """Return whether *char*, which is invisible by itself, has a meaning between *before* and *after*.

    These are a joiner or non-joiner where UAX 31 allows it (section 2.3, rules A1, A2 and B) and in an emoji sequence,
    a variation selector after a character with variants, and a tag in the sequence of a flag.
    """
    if char == _ZWNJ:
        joins = (
            _patterns().joined_before.search(before) is not None and _patterns().joined_after.match(after) is not None
        )
        return joins or (_after_virama(before) and after[:1].isalpha())
    if char == _ZWJ:
        emoji = (
            _patterns().pictograph_before.search(before) is not None
            and _patterns().pictograph_after.match(after) is not None
        )
        return emoji or _after_virama(before)
    code = ord(char)
    if code in (0xFE0E, 0xFE0F):
        return _patterns().emoji_before.search(before) is not None
    if 0xFE00 <= code <= 0xFE0D:
        return not before[-1:].isascii() and unicodedata.category(before[-1]) in ("Lo", "Sm")
    if 0xE0100 <= code <= 0xE01EF:
        return _HAN_BEFORE.search(before) is not None
    if code in (0x180B, 0x180C, 0x180D, 0x180E, 0x180F):
        return _MONGOLIAN_BEFORE.search(before) is not None
    return 0xE0020 <= code <= 0xE007F and _FLAG_BEFORE.search(before) is not None


def _first_problem(value: str) -> str | None:
    """Return a text on the first character of *value* that is invisible or not allowed at its position, or None."""
    for place, char in enumerate(value):
        if unicodedata.category(char) not in _INVISIBLE and not _patterns().ignorable.match(char):
            continue
        if not _belongs(char, value[max(0, place - _CONTEXT) : place], value[place + 1 : place + 1 + _CONTEXT]):
            return f"has an invisible or control character (U+{ord(char):04X})"
    return None


def _problem(value: object, limit: int) -> str | None:
    """Return the reason why *value* is not an identifier of at most *limit* UTF-8 bytes, or None."""
    if not isinstance(value, str):
        return f"must be a str, got {type(value).__name__}"
    value = plain(value)
    if not value:
        return "is empty"
    if len(value) > limit:
        return f"is longer than {limit} bytes"
    if value.isascii() and value.isprintable():
        return "begins or ends with a blank" if value[0] == " " or value[-1] == " " else None
    problem = _first_problem(value)
    if problem is not None:
        return problem
    if len(value.encode()) > limit:
        return f"is longer than {limit} bytes"
    if value != value.strip():
        return "begins or ends with a blank"
    if not unicodedata.is_normalized("NFC", value):
        return "is not in Unicode normal form C"
    return None


def _strict_problem(value: object, limit: int) -> str | None:
    """Return the reason why *value* is not the id of a tenant or a principal, or None.

    Characters that are meaningful in the name of a document (a joiner, a variation selector) still make two ids look
    alike, so here each character is checked by itself, and only those that UTS 39 allows in identifiers are accepted.
    """
    problem = _problem(value, limit)
    if problem is not None or not isinstance(value, str):
        return problem
    if not value.isascii() and not _patterns().tenant.match(plain(value)):
        wrong = next(char for char in plain(value) if not _patterns().tenant.match(char))
        what = "an invisible or control character" if invisible(wrong) else "a character that UTS 39 does not allow"
        return f"has {what} (U+{ord(wrong):04X})"
    return _WILDCARD if _WILDCARDS.intersection(value) else None


def check_tenant(value: object) -> str:
    """Return *value* if it is a tenant id.

    A tenant id has 1 to 256 UTF-8 bytes in normal form C, no blank at either end, and none of `*`, `?`, `%`, which a
    store or policy might read as "any". Apart from printable ASCII, it holds only characters that UTS 39 allows in
    identifiers (Identifier_Status = Allowed, by `identifier_tables`), and no ignorable or overlay characters.

    Raises: InvalidTenantError, which does not quote the value.
    """
    problem = _strict_problem(value, MAX_TENANT_BYTES)
    if problem is None and isinstance(value, str):
        return plain(value)
    raise InvalidTenantError(f"The tenant id {problem}. Pass the id exactly as it was verified.", field="tenant")


def stored_tenant(value: object, names: Callable[[], Iterable[str]]) -> str:
    """Return *value* if it is a tenant id, or one of *names*, the tenants of a store, which are read only if needed.

    A store may hold tenants whose ids only an earlier version accepted. They are not read or written, but can be
    removed by their name. Raises: InvalidTenantError.
    """
    if isinstance(value, str) and _strict_problem(value, MAX_TENANT_BYTES) is not None and value in set(names()):
        return value
    return check_tenant(value)


def shown_tenant(tenant: str) -> str:
    """Return *tenant* as the command line shows and accepts it: percent-encoded if it is not a valid tenant id.

    The encoded form contains a "%", which no tenant id does, so it is unambiguous; it has no invisible characters.
    """
    if _strict_problem(tenant, MAX_TENANT_BYTES) is None:
        return tenant
    encoded = quote(tenant, safe="", errors="surrogatepass")
    return encoded if "%" in encoded else f"%{ord(tenant[0]):02X}{tenant[1:]}"


def check_principal_id(value: object, field: str = "id") -> str:
    """Return *value* if it is a principal's id: the form of a tenant id, up to 512 bytes.

    The names of roles and groups (*field* "roles" or "groups") come from other systems and have the form of a document
    id, for example `read:*`. Raises: InvalidPrincipalError with `.field` = *field*.
    """
    problem = _strict_problem(value, MAX_ID_BYTES) if field == "id" else _problem(value, MAX_ID_BYTES)
    if problem is None and isinstance(value, str) and _WILDCARDS.issuperset(plain(value)):
        problem = "consists of wildcards only"
    if problem is None and isinstance(value, str):
        return plain(value)
    what = "The principal's id" if field == "id" else f"One of the principal's {field}"
    raise InvalidPrincipalError(f"{what} {problem}. Pass it exactly as it was verified.", field=field)


def check_id(value: object, field: str) -> str:
    """Return *value* if it is a document's or a chunk's id: 1 to 512 UTF-8 bytes, visible, in normal form C.

    Invisible characters are accepted where they have a meaning: joiners in Persian, in Indic scripts and in emoji, and
    variation selectors. Raises: InvalidInputError with `.field` = *field*.
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
        raise InvalidInputError(f"{field} must be a str, got {type(value).__name__}.", field=field)
    value = plain(value)
    if "\0" in value:
        raise InvalidInputError(f"{field} contains a NUL character, which stores cannot keep.", field=field)
    if value.isascii():
        size = len(value)
    else:
        try:
            size = len(value.encode())
        except UnicodeEncodeError:  # this exception holds the text, so another one is raised after the block
            size = -1
        if size < 0:
            raise InvalidInputError(f"{field} contains a lone surrogate, which has no UTF-8 form.", field=field)
    if size > limit:
        raise InvalidInputError(f"{field} has {size} bytes; the limit is {limit}.", field=field)
    return value


def skeleton(tenant: str) -> str:
    """Return *tenant* without differences of case and width, blanks and invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", tenant).casefold())
    return "".join(char for char in folded if not char.isspace() and not invisible(char))


def look_alikes(tenants: Iterable[str]) -> list[list[str]]:
    """Return the groups of *tenants* that look alike, sorted."""
    alike: dict[str, set[str]] = {}
    for tenant in tenants:
        alike.setdefault(skeleton(tenant), set()).add(tenant)
    return sorted(sorted(group) for group in alike.values() if len(group) > 1)
