"""Small proofs that a function's body cannot show a role any row that the role may not see.

Only a few forms are known. A body in any other form is not proved, whatever it does.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

_TOKEN: Final = re.compile(
    r"""\s*(?: (?P<string>'(?:[^'\\]|'')*') | (?P<word>[a-z_][a-z0-9_$]*) | (?P<parameter>\$\d+)
          | (?P<number>\d+(?:\.\d+)?) | (?P<cast>::) | (?P<assign>:=) | (?P<op>[-+*/<>=|%]+) | (?P<punct>[().,;]) )""",
    re.VERBOSE,
)
# The functions an expression may call, and keywords. They depend only on their arguments, the clock or a setting.
_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "new old now current_timestamp clock_timestamp statement_timestamp transaction_timestamp current_date "
        "localtimestamp timezone coalesce nullif greatest least lower upper trim btrim md5 length concat "
        "gen_random_uuid round abs and or not is null true false case when then else end pg_catalog text integer "
        "bigint boolean timestamptz uuid current_setting to_tsvector",
    )
)
_SAFE_SCHEMAS: Final = frozenset({"pg_catalog", "pg_temp", "information_schema", ""})


def pinned_to_system(settings: list[str]) -> bool:
    """Return whether a function pins its search_path to schemas in which only a superuser creates functions."""
    for setting in settings:
        name, _, value = setting.partition("=")
        if name == "search_path":
            return all(part.strip().strip('"') in _SAFE_SCHEMAS for part in value.split(","))
    return False


def computes_only(language: str, source: str, arguments: str) -> bool:
    """Return whether a body only computes: `SELECT expression`, `BEGIN RETURN expression; END`, or sets columns of NEW.

    It may contain no FROM, no query and no statement other than assignments to NEW. Names must be those of the row, the
    arguments or a short list.
    """
    tokens = _tokens(source)
    if tokens is None:
        return False
    known_names = _WORDS | {word.lower() for word in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", arguments)}
    if language == "sql":
        while tokens and tokens[-1] == ";":
            tokens = tokens[:-1]
        return tokens[:1] == ["select"] and _expression(tokens[1:], known_names)
    if language != "plpgsql" or tokens[:1] != ["begin"]:
        return False
    while tokens and tokens[-1] == ";":
        tokens = tokens[:-1]
    if tokens[-1:] != ["end"]:
        return False
    return _assignments(tokens[1:-1], known_names)


def _assignments(tokens: list[str], known_names: frozenset[str]) -> bool:
    statement: list[str] = []
    statements: list[list[str]] = []
    for word in tokens:
        if word == ";":
            statements.append(statement)
            statement = []
        else:
            statement.append(word)
    if statement or not statements:
        return False
    *before, last = statements
    for one in before:
        if not (
            len(one) > 4 and one[:2] == ["new", "."] and one[3] in (":=", "=") and _expression(one[4:], known_names)
        ):
            return False
    return last[:1] == ["return"] and _expression(last[1:], known_names)


def _expression(tokens: list[str], known_names: frozenset[str]) -> bool:
    if not tokens or ";" in tokens or ":=" in tokens:
        return False
    for at, token in enumerate(tokens):
        if not re.match(r"[a-z_]", token):
            continue
        field = at >= 2 and tokens[at - 1] == "." and tokens[at - 2] in ("new", "old")
        if field and at + 1 < len(tokens) and tokens[at + 1] == "(":
            return False  # a function call that looks like a field
        if not field and token not in known_names:
            return False
    return True


def _tokens(text: str) -> list[str] | None:
    result: list[str] = []
    at, text = 0, text.strip()
    if not text.isascii() or "--" in text or "/*" in text:
        return None  # comments and escapes are not supported
    lowered = re.sub(r"[A-Z]", lambda m: m.group().lower(), text)
    while at < len(lowered):
        match = _TOKEN.match(lowered, at)
        if match is None or match.end() == at:
            return None
        result.append(match.group().strip())
        at = match.end()
    # `E'…'`, `U&'…'`, `U&"…"` and B/X strings could hide their content.
    for first, second in pairwise(result):
        if second.startswith("'") and re.match(r"[a-z]", first) and first not in _WORDS | {"return", "select"}:
            return None
    return result


_NAME: Final = r'"?[A-Za-z_][A-Za-z0-9_]*"?'
_LIST: Final = rf"{_NAME}(?:, {_NAME})*"


def _row(which: str) -> str:
    return rf"{which}\.{_NAME}(?:, {which}\.{_NAME})*"


_UPSERT: Final = rf"ON CONFLICT \({_LIST}\) DO UPDATE SET {_NAME} = EXCLUDED\.{_NAME}(?:, {_NAME} = EXCLUDED\.{_NAME})*"
_SAME: Final = rf"OLD\.{_NAME} = NEW\.{_NAME}(?: AND OLD\.{_NAME} = NEW\.{_NAME})*"
_MOVING: Final = re.compile(
    "#variable_conflict use_column\nBEGIN\n"
    rf"IF TG_OP = 'DELETE' OR \(TG_OP = 'UPDATE' AND NOT \({_SAME}\)\) THEN\n"
    r"  IF pg_catalog\.current_setting\('transaction_isolation'\) <> 'read committed' THEN\n"
    rf"    INSERT INTO (?P<copy>{_NAME}\.{_NAME}) \({_LIST}\) VALUES \({_row('OLD')}\) {_UPSERT};\n"
    "  END IF;\n"
    rf"  DELETE FROM (?P=copy) WHERE {_NAME} = OLD\.{_NAME}(?: AND {_NAME} = OLD\.{_NAME})*;\n"
    "END IF;\n"
    "IF TG_OP <> 'DELETE' THEN\n"
    rf"  INSERT INTO (?P=copy) \({_LIST}\) VALUES \({_row('NEW')}\) {_UPSERT};\n"
    r"END IF;\nRETURN NULL;\nEND"
)


def keeps_a_copy_in_step(source: str) -> bool:
    """Return whether a body is exactly the one that `shadow_copy` generates: it copies its row into one table.

    It reads no rows, so it can show only the content of that table, which is judged separately.
    """
    return _MOVING.fullmatch(source) is not None
