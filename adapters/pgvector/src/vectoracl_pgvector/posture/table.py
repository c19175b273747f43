"""Judges grants, the tenant column, keys and indexes of the table and its partitions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.posture.fix_sql import advice, columns, ident, literal, role
from vectoracl_pgvector.posture.policy_expressions import Binding, bind, settings_in
from vectoracl_pgvector.posture.rows import Column, ForeignKey, Grant, Index, Relation
from vectoracl_pgvector.posture.snapshot import Snapshot, grantee_name, joined, make_finding, name_of
from vectoracl_pgvector.posture.tenant_field import JSON_KINDS
from vectoracl_pgvector.schema import fits

_TEXT_TYPES = {"text", "varchar", "bpchar", "citext", "name"}


# With more partitions, planning a statement over all of them takes tens of milliseconds.
MANY_PARTITIONS: Final = 300
_SAY = advice("Name the tenant's column, or column->>key of a JSON column, with --tenant-column.")
_ACTIONS = {"r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def grants(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the grants to the role, directly or through PUBLIC."""
    relations_by_oid = {r.oid: r for r in snapshot.relations}
    on_child: dict[tuple[int, str | None], set[str]] = defaultdict(set)
    public: dict[int, set[str]] = defaultdict(set)
    for grant in snapshot.grants:
        relation = relations_by_oid.get(grant.oid)
        if relation is None:
            continue
        at, sql = name_of(relation), ident(relation.schema, relation.name)
        rule = {"TRUNCATE": "PG050", "REFERENCES": "PG051", "TRIGGER": "PG052", "MAINTAIN": "PG053"}.get(
            grant.privilege
        )
        if rule is not None:
            what = grant.privilege + (f" ({ident(grant.column)})" if grant.column else "")
            yield make_finding(
                rule, at, f"{grantee_name(grant.grantee)} is granted {grant.privilege} on {at}.",
                f"REVOKE {what} ON TABLE {sql} FROM {role(grant.grantee)};",
            )  # fmt: skip
        if grant.grantable:
            what = grant.privilege + (f" ({ident(grant.column)})" if grant.column else "")
            yield make_finding(
                "PG055", at, f"{grantee_name(grant.grantee)} may grant {grant.privilege} on {at} to others.",
                f"REVOKE GRANT OPTION FOR {what} ON TABLE {sql} FROM {role(grant.grantee)} CASCADE;",
            )  # fmt: skip
        if relation.position == "child" and not _for_words(snapshot, relation, grant):
            on_child[grant.oid, grant.grantee].add(grant.privilege)
        elif relation.position != "child" and grant.grantee is None:
            public[grant.oid].add(grant.privilege)
    for (oid, grantee), privileges in on_child.items():
        relation = relations_by_oid[oid]
        yield make_finding(
            "PG025", name_of(relation),
            f"{grantee_name(grantee)} is granted {joined(privileges)} on {name_of(relation)} itself.",
            f"REVOKE ALL ON TABLE {ident(relation.schema, relation.name)} FROM {role(grantee)};",
        )  # fmt: skip
    for oid, privileges in public.items():
        relation = relations_by_oid[oid]
        yield make_finding(
            "PG054", name_of(relation), f"PUBLIC is granted {joined(privileges)} on {name_of(relation)}.",
            f"REVOKE ALL ON TABLE {ident(relation.schema, relation.name)} FROM PUBLIC;",
        )  # fmt: skip


def _for_words(snapshot: Snapshot, relation: Relation, grant: Grant) -> bool:
    """Return whether this is the grant that a score of an index of words needs, under forced row-level security."""
    needed = bool(grant.column) and (grant.column, grant.privilege) == (snapshot.target.words_column, "SELECT")
    return needed and grant.grantee == snapshot.role and not grant.grantable and relation.rls and relation.forced


