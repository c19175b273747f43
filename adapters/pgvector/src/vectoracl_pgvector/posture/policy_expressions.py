"""Determines how strongly the condition of a row-level security policy binds the tenant column.

The question for each USING or WITH CHECK condition is: which tenants' rows can it be true for? The answer is one
`Binding`, read from the text that `pg_get_expr` prints. PostgreSQL prints every operator, cast operand and boolean in
parentheses, so a tokenizer and a split at depth 0 replace a full parser:

- AND and OR are split first. AND is as strong as its strongest operand (both must hold), OR as its weakest (one is
  enough). An OR of two different settings is opaque, since either setting alone would show its tenant.
- `true` and `1 = 1` show every row; `false` and `NULL` show none.
- An equation with the tenant column on one side takes its strength from the other side: the session's setting, the
  session's role, a constant, or a COALESCE that falls back to a default tenant.
- A condition without the tenant column is loose. Every other condition that mentions the column is `OPAQUE`.

Three details decide whether two different tenants could be treated as equal, or an unset tenant as a value:

- Casts on the setting's side must keep different values different; casts on the column's side must not merge rows.
- `NULLIF(current_setting(…, true), '')`, or a guard `… <> ''` joined by AND, makes an unset setting match nothing.
  Without it the bound is `lenient`.
- A key of a JSON column (`column ->> 'key'`) counts as the tenant if the configuration names it.

The rule for everything else: a form that is not known is `OPAQUE` and counts as open. Nothing is guessed to be safe.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from vectoracl_pgvector.posture.tenant_field import TenantField


class Binding(IntEnum):
    """The strength of a condition, weakest first. AND takes its strongest operand, OR its weakest."""

    TRUE = 0  # a constant: every row
    LOOSE = 1  # does not mention the tenant column
    DEFAULTED = 2  # falls back to a default tenant if none is set
    OPAQUE = 3  # mentions the tenant column in a form that cannot be judged
    FIXED = 4  # one constant tenant, for every session
    SETTING = 5  # the tenant in the session's setting
    ROLE = 6  # the tenant is the session's role
    NEVER = 7  # a constant: no row


@dataclass(frozen=True, slots=True)
class Bound:
    """The result for one expression.

    Attributes:
        binding: Its strength.
        settings: The names of the settings that it reads.
        lenient: An unset setting, or an empty one, could match a row or raise an error.
    """

    binding: Binding
    settings: frozenset[str] = frozenset()
    lenient: bool = False


_TOKEN = re.compile(
    r"""\s*(?: (?P<string>[eE]?'(?:[^']|'')*') | (?P<quoted>"(?:[^"]|"")*") | (?P<word>[^\W\d][\w$]*)
          | (?P<number>\d[\w.]*) | (?P<cast>::) | (?P<punct>[()\[\],.]) | (?P<op>[-+*/<>=~!@\#%^&|`?:]+) )""",
    re.VERBOSE,
)
_Tokens = list[str]
# Casts that keep different tenants different. `name` cuts at 63 bytes, character(n) and varchar(n) cut or pad.
_HARMLESS_CASTS = {
    "text", "uuid", "integer", "bigint", "smallint", "numeric", "character varying", "jsonb", "json", "regrole",
}  # fmt: skip
# A cast of the column decides which rows are equal: '1' and '01' are one number. These casts cannot merge two tenants.
# A key of a JSON column is always text, so casts to numbers are common there.
_COLUMN_CASTS = {"text", "character varying", "uuid"}
_KEY_CASTS = _COLUMN_CASTS | {"integer", "bigint", "smallint"}
_ROLE_WORDS = {"CURRENT_USER", "SESSION_USER", "CURRENT_ROLE", "USER"}


def bind(expression: str | None, tenant: TenantField | str) -> Bound | None:
    """Judge one policy expression.

    Args:
        expression: The text from `pg_get_expr`, or None if the policy has none.
        tenant: The tenant column, or key of a JSON column.

    Returns:
        The strength of the expression; None without one, since the policy then permits nothing.
    """
    if expression is None:
        return None
    return _judged(expression, TenantField(tenant) if isinstance(tenant, str) else tenant)


# The policies of thousands of partitions have few different texts, and several topics ask about each text.
@lru_cache(maxsize=1024)
def _judged(expression: str, field: TenantField) -> Bound:
    tokens = _tokens(expression)
    if tokens is None:
        return Bound(Binding.OPAQUE if field.column in expression else Binding.LOOSE)
    return _bind(tokens, field)


def settings_in(expression: str) -> frozenset[str]:
    """Return the names of the custom settings that an expression reads."""
    return frozenset(m.replace("''", "'") for m in re.findall(r"current_setting\('((?:[^']|'')+)'", expression))


def _bind(tokens: _Tokens, tenant: TenantField) -> Bound:
    tokens = _bare(tokens)
    for word, pick in (("OR", min), ("AND", max)):
        parts = _split(tokens, word)
        if len(parts) > 1:
            bounds = [_bind(part, tenant) for part in parts]
            chosen = pick(bounds, key=lambda b: b.binding)
            same = [b for b in bounds if b.binding == chosen.binding]
            settings = frozenset().union(*(b.settings for b in same))
            if word == "OR" and len(settings) > 1:
                return Bound(Binding.OPAQUE, settings)  # either setting shows its tenant, but only one is the scope
            guarded = word == "AND" and any(_refuses_empty(part, tenant, settings) for part in parts)
            return Bound(
                chosen.binding,
                settings,
                not guarded and all(b.lenient for b in same) if word == "AND" else any(b.lenient for b in same),
            )
    lowered = [t.lower() for t in tokens]
    if lowered in (["true"], ["not", "false"]):
        return Bound(Binding.TRUE)
    if lowered in (["false"], ["null"], ["not", "true"]):
        return Bound(Binding.NEVER)
    return _leaf(tokens, tenant)


def _refuses_empty(tokens: _Tokens, tenant: TenantField, settings: frozenset[str]) -> bool:
    """Return whether *tokens* are `current_setting(…, true) <> ''` for one of *settings*, or `tenant <> ''`."""
    sides = _split(_bare(tokens), "<>")
    if len(sides) != 2 or _uncast(sides[1])[0] != ["''"]:
        return False
    if _is_tenant(sides[0], tenant):
        return True
    value = _value(sides[0], nullif=True)
    return value.binding is Binding.SETTING and not value.lenient and settings == value.settings


def _leaf(tokens: _Tokens, tenant: TenantField) -> Bound:
    if not any(_name(t) == tenant.column for t in tokens if t[0] not in "'0123456789"):
        return _constant_comparison(tokens)
    sides = _split(tokens, "=")
    if len(sides) == 2:
        for mine, other in (sides, reversed(sides)):
            if _is_tenant(mine, tenant):
                return _value(other, nullif=False)
    if any(t.upper() == "COALESCE" for t in tokens):
        return Bound(Binding.DEFAULTED)
    return Bound(Binding.OPAQUE)


def _constant_comparison(tokens: _Tokens) -> Bound:
    """Judge a condition without the tenant: `1 = 1` and similar show every row, all others are loose."""
    sides = _split(tokens, "=")
    if len(sides) == 2 and _bare(sides[0]) == _bare(sides[1]) and len(_bare(sides[0])) == 1:
        return Bound(Binding.TRUE)
    return Bound(Binding.LOOSE)


def _value(tokens: _Tokens, *, nullif: bool) -> Bound:
    """Judge the expression that the tenant column is compared with."""
    tokens = _bare(tokens)
    if tokens and tokens[0].upper() == "SELECT":  # ( SELECT current_setting(…) AS current_setting ): the same value
        parts = _split(tokens[1:], "AS")
        if len(parts) != 2 or len(parts[1]) != 1:
            return Bound(Binding.OPAQUE)  # FROM, WHERE or UNION: it may return something other than the one expression
        return _value(parts[0], nullif=nullif)
    for arrow in ("->>", "->"):  # a key of the claims in the setting
        json = _split(tokens, arrow)
        if len(json) == 2 and _is_literal(json[1]):
            return _value(json[0], nullif=nullif)
    bare, harmless = _uncast(tokens)
    if not harmless or not bare:
        return Bound(Binding.OPAQUE)
    if bare != tokens:
        return _value(bare, nullif=nullif)
    head = tokens[0].upper()
    if len(tokens) == 1:
        if head in _ROLE_WORDS:
            return Bound(Binding.ROLE)
        return Bound(Binding.FIXED if tokens[0][0] in "'0123456789eE" and _literal(tokens[0]) else Binding.OPAQUE)
    if head in ("COALESCE", "CASE", "GREATEST", "LEAST"):
        return Bound(Binding.DEFAULTED)
    call = _call(tokens)
    if call is None:
        return Bound(Binding.OPAQUE)
    name, arguments = call
    if name == "nullif" and len(arguments) == 2 and _uncast(arguments[1])[0] == ["''"]:
        return _value(arguments[0], nullif=True)
    # Every argument is read completely: a name that is built from the row's columns is not one setting.
    if name == "current_setting" and 1 <= len(arguments) <= 2 and _is_literal(arguments[0]):
        setting = _uncast(arguments[0])[0][0][1:-1].replace("''", "'")
        missing_ok = len(arguments) == 2 and [t.lower() for t in _bare(arguments[1])] == ["true"]
        return Bound(Binding.SETTING, frozenset({setting}), lenient=not (missing_ok and nullif))
    return Bound(Binding.OPAQUE)


def _is_literal(tokens: _Tokens) -> bool:
    """Return whether *tokens* are a single string, apart from harmless casts."""
    bare, harmless = _uncast(tokens)
    return harmless and len(bare) == 1 and bare[0][0] == "'"


def _tokens(text: str) -> _Tokens | None:
    tokens: _Tokens = []
    at, text = 0, text.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.end() == at:
            return None
        tokens.append(match.group().strip())
        at = match.end()
    return tokens


def _bare(tokens: _Tokens) -> _Tokens:
    while len(tokens) > 1 and tokens[0] == "(" and _closing(tokens, 0) == len(tokens) - 1:
        tokens = tokens[1:-1]
    return tokens


def _closing(tokens: _Tokens, start: int) -> int:
    depth = 0
    for at in range(start, len(tokens)):
        depth += (tokens[at] in "([") - (tokens[at] in ")]")
        if depth == 0:
            return at
    return -1


def _split(tokens: _Tokens, separator: str) -> list[_Tokens]:
    """Split at depth 0, outside CASE … END."""
    parts: list[_Tokens] = [[]]
    depth = 0
    for token in tokens:
        upper = token.upper()
        depth += (token in ("(", "[") or upper == "CASE") - (token in (")", "]") or upper == "END")
        if depth == 0 and upper == separator:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _uncast(tokens: _Tokens, allowed: set[str] = _HARMLESS_CASTS) -> tuple[_Tokens, bool]:
    """Remove casts; return False if one is not *allowed*, since it could make two tenants equal."""
    tokens, harmless = _bare(tokens), True
    # An operator at this depth binds less tightly than a cast, so a cast after it belongs to its right operand.
    while len(parts := _split(tokens, "::")) > 1 and not _has_arrow(tokens):
        harmless = harmless and all(" ".join(part).lower() in allowed for part in parts[1:])
        tokens = _bare(parts[0])
    return tokens, harmless


def _has_arrow(tokens: _Tokens) -> bool:
    return any(len(_split(tokens, arrow)) > 1 for arrow in ("->>", "->"))


def _call(tokens: _Tokens) -> tuple[str, list[_Tokens]] | None:
    """Parse `name(arguments)`, optionally qualified with pg_catalog."""
    if [t.lower() for t in tokens[:2]] == ["pg_catalog", "."]:
        tokens = tokens[2:]
    if len(tokens) < 3 or tokens[1] != "(" or _closing(tokens, 1) != len(tokens) - 1:
        return None
    return tokens[0].lower(), _split(tokens[2:-1], ",")


def _is_tenant(tokens: _Tokens, tenant: TenantField) -> bool:
    """Return whether *tokens* are exactly the tenant column, or its key of a JSON column."""
    tokens, harmless = _uncast(tokens, _COLUMN_CASTS if tenant.key is None else _KEY_CASTS)
    if tenant.key is not None:
        sides = _split(tokens, "->>")
        if len(sides) != 2 or not _is_literal(sides[1]):
            return False
        if _uncast(sides[1])[0][0][1:-1].replace("''", "'") != tenant.key:
            return False
        tokens, json = _uncast(sides[0], {"json", "jsonb"})
        harmless = harmless and json
    if len(tokens) == 3 and tokens[1] == ".":
        tokens = tokens[2:]
    return harmless and len(tokens) == 1 and tokens[0][0] != "'" and _name(tokens[0]) == tenant.column


def _name(token: str) -> str:
    return token[1:-1].replace('""', '"') if token.startswith('"') else token


def _literal(token: str) -> bool:
    return token[0].isdigit() or token.endswith("'")
