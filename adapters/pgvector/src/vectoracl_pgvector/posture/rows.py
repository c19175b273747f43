"""Typed rows of the posture check's statements, which `judge` reads."""

from __future__ import annotations

from typing import NamedTuple


class Server(NamedTuple):
    number: int
    version: str
    database: str
    session_user: str
    role: str
    role_exists: bool
    today: str
    tenant_preset: bool
    row_security: str
    wide: bool = True


class Role(NamedTuple):
    name: str
    is_runtime: bool
    is_session: bool
    reachable: bool
    superuser: bool
    bypassrls: bool
    createrole: bool
    replication: bool
    owns: bool


class Application(NamedTuple):
    bootstrap: bool  # the role that initdb created, which stays a superuser
    owns_database: bool
    schema_usage: bool


class Membership(NamedTuple):
    group: str
    member: str


class Relation(NamedTuple):
    oid: int
    position: str  # "target", "parent" or "child"
    schema: str
    name: str
    kind: str
    rls: bool
    forced: bool
    owner: str
    is_partition: bool
    one_value: bool  # a list partition for one value that is not NULL
    partition_key: str | None
    parent_schema: str | None
    parent_name: str | None


class Policy(NamedTuple):
    """A policy, shared by all relations that have it in the same words."""

    name: str
    permissive: bool
    command: str  # r, a, w, d, *
    using: str | None
    check: str | None
    roles: list[str]
    applies: bool
    volatile: str = ""  # a volatile function that it calls


class Grant(NamedTuple):
    oid: int
    position: str
    column: str | None
    grantee: str | None
    privilege: str
    grantable: bool


class Column(NamedTuple):
    name: str
    type_name: str
    type_text: str
    not_null: bool
    default: str | None
    generated: bool
    deterministic: bool
    checks: list[str]


class AnyColumn(NamedTuple):
    name: str
    type_name: str
    type_text: str
    modifier: int
    not_null: bool
    default: str | None
    generated: bool
    sequence_schema: str | None
    sequence: str | None


class Index(NamedTuple):
    oid: int
    schema: str
    name: str
    method: str
    unique: bool
    exclusion: bool
    keys: list[str]
    constraint: str | None
    constraint_type: str | None
    predicate: str | None
    kind: str
    parent: str | None
    definition: str


class ForeignKey(NamedTuple):
    name: str
    direction: str  # "in" or "out"
    schema: str
    table: str
    to_schema: str
    to_table: str
    columns: list[str]
    to_columns: list[str]
    on_update: str
    on_delete: str
    has_tenant: bool
    to_has_tenant: bool
    to_unique: list[str]


class View(NamedTuple):
    schema: str
    name: str
    kind: str
    invoker: bool
    owner: str
    owner_exempt: bool
    grantees: list[str]


class Function(NamedTuple):
    schema: str
    name: str
    arguments: str
    kind: str
    owner: str
    pinned: bool
    mentions: bool
    opaque: bool
    grantees: list[str]


class Code(NamedTuple):
    kind: str
    name: str
    table_schema: str
    table: str
    schema: str
    function: str
    arguments: str
    owner: str
    reachable: bool
    trusted: bool
    table_owner: str


class Publication(NamedTuple):
    name: str
    all_tables: bool
    named_schemas: list[str]
    named_tables: list[str]
    schema: str


class DefaultGrant(NamedTuple):
    creator: str
    schema: str | None
    grantee: str | None


class Extension(NamedTuple):
    name: str
    version: str
    schema: str
    usable: bool
    statements_readable: bool


class Setting(NamedTuple):
    name: str
    value: str
    role: str | None
    in_database: bool
    rank: int


class Move(NamedTuple):
    copy: str
    blocks: bool


class Related(NamedTuple):
    oid: int
    schema: str
    name: str
    rls: bool
    forced: bool
    type_text: str