def tenant_column(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the tenant column, and whether it is confirmed or only a guess."""
    table, column = snapshot.table, snapshot.column
    if table is None or "columns" in snapshot.missing:
        return
    at, sql = name_of(table), ident(table.schema, table.name)
    if column is None:
        name = snapshot.tenant.column or "tenant_id"
        if snapshot.tenant.key is not None:
            yield make_finding("PG060", at, f"{at} has no column {name}, which should hold {snapshot.tenant}.", _SAY)
            return
        yield make_finding(
            "PG060", at, f"{at} has no tenant column" + (f" {name}." if snapshot.target.tenant_column else "."),
            f"ALTER TABLE {sql} ADD COLUMN {ident(name)} text NOT NULL CHECK ({ident(name)} <> '');",
        )  # fmt: skip
        return
    if snapshot.target.guessed:
        rest = f" It could also be {', '.join(snapshot.target.others[:4])}." if snapshot.target.others else ""
        yield make_finding(
            "PG111", at, f"{snapshot.tenant} is only a guess for the tenant of {at}.{rest}",
            advice(f"Confirm it: vectoracl check --table {at} --tenant-column \"{snapshot.tenant}\"; or name another "
                   "column, or column->>key of a JSON column."),
        )  # fmt: skip
    if snapshot.tenant.key is not None:
        yield from _json_tenant(snapshot, table, column)
        return
    subject, name = f"{at}.{column.name}", ident(column.name)
    # With policies, such a row is visible to no tenant, or to sessions without a scope: not a way to another tenant.
    bound = snapshot.target.foreign and bool(snapshot.tenant_bounds)
    if not column.not_null:
        fix = f"ALTER TABLE {sql} ALTER COLUMN {name} SET NOT NULL;"
        yield make_finding("PG069" if bound else "PG061", subject, "Rows without a tenant are accepted.", fix)
    if column.type_name in _TEXT_TYPES and not any("<> ''" in c for c in column.checks):
        fix = f"ALTER TABLE {sql} ADD CHECK ({name} <> '');"
        yield make_finding(
            "PG069" if bound else "PG062", subject, "Rows with the empty string as tenant are accepted.", fix
        )
    # A default that reads the session's setting tags a row with the scope of its write.
    if column.default is not None and not column.generated and not settings_in(column.default):
        yield make_finding("PG063", subject, "Rows without a tenant get one by default.",
                     f"ALTER TABLE {sql} ALTER COLUMN {name} DROP DEFAULT;")  # fmt: skip
    if column.type_name in ("citext", "bpchar") or not column.deterministic:
        yield make_finding(
            "PG064", subject, f"Different tenants can compare as equal in the type {column.type_text} with this "
            "collation.",
            advice("Drop the policies and keys of the column, run the next line, and create them again:")
            + f'\nALTER TABLE {sql} ALTER COLUMN {name} TYPE text COLLATE "C";',
        )  # fmt: skip


def _json_tenant(snapshot: Snapshot, table: Relation, column: Column) -> Iterator[Finding]:
    at, sql = name_of(table), ident(table.schema, table.name)
    if column.type_name not in JSON_KINDS:
        yield make_finding("PG060", at, f"{at}.{column.name} is not of type json or jsonb, so it has no keys.", _SAY)
        return
    needed = literal(snapshot.tenant.key or "")
    if not any(needed in check and "IS NOT NULL" in check for check in column.checks):
        yield make_finding(
            "PG069", f"{at}.{snapshot.tenant}", f"{at} accepts rows whose {column.name} contains no tenant.",
            f"ALTER TABLE {sql} ADD CHECK ({snapshot.tenant.sql} IS NOT NULL AND {snapshot.tenant.sql} <> '');",
        )  # fmt: skip


def expected_columns(snapshot: Snapshot) -> Iterator[Finding]:
    """Compare the columns' names and types, and the vector's dimension, with the configuration."""
    if snapshot.table is None or "all_columns" in snapshot.missing:
        return
    at, sql = name_of(snapshot.table), ident(snapshot.table.schema, snapshot.table.name)
    there = {column.name: column for column in snapshot.all_columns}
    for name, kind, dimension in snapshot.target.expected:
        column = there.get(name)
        if column is None:
            yield make_finding(
                "PG112", f"{at}.{name}", f"{at} has no column {name}.",
                advice("Run `vectoracl provision`, which adds the columns that newer versions need; or correct the "
                "name "
                       "under columns in the configuration."),
            )  # fmt: skip
        elif {column.type_name, kind} == {"vector", "halfvec"} and column.modifier in (-1, dimension):
            yield make_finding(
                "PG115", f"{at}.{name}", f"{name} is of type {column.type_text}; the configuration says {kind}.",
                advice(f"Run `vectoracl provision`, which changes the column, or set type = {column.type_name!r}."),
            )  # fmt: skip
        elif not fits(column.type_name, kind):
            yield make_finding(
                "PG113", f"{at}.{name}", f"{name} is of type {column.type_text}; the configuration needs {kind}.",
                advice(
                    "Correct the configuration, or run `vectoracl provision`, which changes the column."
                    if {column.type_name, kind} == {"vector", "halfvec"} else
                    "Correct the configuration, or copy the rows into a store of the right type (vectoracl copy)."
                ),
            )  # fmt: skip
        elif dimension is not None and column.modifier not in (-1, dimension):
            yield make_finding(
                "PG113", f"{at}.{name}",
                f"{name} holds vectors of {column.modifier} numbers; the configuration says dimension = {dimension}.",
                advice(f"Set dimension = {column.modifier}, or copy the texts into a new table with the other embedder "
                       f"(vectoracl copy --reembed). ALTER TABLE {sql} would have to empty it."),
            )  # fmt: skip


def keys(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge unique keys and exclusion constraints, which are checked against hidden rows too."""
    tenant, relations_by_oid = snapshot.tenant.column, {r.oid: r for r in snapshot.relations}
    for index in snapshot.read("indexes", Index):
        if not (index.unique or index.exclusion) or index.parent or _has_tenant(snapshot, index):
            continue
        relation = relations_by_oid[index.oid]
        sql = ident(relation.schema, relation.name)
        keys = [k for k in index.keys if k]
        if snapshot.target.foreign and index.constraint_type == "p" and len(index.keys) == 1:
            yield make_finding(
                "PG068", f"{name_of(relation)}.{index.name}",
                f"The primary key of {name_of(relation)} is {keys[0]} alone, so ids are shared by all tenants.",
                advice("Use random ids (uuid), or ids that the server generates. A key that begins with the tenant is "
                       "better, where the application's statements (ON CONFLICT, foreign keys) allow it."),
            )  # fmt: skip
            continue
        plain = len(keys) == len(index.keys) and not index.exclusion
        if index.constraint:
            fix = f"ALTER TABLE {sql} DROP CONSTRAINT {ident(index.constraint)}"
            kind = "PRIMARY KEY" if index.constraint_type == "p" else "UNIQUE"
            if plain:
                fix += f", ADD CONSTRAINT {ident(index.constraint)} {kind} ({columns([tenant, *keys])})"
            fix += ";"
        else:
            fix = f"DROP INDEX {ident(index.schema, index.name)};"
            if plain:
                where = f" WHERE {index.predicate}" if index.predicate else ""
                fix += f" CREATE UNIQUE INDEX {ident(index.name)} ON {sql} ({columns([tenant, *keys])}){where};"
        yield make_finding("PG065", f"{name_of(relation)}.{index.name}",
                     f"{index.name} is unique across all tenants: "
                     f"{', '.join(k or 'an expression' for k in index.keys)}.",
                     fix)  # fmt: skip


def _has_tenant(snapshot: Snapshot, index: Index) -> bool:
    """Return whether the index contains the tenant column or, for a key of a JSON column, its expression."""
    if snapshot.tenant.key is None:
        return bool(snapshot.tenant) and snapshot.tenant.column in index.keys
    quoted = snapshot.tenant.sql
    return quoted.replace('"', "") in index.definition.replace("::text", "").replace('"', "")


def foreign_keys(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge foreign keys to and from the table."""
    tenant = snapshot.tenant.column if snapshot.tenant.key is None else ""
    for key in snapshot.read("foreign_keys", ForeignKey):
        if tenant and tenant in (key.columns if key.direction == "out" else key.to_columns):
            continue  # the key contains the tenant, possibly under another name in the other table (tenants.id)
        if snapshot.target.foreign and key.direction == "out" and not key.to_has_tenant:
            yield make_finding(
                "PG103", f"{key.schema}.{key.table}.{key.name}",
                f"{key.name} refers to {key.to_schema}.{key.to_table}, which has no tenant.",
                advice(f"Keep it if {key.to_schema}.{key.to_table} is the same for all tenants. If its rows belong "
                       "to tenants, add the tenant column and a policy to it."),
            )  # fmt: skip
            continue
        here, there = ident(key.schema, key.table), ident(key.to_schema, key.to_table)
        drop = f"ALTER TABLE {here} DROP CONSTRAINT {ident(key.name)};"
        if key.has_tenant and key.to_has_tenant:
            targets = [tenant, *key.to_columns]
            unique = "" if ",".join(sorted(targets)) in {",".join(sorted(u.split(","))) for u in key.to_unique} else (
                f" ALTER TABLE {there} ADD UNIQUE ({columns(targets)});")  # fmt: skip
            fix = (
                f"{drop}{unique} ALTER TABLE {here} ADD CONSTRAINT {ident(key.name)} "
                f"FOREIGN KEY ({columns([tenant, *key.columns])}) REFERENCES {there} ({columns(targets)})"
                f"{_action(snapshot, 'UPDATE', key.on_update, key.columns)}"
                f"{_action(snapshot, 'DELETE', key.on_delete, key.columns)};"
            )
        else:
            fix = drop
            if snapshot.target.foreign:
                fix = advice(f"Add the tenant column to {key.schema}.{key.table}, and reference both: the tenant and "
                             f"{', '.join(key.to_columns)}.")  # fmt: skip
        yield make_finding(
            "PG066" if key.direction == "in" else "PG067", f"{key.schema}.{key.table}.{key.name}",
            f"{key.name} refers from {key.schema}.{key.table} to {key.to_schema}.{key.to_table} without the "
            "tenant.", fix,
        )  # fmt: skip


def _action(snapshot: Snapshot, event: str, action: str, names: list[str]) -> str:
    if action not in _ACTIONS:
        return ""
    text = f" ON {event} {_ACTIONS[action]}"
    if action in "nd":
        if event == "UPDATE" or snapshot.major < 15:
            return ""  # it would set the tenant itself
        text += f" ({columns(names)})"
    return text


def indexes(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge approximate indexes that hold more than one tenant."""
    relations_by_oid = {r.oid: r for r in snapshot.relations}
    roots: dict[str, list[str]] = defaultdict(list)
    for index in snapshot.read("indexes", Index):
        relation = relations_by_oid[index.oid]
        if index.method not in ("hnsw", "ivfflat") or index.kind == "I" or one_tenant(snapshot, relation):
            continue
        partial = bind(index.predicate, snapshot.tenant)
        if partial is not None and partial.binding is Binding.FIXED:
            continue
        roots[index.parent or ident(index.schema, index.name)].append(name_of(relation))
    for root, tables in roots.items():
        parts = root if root.startswith('"') else ident(*root.split(".", 1))
        yield make_finding(
            "PG105", parts.replace('"', ""), f"An approximate index on {', '.join(sorted(tables))} holds many tenants.",
            advice("Keep it until it is replaced by partitions by tenant, each with an index (`vectoracl provision "
                   "--adopt` creates them), or by a partial index for each large tenant. Then drop it."),
        )  # fmt: skip


def planning(snapshot: Snapshot) -> Iterator[Finding]:
    """Report that statements without the tenant's predicate are slow with many partitions."""
    table = snapshot.table
    if table is None or table.kind != "p" or snapshot.tenant.column is None:
        return
    parts = [child for child in snapshot.children if child.is_partition]
    if len(parts) < MANY_PARTITIONS:
        return
    yield make_finding(
        "PG107", name_of(table), f"{name_of(table)} has {len(parts):,} partitions. A statement that does not compare "
        f"{snapshot.tenant} with a value is planned over all of them, and locks them all.",
        advice(f"In your own SQL, also in a join, compare the tenant in the statement too: WHERE "
        f"{snapshot.tenant.sql} = "
               "'TENANT', for each such table. Demote small tenants (`vectoracl tenants list` advises)."),
    )  # fmt: skip


def one_tenant(snapshot: Snapshot, relation: Relation) -> bool:
    """Return whether *relation* is a LIST partition by the tenant column for exactly one value."""
    parent = next(
        (r for r in snapshot.relations if (r.schema, r.name) == (relation.parent_schema, relation.parent_name)), None
    )
    if parent is None or not relation.is_partition or parent.partition_key is None:
        return False
    key = parent.partition_key.replace('"', "")
    if relation.one_value and snapshot.tenant.key is None and key == f"LIST ({snapshot.tenant.column})":
        return True
    return one_tenant(snapshot, parent)


def catalog(snapshot: Snapshot) -> Iterator[Finding]:
    """Report what every role can read in the catalogs."""
    if snapshot.table is not None:
        yield make_finding(
            "PG106", name_of(snapshot.table), f"Row estimates of {len(snapshot.relations)} relations, and the bounds "
            "of their partitions, can be read by every role that can connect.",
            advice("Let no untrusted user run SQL; name partitions by a number or a hash instead of by the tenant."),
        )  # fmt: skip
