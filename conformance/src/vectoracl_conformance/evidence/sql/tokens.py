r"""PostgreSQL's lexical rules, with standard_conforming_strings on (which the decoder verifies). Doubt is refused.

Refused are: unterminated tokens, U&'…', B'…', X'…' and N'…', escapes other than \\ and \' in E'…', numbers that run
into letters, and NUL. Comments count as blanks, also nested ones (PostgreSQL documentation, "Lexical Structure").
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["word", "name", "string", "number", "param", "op", "punct"]


class Token(NamedTuple):
    """One token. A word is unquoted and lower-cased, a name is a quoted identifier, a string is its value."""

    kind: Kind
    text: str
    at: int = 0

    def word(self, *words: str) -> bool:
        """Tell whether this is one of the unquoted *words*."""
        return self.kind == "word" and self.text in words

    def mark(self, text: str) -> bool:
        """Tell whether this is the operator or punctuation *text*."""
        return self.kind in ("op", "punct") and self.text == text


class TokenError(ValueError):
    """The text cannot be read with certainty."""


_BLANK = " \t\n\r\f"
_START = re.compile(r"[A-Za-z_\x80-\U0010ffff]")
_WORD = re.compile(r"[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*")
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PARAM = re.compile(r"\$[0-9]+")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$")
_OPERATOR = re.compile(r"[+\-*/<>=~!@#%^&|`?]+")
_UPPER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def tokens(sql: str) -> list[Token]:
    """Return the tokens of *sql*. Raises: TokenError."""
    parts: list[Token] = []
    at = 0
    while True:
        at = _skip(sql, at)
        if at >= len(sql):
            return parts
        token, at = _one(sql, at)
        parts.append(token)


def statements(sql: str) -> list[list[Token]]:
    """Return the tokens of each statement of *sql*, split at semicolons outside of brackets; empty ones are left out.

    Raises: TokenError.
    """
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens(sql):
        if token.kind == "punct":
            depth += token.text in "(["
            depth -= token.text in ")]"
        if token.mark(";"):
            if depth:
                raise TokenError("a semicolon inside brackets")
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


def _skip(sql: str, at: int) -> int:
    while at < len(sql):
        if sql[at] in _BLANK:
            at += 1
        elif sql.startswith("--", at):
            while at < len(sql) and sql[at] not in "\n\r":
                at += 1
        elif sql.startswith("/*", at):
            at = _comment(sql, at)
        else:
            break
    return at


def _comment(sql: str, at: int) -> int:
    depth = 0
    while at < len(sql):
        if sql.startswith("/*", at):
            depth += 1
            at += 2
        elif sql.startswith("*/", at):
            depth -= 1
            at += 2
            if depth == 0:
                return at
        else:
            at += 1
    raise TokenError("a comment without an end")


def _one(sql: str, at: int) -> tuple[Token, int]:
    char = sql[at]
    if char == "'":
        return _string(sql, at, at, escapes=False)
    if char == '"':
        return _name(sql, at)
    if char == "$":
        if match := _PARAM.match(sql, at):
            _apart(sql, match.end())
            return Token("param", match[0][1:], at), match.end()
        if match := _DOLLAR.match(sql, at):
            end = sql.find(match[0], match.end())
            if end < 0:
                raise TokenError("a dollar quote without an end")
            return Token("string", sql[match.end() : end], at), end + len(match[0])
        raise TokenError("a lone $")
    if match := _WORD.match(sql, at):
        after = sql[match.end() : match.end() + 1]
        word = match[0].translate(_UPPER)
        if after == "'":
            if word == "e":
                return _string(sql, at, match.end(), escapes=True)
            if word in ("b", "x", "n"):
                raise TokenError(f"a string of the kind {word}'…'")
        if after == "&" and word == "u" and sql[match.end() + 1 : match.end() + 2] in ("'", '"'):
            raise TokenError("a string or name of the kind U&")
        return Token("word", word, at), match.end()
    if match := _NUMBER.match(sql, at):
        _apart(sql, match.end())
        return Token("number", match[0], at), match.end()
    if sql.startswith("::", at):
        return Token("op", "::", at), at + 2
    if char in "()[],;.":
        return Token("punct", char, at), at + 1
    if char == ":":
        if sql.startswith(":=", at):
            return Token("op", ":=", at), at + 2
        return Token("punct", ":", at), at + 1
    if match := _OPERATOR.match(sql, at):
        text = match[0]
        cuts = [place for place in (text.find("--"), text.find("/*")) if place >= 0]
        text = text[: min(cuts)] if cuts else text
        # An operator of several characters ends in + or - only if it has one of these characters.
        while len(text) > 1 and text[-1] in "+-" and not set(text) & set("~!@#%^&|`?"):
            text = text[:-1]
        return Token("op", text, at), at + len(text)
    raise TokenError(f"the character {char!r}")


def _apart(sql: str, at: int) -> None:
    if at < len(sql) and (_START.match(sql, at) or sql[at] in "$0123456789"):
        raise TokenError("a number that runs into something else")


def _string(sql: str, start: int, quote: int, *, escapes: bool) -> tuple[Token, int]:
    chars: list[str] = []
    at = quote + 1
    while at < len(sql):
        char = sql[at]
        if char == "'":
            if sql.startswith("''", at):
                chars.append("'")
                at += 2
                continue
            return Token("string", "".join(chars), start), at + 1
        if char == "\\" and escapes:
            if sql[at + 1 : at + 2] not in ("\\", "'"):
                raise TokenError("an escape other than of a backslash or a quote")
            chars.append(sql[at + 1])
            at += 2
            continue
        if char == "\0":
            raise TokenError("NUL in a string")
        chars.append(char)
        at += 1
    raise TokenError("a string without an end")


def _name(sql: str, start: int) -> tuple[Token, int]:
    at = start + 1
    chars: list[str] = []
    while at < len(sql):
        if sql[at] == '"':
            if sql.startswith('""', at):
                chars.append('"')
                at += 2
                continue
            if not chars:
                raise TokenError("an empty name")
            return Token("name", "".join(chars), start), at + 1
        chars.append(sql[at])
        at += 1
    raise TokenError("a name without an end")
