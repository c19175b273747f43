"""Typed rows of the statements in `reach_sql`. Grantees are the OIDs of roles; 0 is PUBLIC."""

from __future__ import annotations

from typing import NamedTuple


class RoleRow(NamedTuple):
    oid: int
    name: str
    superuser: bool
    bypassrls: bool
    createrole: bool
    replication: bool


class Function(NamedTuple):
    oid: int
    schema: str
    name: str
    arguments: str
    kind: str
    owner: int
    language: str
    trusted: bool
    definer: bool
    leakproof: bool
    extension: str
    extension_owner: int
    settings: list[str]
    source: str
    pure: bool
    identity: str
    executors: list[int]
    schema_users: list[int]
    referenced: bool
    fires: bool
    is_event_trigger: bool

    @property
    def display_name(self) -> str:
        """The name for display, in the form of the other topics."""
        return f"{self.schema}.{self.name}({self.arguments})"


class Native(NamedTuple):
    extension: str
    version: str
    owned_by_superuser: bool
    identities: list[str]
    example: str


class OtherRelation(NamedTuple):
    """A relation outside the tree."""

    oid: int
    schema: str
    name: str
    kind: str
    owner: int
    rls: bool
    forced: bool
    invoker: bool
    extension: str
    readers: list[int]
    writers: list[int]
    schema_users: list[int]
    content: list[str]
    vectors: bool
    columns: list[str]
    shared: list[str]
    refs: list[int]
    catalogs: list[str]

    @property
    def display_name(self) -> str:
        """The name for display."""
        return f"{self.schema}.{self.name}"


class TreeRelation(NamedTuple):
    """A relation of the tree that roles other than its owner may use."""

    oid: int
    owner: int
    readers: list[int]
    writers: list[int]
    refs: list[int]


class OtherPolicy(NamedTuple):
    oid: int
    name: str
    permissive: bool
    command: str
    using: str | None
    check: str | None
    roles: list[int]


class PolicyCode(NamedTuple):
    oid: int
    policy: str
    in_tree: bool
    uses: str


class Trigger(NamedTuple):
    function: int
    schema: str
    table: str
    name: str
    on_tree: bool
    writers: list[int]
    definer: bool
    language: str
    source: str


class Privilege(NamedTuple):
    kind: str
    schema: str
    name: str
    privilege: str
    grantee: int


class Outside(NamedTuple):
    kind: str
    name: str
    grantees: list[int]


class Owned(NamedTuple):
    what: str
    used_by: str
