"""A parser of SQL queries that finds every relation and the conjuncts that apply to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vectoracl_conformance.evidence.sql.names import BEFORE_PAREN, FUNCTIONS, OPERATORS, TEXT_TYPES, listed
from vectoracl_conformance.evidence.sql.tokens import Token


class NotProvedError(Exception):
    """It may be right; it was not proved."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The meaning of the names and values of one statement.

    `column`: a relation's tenant column, None if it holds no tenant's data, raising if it is not known. `is_tenant`:
    whether a literal or a parameter is the tenant; `is_only`: whether a parameter is an array of it alone.
    `names_setting`: whether current_setting of it is.
    """

    column: Callable[[Sequence[str]], str | None]
    is_tenant: Callable[[Token], bool]
    is_only: Callable[[Token], bool]
    names_setting: Callable[[str], bool]
    functions: frozenset[str]
    operators: frozenset[str]


@dataclass(frozen=True, slots=True)
class Group:
    """Something in brackets; `query` if it is a query, which was proved where it was read."""

    bracket: str
    items: tuple[Item, ...] = ()
    query: bool = False


Item = Token | Group


@dataclass(frozen=True, slots=True)
class Source:
    """Something in FROM: `column` is the tenant column of a protected table, None for anything else."""

    names: tuple[str, ...]
    column: str | None


_TAIL = frozenset(("order", "limit", "offset", "fetch", "for"))
_SETS = frozenset(("union", "intersect", "except"))
_CORE = _TAIL | _SETS | {"from", "where", "group", "having", "window", "into", "on", "returning"}
_JOINS = frozenset(("join", "inner", "left", "right", "full", "cross", "natural"))
_NO_ALIAS = _CORE | _JOINS | {"using", "set", "tablesample", "as", "values", "select", "default", "overriding", "do"}
_NEVER = listed(
    "select insert update delete merge union intersect except into table execute current copy do call lateral "
    "returning having window join"
)
_TAKES_FROM = frozenset(("extract", "substring", "trim", "overlay"))
_DEEPEST = 60


class Parser:
    """Reads one statement and proves it while reading. `touched` is whether it reaches a protected table."""

    def __init__(self, tokens: Sequence[Token], binding: Binding) -> None:
        self._tokens = tokens
        self._at = 0
        self._binding = binding
        self._deep = 0
        self.touched = False

    # --- tokens

    def _peek(self, ahead: int = 0) -> Token | None:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def _word(self, *words: str) -> bool:
        token = self._peek()
        return token is not None and token.word(*words)

    def _mark(self, text: str) -> bool:
        token = self._peek()
        return token is not None and token.mark(text)

    def _next(self) -> Token:
        token = self._peek()
        if token is None:
            raise NotProvedError("the statement ends early")
        self._at += 1
        return token

    def _skip(self, *words: str) -> bool:
        if self._word(*words):
            self._at += 1
            return True
        return False

    def _want(self, text: str) -> None:
        token = self._next()
        if not (token.mark(text) or token.word(text)):
            raise NotProvedError(f"{text} was expected and not {token.text!r}")

    def _name(self) -> str:
        token = self._next()
        if token.kind == "name" or (token.kind == "word" and token.text not in _NO_ALIAS):
            return token.text
        raise NotProvedError(f"a name was expected and not {token.text!r}")

    def _qualified(self) -> tuple[str, ...]:
        parts = [self._name()]
        while self._mark("."):
            self._next()
            parts.append(self._name())
        return tuple(parts)

    # --- statements

    def statement(self) -> None:
        """Read and prove the whole statement. Raises: NotProvedError."""
        self._any(frozenset())
        if (token := self._peek()) is not None:
            raise NotProvedError(f"{token.text!r} is not understood here")

    def _any(self, env: frozenset[str]) -> None:
        env = self._with(env)
        if self._word("insert"):
            self._insert(env)
        elif self._word("update"):
            self._update(env)
        elif self._word("delete"):
            self._delete(env)
        elif self._word("select", "values") or self._mark("("):
            self._query(env)
        else:
            token = self._peek()
            raise NotProvedError(f"{token.text if token else 'nothing'!r} is not a statement that is read")

    def _with(self, env: frozenset[str]) -> frozenset[str]:
        if not self._skip("with"):
            return env
        if self._skip("recursive"):
            env |= self._names_ahead()
        while True:
            name = self._name()
            if self._mark("("):
                self._group("", env)
            self._want("as")
            self._skip("not")
            self._skip("materialized")
            self._want("(")
            self._any(env)
            self._want(")")
            env |= {name}  # a query sees the ones before it, and without RECURSIVE not itself
            if not self._mark(","):
                return env
            self._next()

    def _names_ahead(self) -> frozenset[str]:
        """Return the names of WITH RECURSIVE: each of its queries sees all of them."""
        start, names = self._at, set()
        while True:
            names.add(self._name())
            if self._mark("("):
                self._jump()
            self._want("as")
            self._skip("not")
            self._skip("materialized")
            self._jump()
            if not self._mark(","):
                self._at = start
                return frozenset(names)
            self._next()

    def _jump(self) -> None:
        self._want("(")
        depth = 1
        while depth:
            token = self._next()
            depth += token.mark("(") - token.mark(")")

    def _query(self, env: frozenset[str]) -> list[list[list[Item]]]:
        """Read a query with its set operations and its tail; return the columns of each arm."""
        self._deep += 1
        if self._deep > _DEEPEST:
            raise NotProvedError("nested too deep")
        env = self._with(env)
        arms = self._term(env)
        while self._skip(*_SETS):
            self._skip("all", "distinct")
            arms += self._term(env)
        while self._word(*_TAIL):
            if self._next().text == "for":
                self._lock()
            else:
                self._expression(_TAIL | {"on", "returning"}, env)
        self._deep -= 1
        return arms

    def _lock(self) -> None:
        while self._word("update", "share", "no", "key", "of", "nowait", "skip", "locked"):
            if self._next().text == "of":
                self._qualified()

    def _term(self, env: frozenset[str]) -> list[list[list[Item]]]:
        if self._mark("("):
            self._next()
            arms = self._query(env)
            self._want(")")
            return arms
        if self._skip("values"):
            rows = []
            while True:
                group = self._group("", env)
                if group.query:
                    raise NotProvedError("a query as a row of VALUES")
                rows.append(split(group.items))
                if not self._mark(","):
                    return rows
                self._next()
        self._want("select")
        return [self._core(env)]

    def _core(self, env: frozenset[str]) -> list[list[Item]]:
        self._skip("all")
        if self._skip("distinct") and self._skip("on"):
            self._group("", env)
        columns = split(self._expression(_CORE, env))
        sources = self._sources(env) if self._skip("from") else []
        where = self._expression(_CORE, env) if self._skip("where") else []
        self._guard(sources, where)
        while self._skip("group", "having", "window"):
            self._expression(_CORE, env)
        return columns

    # --- FROM

    def _sources(self, env: frozenset[str]) -> list[Source]:
        sources = self._joined(env)
        while self._mark(","):
            self._next()
            sources += self._joined(env)
        return sources

    def _joined(self, env: frozenset[str]) -> list[Source]:
        sources = [self._primary(env)]
        while self._word("join", "inner", "left", "right", "full", "cross"):
            if not self._skip("join"):
                self._next()
                self._skip("outer")
                self._want("join")
            sources.append(self._primary(env))
            following = self._peek(1)
            if self._word("on") and not (following is not None and following.word("conflict")):
                self._next()
                self._expression(_CORE | _JOINS, env, commas=True)
        if self._word("natural", "using", "tablesample"):
            raise NotProvedError("NATURAL, USING or TABLESAMPLE")
        return sources

    def _primary(self, env: frozenset[str]) -> Source:
        lateral = self._skip("lateral")
        if self._mark("("):
            self._next()
            if not self._word("select", "with", "values"):
                raise NotProvedError("brackets in FROM that do not hold a query")
            self._query(env)
            self._want(")")
            return Source(self._alias(()), None)
        if lateral is False:
            self._skip("only")
        name = self._qualified()
        if self._mark("("):
            self._allowed(name)
            self._group(name[-1], env)
            if self._skip("with"):
                self._want("ordinality")
            return Source(self._alias(name[-1:]), None)
        if self._mark("*"):
            raise NotProvedError("a star after a relation")
        if len(name) == 1 and name[0] in env:
            return Source(self._alias(name), None)
        column = self._binding.column(name)
        if column is not None:
            self.touched = True
        return Source(self._alias(name, plain=column is not None), column)

    def _alias(self, name: tuple[str, ...], *, plain: bool = False) -> tuple[str, ...]:
        """Read an alias; return what the source is called by. *plain* refuses new names of its columns."""
        token = self._peek()
        if self._skip("as") or (
            token is not None and (token.kind == "name" or (token.kind == "word" and token.text not in _NO_ALIAS))
        ):
            if self._mark("("):
                self._group("", frozenset())  # AS (column type, …), of a function
                return name
            name = (self._name(),)
            if self._mark("("):
                if plain:
                    raise NotProvedError("a protected table whose columns are renamed")
                self._definitions()
        return name

    def _definitions(self) -> None:
        """Skip the column names, or columns and types, after an alias."""
        self._want("(")
        while not self._mark(")"):
            token = self._next()
            if token.mark("("):
                self._at -= 1
                self._definitions()
            elif token.kind not in ("word", "name", "number") and token.text not in ",.[]":
                raise NotProvedError("a list of columns that is not understood")
        self._want(")")

    # --- expressions

    def _expression(self, stops: frozenset[str], env: frozenset[str], *, commas: bool = False) -> list[Item]:
        """Read up to one of *stops* (or a comma, with *commas*) outside of brackets and CASE."""
        return self._items(stops, env, commas=commas, context="")

    def _items(self, stops: frozenset[str], env: frozenset[str], *, commas: bool, context: str) -> list[Item]:
        items: list[Item] = []
        cases = 0
        while (token := self._peek()) is not None and not (token.mark(")") or token.mark("]")):
            before = items[-1] if items else None
            if token.mark(",") and commas and not cases:
                break
            if token.mark("("):
                items.append(self._group(self._opens(items), env))
                continue
            if token.mark("["):
                self._next()
                inner = self._items(frozenset(), env, commas=False, context="")
                self._want("]")
                items.append(Group("[", tuple(inner)))
                continue
            if isinstance(before, Token) and (before.mark(".") or before.word("as")) and token.kind == "word":
                items.append(Token("name", token.text, token.at))  # a label: any word, and never a keyword
                self._at += 1
                continue
            if token.kind == "word":
                if not cases and token.text in stops and not self._is_operator(token, items):
                    break
                self._permit(token, items, context)
                cases += (token.text == "case") - (token.text == "end")
                if cases < 0:
                    raise NotProvedError("END without CASE")
            elif token.kind == "op" and token.text not in OPERATORS:
                raise NotProvedError(f"the operator {token.text}")
            elif token.mark(";") or token.mark(":"):
                raise NotProvedError(f"{token.text!r} inside an expression")
            items.append(self._next())
        if cases:
            raise NotProvedError("CASE without END")
        return items

    def _is_operator(self, token: Token, items: list[Item]) -> bool:
        """IS DISTINCT FROM, WITHIN GROUP and the functions left() and right() do not end a clause."""
        before = items[-1] if items else None
        if token.text == "from":
            earlier = items[-2] if len(items) > 1 else None
            return _is(before, "distinct") and (_is(earlier, "is") or _is(earlier, "not"))
        if token.text == "group":
            return _is(before, "within")
        following = self._peek(1)
        return token.text in ("left", "right") and following is not None and following.mark("(")

    def _permit(self, token: Token, items: list[Item], context: str) -> None:
        word = token.text
        before = items[-1] if items else None
        following = self._peek(1)
        if word in _NEVER:
            raise NotProvedError(f"{word.upper()} inside an expression")
        if word == "with" and not (following is not None and following.word("time")):
            raise NotProvedError("WITH inside an expression")
        if word == "from" and context not in _TAKES_FROM and not self._is_operator(token, items):
            raise NotProvedError("FROM inside an expression")
        if word == "where" and context != "filter":
            raise NotProvedError("WHERE inside an expression")
        if word == "variadic" and not (before is None or (isinstance(before, Token) and before.mark(","))):
            raise NotProvedError("VARIADIC")

    def _opens(self, items: list[Item]) -> str:
        """Judge what stands before an opening bracket; return the word, if it is a call or a keyword."""
        before = items[-1] if items else None
        if before is None:
            return ""
        if isinstance(before, Group):
            raise NotProvedError("brackets after brackets")
        if before.kind in ("op", "punct"):
            return ""
        if before.kind not in ("word", "name"):
            raise NotProvedError("brackets after a value")
        qualified = len(items) > 1 and _marks(items[-2], ".")
        if before.kind == "word" and before.text in BEFORE_PAREN and not qualified:
            return before.text
        parts = [before.text]
        place = len(items) - 2
        while place >= 1 and _marks(items[place], ".") and isinstance(one := items[place - 1], Token):
            parts.insert(0, one.text)
            place -= 2
        if place >= 0 and _marks(items[place], "::"):
            return ""  # a type with its size
        self._allowed(tuple(parts))
        return parts[-1]

    def _allowed(self, name: tuple[str, ...]) -> None:
        known = FUNCTIONS if len(name) == 1 or (len(name) == 2 and name[0] == "pg_catalog") else frozenset()
        if name[-1] not in known and ".".join(name) not in self._binding.functions:
            raise NotProvedError(f"the function {'.'.join(name)} is not known")

    def _named_operator(self, items: Sequence[Item]) -> None:
        """Judge the name in OPERATOR(…): an operator of another schema is a function that may read tables."""
        parts = [item.text for item in items if isinstance(item, Token) and not item.mark(".")]
        if parts[:1] != ["pg_catalog"] and ".".join(parts) not in self._binding.operators:
            raise NotProvedError(f"the operator {'.'.join(parts)} is not known")

    def _group(self, context: str, env: frozenset[str]) -> Group:
        self._want("(")
        self._deep += 1
        if self._deep > _DEEPEST:
            raise NotProvedError("nested too deep")
        if self._word("select", "with", "values"):
            self._query(env)
            self._want(")")
            group = Group("(", query=True)
        else:
            items = self._items(frozenset(), env, commas=False, context=context)
            self._want(")")
            if context == "operator":
                self._named_operator(items)
            group = Group("(", tuple(items))
        self._deep -= 1
        return group

    # --- the proof

    def _guard(self, sources: Sequence[Source], where: Sequence[Item]) -> None:
        protected = [source for source in sources if source.column is not None]
        if not protected:
            return
        called = [source.names[-1] for source in sources if source.names]
        parts = conjuncts(where)
        for source in protected:
            if called.count(source.names[-1]) > 1:
                raise NotProvedError(f"two sources are called {source.names[-1]}")
            if not any(self._binds(part, source, alone=len(protected) == 1) for part in parts):
                raise NotProvedError(
                    f"{'.'.join(source.names)} without the tenant as a conjunct of the WHERE that stands over it"
                )

    def _binds(self, part: Sequence[Item], source: Source, *, alone: bool) -> bool:
        items = _plain_equals(part)
        places = [place for place, item in enumerate(items) if _marks(item, "=")]
        if len(places) == 1:
            left, right = items[: places[0]], items[places[0] + 1 :]
            if _is_column(left, source, alone=alone):
                return self.is_tenant(right) or self._any_of(right)
            return _is_column(right, source, alone=alone) and self.is_tenant(left)
        words = [place for place, item in enumerate(items) if _is(item, "in")]
        if len(words) == 1 and _is_column(items[: words[0]], source, alone=alone):
            rest = items[words[0] + 1 :]
            return len(rest) == 1 and isinstance(rest[0], Group) and self._list(rest[0])
        return False

    def _list(self, group: Group) -> bool:
        return group.bracket == "(" and not group.query and bool(group.items) and self.is_tenant(group.items)

    def _any_of(self, items: Sequence[Item]) -> bool:
        """Tell whether it is `ANY ($n)` or `ANY ($n::text[])` of an array that holds the tenant alone."""
        if len(items) != 2 or not _is(items[0], "any") or not isinstance(items[1], Group) or items[1].query:
            return False
        inner = list(items[1].items)
        if len(inner) >= 4 and inner[-1] == Group("[") and _marks(inner[-3], "::") and _is_type(inner[-2]):
            inner = inner[:-3]
        return len(inner) == 1 and isinstance(inner[0], Token) and self._binding.is_only(inner[0])

    def is_tenant(self, items: Sequence[Item]) -> bool:
        """Tell whether *items*, a whole expression, is the asking tenant."""
        items = list(items)
        while len(items) >= 3 and _marks(items[-2], "::") and _is_type(items[-1]):
            items = items[:-2]
        if len(items) >= 5 and _is_schema(items[-3]) and _marks(items[-2], ".") and _marks(items[-4], "::"):
            items = items[:-4] if _is_type(items[-1]) else items
        if len(items) == 1:
            (item,) = items
            if isinstance(item, Group):
                return item.bracket == "(" and not item.query and self.is_tenant(item.items)
            return self._binding.is_tenant(item)
        if len(items) == 4 and _is_schema(items[0]) and _marks(items[1], "."):
            items = items[2:]
        if len(items) != 2 or not isinstance(items[0], Token) or not isinstance(items[1], Group) or items[1].query:
            return False
        arguments = split(items[1].items)
        match items[0].text:
            case "current_setting":
                first = arguments[0] if arguments else []
                named = len(first) == 1 and isinstance(first[0], Token) and first[0].kind == "string"
                rest = len(arguments) == 1 or (len(arguments) == 2 and len(arguments[1]) == 1)
                return named and rest and isinstance(first[0], Token) and self._binding.names_setting(first[0].text)
            case "nullif":
                empty = len(arguments) == 2 and len(arguments[1]) == 1 and arguments[1][0]
                nothing = isinstance(empty, Token) and empty.kind == "string" and not empty.text
                return nothing and self.is_tenant(arguments[0])
        return False

    # --- writes

    def _target(self) -> tuple[tuple[str, ...], str | None]:
        self._skip("only")
        name = self._qualified()
        if self._mark("*"):
            raise NotProvedError("a star after a relation")
        column = self._binding.column(name)
        self.touched = self.touched or column is not None
        return name, column

    def _insert(self, env: frozenset[str]) -> None:
        self._want("insert")
        self._want("into")
        _, column = self._target()
        if self._skip("as"):
            self._name()
        if not self._mark("("):
            raise NotProvedError("an INSERT that does not name its columns")
        self._next()
        columns = [self._name()]
        while self._mark(","):
            self._next()
            columns.append(self._name())
        self._want(")")
        if column is not None and columns.count(column) != 1:
            raise NotProvedError("an INSERT that does not write the tenant")
        rows = self._query(env)
        if column is not None:
            self._writes_tenant(rows, columns.index(column))
        if self._skip("on"):
            self._conflict(column, env)
        self._returning(env)

    def _writes_tenant(self, rows: list[list[list[Item]]], place: int) -> None:
        for row in rows:
            if len(row) <= place or any(one and _marks(one[-1], "*") for one in row[: place + 1]):
                raise NotProvedError("which value becomes the tenant is not seen")
            value = row[place]
            if len(value) > 2 and _is(value[-2], "as"):
                value = value[:-2]
            if not self.is_tenant(value):
                raise NotProvedError("an INSERT that writes another value as the tenant")

    def _conflict(self, column: str | None, env: frozenset[str]) -> None:
        self._want("conflict")
        keys: list[str] = []
        if self._mark("("):
            group = self._group("", env)
            keys = [one[0].text for one in split(group.items) if len(one) == 1 and isinstance(one[0], Token)]
            if len(keys) != len(split(group.items)):
                raise NotProvedError("ON CONFLICT over an expression")
        self._want("do")
        if self._skip("nothing"):
            return
        if column is not None and column not in keys:
            raise NotProvedError("ON CONFLICT over a key without the tenant")
        self._want("update")
        self._want("set")
        self._assigns(column, self._expression(frozenset(("where", "returning")), env))
        if self._skip("where"):
            self._expression(frozenset(("returning",)), env)

    def _assigns(self, column: str | None, items: Sequence[Item]) -> None:
        for one in split(items):
            first = one[0] if one else None
            names = first.items if isinstance(first, Group) else one[:1]
            if column is not None and any(isinstance(name, Token) and name.text == column for name in names):
                raise NotProvedError("the tenant of a row is changed")

    def _update(self, env: frozenset[str]) -> None:
        self._want("update")
        name, column = self._target()
        source = Source(self._alias(name, plain=True), column)
        self._want("set")
        self._assigns(column, self._expression(frozenset(("from", "where", "returning")), env))
        self._changes(source, "from", env)

    def _delete(self, env: frozenset[str]) -> None:
        self._want("delete")
        self._want("from")
        name, column = self._target()
        self._changes(Source(self._alias(name, plain=True), column), "using", env)

    def _changes(self, source: Source, word: str, env: frozenset[str]) -> None:
        sources = [source]
        if self._skip(word):
            sources += self._sources(env)
        where = self._expression(frozenset(("returning",)), env) if self._skip("where") else []
        self._guard(sources, where)
        self._returning(env)

    def _returning(self, env: frozenset[str]) -> None:
        if self._skip("returning"):
            self._expression(frozenset(), env)


def split(items: Sequence[Item]) -> list[list[Item]]:
    """Split at commas; brackets are one item each."""
    parts: list[list[Item]] = [[]]
    for item in items:
        if _marks(item, ","):
            parts.append([])
        else:
            parts[-1].append(item)
    return [] if parts == [[]] else parts


def conjuncts(items: Sequence[Item]) -> list[list[Item]]:
    """Return the operands of the top-level AND; none where OR or BETWEEN stands next to it.

    AND binds tighter than OR and than nothing else (PostgreSQL documentation, "Operator Precedence"); BETWEEN has
    its own AND.
    """
    parts: list[list[Item]] = [[]]
    cases = 0
    for item in items:
        cases += _is(item, "case") - _is(item, "end")
        if not cases:
            if _is(item, "or") or _is(item, "between"):
                return []
            if _is(item, "and"):
                parts.append([])
                continue
        parts[-1].append(item)
    terms: list[list[Item]] = []
    for part in parts:
        if len(part) == 1 and isinstance(part[0], Group) and part[0].bracket == "(" and not part[0].query:
            terms += conjuncts(part[0].items)
        else:
            terms.append(part)
    return terms


def _plain_equals(items: Sequence[Item]) -> list[Item]:
    """Write OPERATOR(pg_catalog.=) as =."""
    output: list[Item] = []
    for item in items:
        if isinstance(item, Group) and output and _is(output[-1], "operator"):
            inner = item.items
            if len(inner) == 3 and _is_schema(inner[0]) and _marks(inner[1], ".") and _marks(inner[2], "="):
                output[-1] = Token("op", "=")
                continue
        output.append(item)
    return output


def _is_column(items: Sequence[Item], source: Source, *, alone: bool) -> bool:
    names = [item.text for item in items[::2] if isinstance(item, Token) and item.kind in ("word", "name")]
    if len(items) != 2 * len(names) - 1 or not all(_marks(item, ".") for item in items[1::2]):
        return False
    if names[-1] != source.column:
        return False
    return alone if len(names) == 1 else tuple(names[:-1]) in (source.names, source.names[-1:])


def _is(item: Item | None, word: str) -> bool:
    return isinstance(item, Token) and item.word(word)


def _marks(item: Item, text: str) -> bool:
    return isinstance(item, Token) and item.mark(text)


def _is_type(item: Item) -> bool:
    return isinstance(item, Token) and item.kind in ("word", "name") and item.text in TEXT_TYPES


def _is_schema(item: Item) -> bool:
    return isinstance(item, Token) and item.kind in ("word", "name") and item.text == "pg_catalog"
