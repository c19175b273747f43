"""The form of every identifier: tenants, documents, chunks, metadata keys. One place, so that no two disagree.

Two identifiers are the same only if they are the same string. Look-alikes (case, composed and decomposed letters,
trailing blanks) are either refused or stay different; nothing is trimmed, folded or normalised on the way.
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
# Zl and Zp line separators: a person cannot see them, so two tenants would look alike.
_INVISIBLE = frozenset({"Cc", "Cs", "Cn", "Cf", "Zl", "Zp", "Co"})


def _ranges(table: str) -> list[tuple[int, int]]:
    pairs = [one.partition("-") for one in table.split()]
    return [(int(first, 16), int(last or first, 16)) for first, _, last in pairs]


def _class(table: str) -> str:
    """Return *table* as the inside of a class of a regular expression."""
    return "".join(chr(a) if a == b else f"{chr(a)}-{chr(b)}" for a, b in _ranges(table))


class _Patterns:
    """The expressions that are made of the standard's tables, when the first id beyond ASCII is met (some 20 ms).

    Every table's characters are beyond ASCII, so none of them has a meaning inside of a class.
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
# What is seen of these is nothing, though they are symbols: the blank of Braille, and what stands for an object.
_BLANKS = frozenset("\u2800\ufffc")


def plain(value: str) -> str:
    """Return the characters of *value* as a `str` of no subclass, whose methods could say something else."""
    return value if type(value) is str else str.__str__(value)


def invisible(char: str) -> bool:
    """Tell whether a person sees nothing of *char*, or sees it only as a part of the letter before it."""
    return (
        unicodedata.category(char) in ("Cf", "Cc", "Zl", "Zp")
        or char in _BLANKS
        or _patterns().ignorable.match(char) is not None
        or unicodedata.combining(char) == 1
    )


def _after_virama(before: str) -> bool:
    """Tell whether *before* ends with a virama, behind which there may be further marks."""
    for char in reversed(before):
        order = unicodedata.combining(char)
        if order in (0, _VIRAMA):
            return order == _VIRAMA
    return False


def _belongs(char: str, before: str, after: str) -> bool:
    """Tell whether *char*, which is invisible by itself, has a meaning between *before* and *after*.

    A joiner or a non-joiner where UAX 31 allows it (section 2.3, rules A1, A2 and B) and in a sequence of emoji, a
    variation selector behind what has variants, a tag in the sequence of a flag.
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
    """Say which character of *value* is invisible or has no place where it stands, or None."""
    for place, char in enumerate(value):
        if unicodedata.category(char) not in _INVISIBLE and not _patterns().ignorable.match(char):
            continue
        if not _belongs(char, value[max(0, place - _CONTEXT) : place], value[place + 1 : place + 1 + _CONTEXT]):
            return f"has an invisible or control character (U+{ord(char):04X})"
    return None


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
    found = _first_problem(value)
    if found is not None:
        return found
    if len(value.encode()) > limit:
        return f"is longer than {limit} bytes"
    if value != value.strip():
        return "begins or ends with a blank"
    if not unicodedata.is_normalized("NFC", value):
        return "is not in Unicode normal form C"
    return None


def _strict_problem(value: object, limit: int) -> str | None:
    """Say what is wrong with *value* as the id of a tenant or of a principal, or None.

    What has its place in a name of a document (a joiner, a variation selector) still makes two ids look alike, so here
    every character counts by itself, and only what UTS 39 allows in identifiers is taken.
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

    A tenant id has 1 to 256 UTF-8 bytes in normal form C, no blank at either end, and none of `*`, `?`, `%`, which some
    store or policy would read as "any". Beyond the printable characters of ASCII it holds only what UTS 39 allows in
    identifiers (Identifier_Status = Allowed, by `identifier_tables`), and nothing that is ignorable or an overlay.

    Raises: InvalidTenantError, which does not quote the value.
    """
    problem = _strict_problem(value, MAX_TENANT_BYTES)
    if problem is None and isinstance(value, str):
        return plain(value)
    raise InvalidTenantError(f"The tenant id {problem}. Pass the id exactly as it was verified.", field="tenant")


def stored_tenant(value: object, names: Callable[[], Iterable[str]]) -> str:
    """Return *value* if it is a tenant id, or one of *names*: those that a store holds, asked for only then.

    A store may hold tenants that a former version took and that this one refuses. They are not read or written; to
    remove them they have to be named. Raises: InvalidTenantError.
    """
    if isinstance(value, str) and _strict_problem(value, MAX_TENANT_BYTES) is not None and value in set(names()):
        return value
    return check_tenant(value)


def shown_tenant(tenant: str) -> str:
    """Return how the command line shows and takes *tenant*: as it is, or percent-encoded if it is no tenant id now.

    What is encoded holds a "%", which no tenant id does, so that it names one tenant only, and nothing invisible.
    """
    if _strict_problem(tenant, MAX_TENANT_BYTES) is None:
        return tenant
    encoded = quote(tenant, safe="", errors="surrogatepass")
    return encoded if "%" in encoded else f"%{ord(tenant[0]):02X}{tenant[1:]}"


def check_principal_id(value: object, field: str = "id") -> str:
    """Return *value* if it is a principal's id: the form of a tenant id, up to 512 bytes.

    The names of roles and groups (*field* "roles" or "groups") come out of other systems, and have the form of a
    document's id: `read:*` is one. Raises: InvalidPrincipalError with `.field` = *field*.
    """
    problem = _strict_problem(value, MAX_ID_BYTES) if field == "id" else _problem(value, MAX_ID_BYTES)
    if problem is None and isinstance(value, str) and _WILDCARDS.issuperset(plain(value)):
        problem = "is a wildcard and nothing else"
    if problem is None and isinstance(value, str):
        return plain(value)
    what = "The principal's id" if field == "id" else f"One of the principal's {field}"
    raise InvalidPrincipalError(f"{what} {problem}. Pass it exactly as it was verified.", field=field)


def check_id(value: object, field: str) -> str:
    """Return *value* if it is a document's or a chunk's id: 1 to 512 UTF-8 bytes, visible, in normal form C.

    What is invisible by itself is taken where it has a meaning: joiners in Persian, in Indic scripts and in emoji,
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
    return "".join(char for char in folded if not char.isspace() and not invisible(char))


def look_alikes(tenants: Iterable[str]) -> list[list[str]]:
    """Return the groups of *tenants* that a person could take for each other, sorted."""
    alike: dict[str, set[str]] = {}
    for tenant in tenants:
        alike.setdefault(skeleton(tenant), set()).add(tenant)
    return sorted(sorted(group) for group in alike.values() if len(group) > 1)
