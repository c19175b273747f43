"""Proves that an SQL statement reaches only one tenant's rows, or reports that it cannot prove it.

What is proved: wherever a protected table is in FROM, the WHERE of the same SELECT has the tenant's predicate as a
conjunct at its top level, so it applies before any ranking, grouping or limit. An INSERT writes the tenant into its
column; an UPDATE or DELETE has the conjunct and does not change the column; and the transaction-local setting that the
policies read names the same tenant. Everything that is not understood counts as not proved: other relations, functions
and operators that are not listed, BETWEEN or OR next to the conjunct, USING, cursors, COPY, SQL's PREPARE.

What is assumed: that a protected table's tenant column is what its name says, and that nothing in the catalog changes
the meaning of the table (views are refused, but not rules, triggers, types and functions that are written as columns).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vectoracl_conformance.evidence.protocols.postgres import Statement
from vectoracl_conformance.evidence.protocols.postgres_settings import set_config_calls
from vectoracl_conformance.evidence.protocols.postgres_values import Param
from vectoracl_conformance.evidence.sql.names import listed
from vectoracl_conformance.evidence.sql.parser import Binding, NotProvedError, Parser
from vectoracl_conformance.evidence.sql.tokens import Token, TokenError, statements
from vectoracl_conformance.evidence.structure import Proof

# Settings that change neither what is seen nor which names mean what.
_HARMLESS = listed(
    "application_name client_encoding client_min_messages datestyle intervalstyle timezone extra_float_digits "
    "statement_timeout lock_timeout idle_in_transaction_session_timeout transaction_timeout jit work_mem"
)
_DANGEROUS = frozenset(("role", "session_authorization", "row_security", "session_preload_libraries"))
_BOUNDARIES = ("begin", "start", "commit", "end", "rollback", "abort", "savepoint", "release")
_STARTUP = frozenset(("user", "database", "application_name", "client_encoding"))


@dataclass(frozen=True, slots=True)
class SqlScope:
    """A store's schema, as its harness describes it.

    `tables`: (schema, table) to the name of the tenant column. `setting`: what the policies read, None without
    policies. `free`: relations that hold no tenant's data. `functions`: names beyond PostgreSQL's own that read no
    table, and `operators` the same of operators, each with its schema ("public.<=>"). `default`: the schema of
    unqualified names while no search_path was set.
    """

    tables: Mapping[tuple[str, str], str]
    setting: str | None = None
    free: frozenset[tuple[str, str]] = frozenset()
    functions: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    default: str | None = None


@dataclass(frozen=True, slots=True)
class SqlJudge:
    """The judge of a PostgreSQL store. `trusted` is what its scope declares without a proof, for the report."""

    scope: SqlScope

    def __call__(self, request: Any, tenant: str | None) -> Proof:
        """Judge *request* for *tenant*."""
        if not isinstance(request, Statement):
            return Proof(None, data=True, reason="no statement of PostgreSQL")
        return prove(request, tenant, self.scope)

    @property
    def trusted(self) -> tuple[str, ...]:
        """Name the relations, functions and operators that are declared to hold, or to read, no tenant's data."""
        relations = sorted(".".join(name) for name in self.scope.free)
        return (*relations, *(f"{name}()" for name in sorted(self.scope.functions)), *sorted(self.scope.operators))


def sql_judge(scope: SqlScope) -> SqlJudge:
    """Return the judge of a PostgreSQL store."""
    return SqlJudge(scope)


def prove(statement: Statement, tenant: str | None, scope: SqlScope) -> Proof:
    """Prove *statement* for *tenant*; None: for no tenant, so it may reach no protected table."""
    work = _Work(statement, tenant, scope)
    try:
        parts = statements(statement.sql)
        if len(parts) > 1:
            raise NotProvedError("several statements in one text")
        if parts:
            work.run(parts[0])
    except (NotProvedError, TokenError) as error:
        return Proof(proved=False, data=True, reason=f"not proved: {error}")
    except RecursionError:
        return Proof(proved=False, data=True, reason="not proved: nested too deep")
    return Proof(proved=True, data=work.touched)


