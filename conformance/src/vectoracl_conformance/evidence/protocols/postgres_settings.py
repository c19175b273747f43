"""The settings under which a statement ran, of the session and of its transaction, followed from the first byte.

Only statements with an obvious effect are understood. After any other statement that can change a setting, the settings
are unknown until the transaction ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vectoracl_conformance.evidence.sql.tokens import Token


@dataclass(frozen=True, slots=True)
class Setting:
    """A value in force; `local` is whether it ends with the transaction. The value is None where it is not known."""

    value: str | None
    local: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force; `known` is False after something that could not be read."""

    known: bool = True
    values: Mapping[str, Setting] = field(default_factory=dict)


class SettingsInForce:
    """Follows one session."""

    def __init__(self) -> None:
        self._session: dict[str, Setting] = {}
        self._local: dict[str, Setting] = {}
        self._known = True
        self._known_session = True

    def now(self) -> Settings:
        """Return what is in force."""
        return Settings(self._known and self._known_session, {**self._session, **self._local})

    def ended(self) -> None:
        """The transaction came to its end."""
        self._local.clear()
        self._known = True

    def lost(self) -> None:
        """Something ran that could not be read."""
        self._known = self._known_session = False

    def ran(self, statement: Sequence[Token], params: Sequence[object]) -> None:
        """Take over the effect of *statement*, which succeeded."""
        first = statement[0] if statement else Token("punct", "")
        if first.word("commit", "end", "rollback", "abort"):
            if any(token.word("to") for token in statement):
                self._known = False
            elif any(token.word("prepared") for token in statement):
                pass  # another transaction's
            else:
                self.ended()
        elif (calls := set_config_calls(statement, params)) is not None:
            for name, value, local in calls:
                self._set(name, value, local=local)
        elif first.word("set"):
            self._command(statement)
        elif first.word("reset", "discard"):
            # Back to a default that is not known here: of the role, the database or the connection.
            one = len(statement) == 2 and statement[1].kind in ("word", "name") and not statement[1].word("all", "role")
            if first.word("reset") and one:
                self._set(statement[1].text, None, local=False)
                return
            self._session.clear()
            self._local.clear()
        elif first.word("do", "call", "execute", "load") or any(
            token.kind in ("word", "name") and token.text == "set_config" for token in statement
        ):
            self.lost()

    def _set(self, name: str, value: str | None, *, local: bool) -> None:
        name = name.lower()
        if local:
            self._local[name] = Setting(value, local=True)
        else:
            self._local.pop(name, None)
            self._session[name] = Setting(value, local=False)

    def _command(self, statement: Sequence[Token]) -> None:
        rest = list(statement[1:])
        local = bool(rest) and rest[0].word("local")
        if rest and rest[0].word("local", "session") and len(rest) > 1 and not rest[1].mark("."):
            rest = rest[1:]
        if rest and rest[0].word("transaction", "constraints", "characteristics"):
            return
        name = ""
        while rest and rest[0].kind in ("word", "name"):
            name += rest.pop(0).text
            if not (rest and rest[0].mark(".")):
                break
            rest.pop(0)
            name += "."
        if not name or name in ("role", "authorization", "session"):
            self._set("role", None, local=local)
            return
        if len(rest) == 2 and (rest[0].mark("=") or rest[0].word("to")) and not rest[1].word("default"):
            self._set(name, rest[1].text if rest[1].kind in ("string", "word", "name", "number") else None, local=local)
        else:
            self._set(name, None, local=local)


def set_config_calls(statement: Sequence[Token], params: Sequence[object]) -> list[tuple[str, str | None, bool]] | None:
    """Read `SELECT set_config(name, value, local), …`; None if it is anything else.

    The value is None where it is not text. Raises nothing.
    """
    if not statement or not statement[0].word("select"):
        return None
    calls: list[tuple[str, str | None, bool]] = []
    rest = list(statement[1:])
    while True:
        if len(rest) > 2 and rest[0].text == "pg_catalog" and rest[0].kind in ("word", "name") and rest[1].mark("."):
            rest = rest[2:]
        if len(rest) < 8 or rest[0].text != "set_config" or not rest[1].mark("(") or not rest[7].mark(")"):
            return None
        if not (rest[3].mark(",") and rest[5].mark(",")):
            return None
        name, value, local = _value(rest[2], params), _value(rest[4], params), _value(rest[6], params)
        if not isinstance(name, str) or local not in (True, False, "t", "f", "true", "false"):
            return None
        calls.append((name, value if isinstance(value, str) else None, local in (True, "t", "true")))
        rest = rest[8:]
        if not rest:
            return calls
        if not rest[0].mark(","):
            return None
        rest = rest[1:]


def _value(token: Token, params: Sequence[object]) -> object:
    if token.kind == "string":
        return token.text
    if token.word("true", "false"):
        return token.text == "true"
    if token.kind == "param" and 1 <= int(token.text) <= len(params):
        return params[int(token.text) - 1]
    return None