@dataclass(slots=True)
class _Work:
    statement: Statement
    tenant: str | None
    scope: SqlScope
    touched: bool = field(default=False)

    def run(self, tokens: list[Token]) -> None:
        values = [param.value for param in self.statement.params]
        if (calls := set_config_calls(tokens, values)) is not None:
            for name, value, local in calls:
                self._setting(name, value, local=local)
            return
        if self._control(tokens):
            return
        self._path()
        parser = Parser(tokens, self._binding())
        parser.statement()
        self.touched = parser.touched
        if parser.touched:
            self._scoped()

    # --- statements without data

    def _control(self, tokens: list[Token]) -> bool:
        first = tokens[0]
        plain = all(token.kind in ("word", "name", "number") or token.mark(",") for token in tokens)
        if first.word(*_BOUNDARIES) and plain and not any(token.word("prepared") for token in tokens):
            return True
        if first.word("set"):
            self._set(tokens)
            return True
        if first.word("show", "deallocate", "discard", "unlisten", "close"):
            return len(tokens) <= 2 or first.word("show", "deallocate")
        if first.word("reset"):
            if len(tokens) == 2 and tokens[1].kind == "word" and (tokens[1].text in _HARMLESS or tokens[1].word("all")):
                return True
            raise NotProvedError("RESET of a setting")
        return False

    def _set(self, tokens: list[Token]) -> None:
        rest = tokens[1:]
        local = bool(rest) and rest[0].word("local")
        if rest and rest[0].word("local", "session"):
            rest = rest[1:]
        if rest and rest[0].word("transaction", "characteristics", "constraints"):
            return
        name = ""
        while rest and (rest[0].kind in ("word", "name") or rest[0].mark(".")) and not rest[0].word("to"):
            name += rest[0].text
            rest = rest[1:]
        value = rest[1].text if len(rest) == 2 and rest[1].kind in ("string", "word", "name", "number") else None
        if not rest or not (rest[0].mark("=") or rest[0].word("to")):
            raise NotProvedError("SET in a form that is not read")
        self._setting(name, value, local=local)

    def _setting(self, name: str, value: str | None, *, local: bool) -> None:
        name = name.lower()
        if name in _DANGEROUS:
            raise NotProvedError(f"the setting {name} changes what is seen")
        if name == (self.scope.setting or "").lower():
            if not local:
                raise NotProvedError("the tenant is set for the session and not for the transaction")
            if value not in ("", self.tenant) or value is None:
                raise NotProvedError("the tenant that is set is another one")
        elif not local and name not in _HARMLESS:
            raise NotProvedError(f"the setting {name} is changed for the session")

    # --- what holds around a statement

    def _path(self) -> None:
        """Unqualified functions and operators are PostgreSQL's own unless the search_path puts something before."""
        settings = self.statement.settings
        for name, value in self.statement.startup:
            if name not in _STARTUP and not _harmless(name.lower(), value):
                raise NotProvedError(f"the connection began with the parameter {name}")
        if not settings.known:
            raise NotProvedError("the settings in force are not known")
        path = settings.values.get("search_path")
        if path is None:
            return
        if path.value is None:
            raise NotProvedError("the search_path is not known")
        schemas = _schemas(path.value)
        if "pg_catalog" in schemas and schemas[0] != "pg_catalog":
            raise NotProvedError("the search_path has another schema before pg_catalog")

    def _scoped(self) -> None:
        if self.tenant is None:
            raise NotProvedError("it reaches tenants' rows")
        if self.scope.setting is None:
            return
        setting = self.statement.settings.values.get(self.scope.setting.lower())
        if setting is None or setting.value != self.tenant:
            raise NotProvedError(f"the setting {self.scope.setting} in force does not name the tenant")
        if not setting.local:
            raise NotProvedError(f"the setting {self.scope.setting} outlives the transaction")

    # --- names and values

    def _binding(self) -> Binding:
        return Binding(self._column, self._is_tenant, self._is_only, self._names_setting, self.scope.functions,
                       self.scope.operators)  # fmt: skip

    def _column(self, name: Sequence[str]) -> str | None:
        """Return the tenant column of a relation, None if it holds no tenant's data. Raises: NotProvedError."""
        if len(name) == 1:
            path = self.statement.settings.values.get("search_path")
            if path is not None:
                schemas = [one for one in _schemas(path.value or "") if one not in ("pg_catalog", "pg_temp")]
                schema = schemas[0] if schemas else None
            else:
                schema = self.scope.default
            if schema is None:
                raise NotProvedError(f"the relation {name[0]} has no schema")
            name = (schema, name[0])
        if len(name) != 2:
            raise NotProvedError("a relation of another database")
        known = (name[0], name[1])
        if known in self.scope.tables:
            return self.scope.tables[known]
        if known in self.scope.free or (name[0] == "pg_catalog" and name[1] not in _TELLING):
            return None
        raise NotProvedError(f"the relation {name[0]}.{name[1]} is not known")

    def _is_tenant(self, token: Token) -> bool:
        if self.tenant is None:
            # Without a tenant there is no right value; the only question is whether data is reached.
            raise NotProvedError("it reaches tenants' rows")
        if token.kind == "string":
            return token.text == self.tenant
        param = self._param(token)
        return param is not None and _same(param, self.tenant)

    def _is_only(self, token: Token) -> bool:
        param = self._param(token)
        if param is None or self.tenant is None or param.type not in _ARRAY_TYPES:
            return False
        text = f"{{{self.tenant}}}" if _PLAIN.fullmatch(self.tenant) else None
        return param.value == (self.tenant,) or (not param.binary and param.value == text)

    def _param(self, token: Token) -> Param | None:
        if token.kind != "param" or not 1 <= int(token.text) <= len(self.statement.params):
            return None
        return self.statement.params[int(token.text) - 1]

    def _names_setting(self, name: str) -> bool:
        """Tell whether current_setting(*name*) is the asking tenant, for this transaction only."""
        setting = self.statement.settings.values.get(name.lower())
        return (
            self.scope.setting is not None
            and name.lower() == self.scope.setting.lower()
            and setting is not None
            and setting.local
            and setting.value == self.tenant
        )


# In the catalog and yet not about the schema: values of rows, files, large objects, other sessions' statements.
_TELLING = listed(
    "pg_statistic pg_stats pg_stats_ext pg_stats_ext_exprs pg_statistic_ext_data pg_largeobject "
    "pg_stat_activity pg_prepared_statements pg_cursors pg_hba_file_rules pg_file_settings"
)
# text, varchar, unknown, uuid, or left to the server; name and "char" would cut the value.
_TEXT_TYPES = frozenset((0, 25, 1043, 705, 2950))


_ARRAY_TYPES = frozenset((0, 1009, 1015, 2951))
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def _same(param: Param, tenant: str) -> bool:
    if param.type not in _TEXT_TYPES:
        return False
    return param.value == tenant or (param.binary and param.type == 0 and param.value == tenant.encode())


def _harmless(name: str, value: str) -> bool:
    """Tell whether a start parameter changes nothing; `options` is a list of -c name=value."""
    if name != "options":
        return name in _HARMLESS
    options = value.replace("-c ", "-c").split()
    return all(one.startswith("-c") and one[2:].partition("=")[0].lower() in _HARMLESS for one in options)


def _schemas(path: str) -> list[str]:
    return [part.strip().strip('"') for part in path.split(",") if part.strip()]
