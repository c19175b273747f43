"""Grants, tenant column, keys and indexes of the table and its parts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from vectoracl.findings import Finding
from vectoracl_pgvector.policy_text import Binding, bind
from vectoracl_pgvector.posture_look import Look, found, grantee_name, listed, place_of
from vectoracl_pgvector.posture_rows import ForeignKey, Index, Relation
from vectoracl_pgvector.sql_text import advice, columns, ident, role

_TEXT_TYPES = {"text", "varchar", "bpchar", "citext", "name"}


_ACTIONS = {"r": "RESTRICT", "c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}


def grants(look: Look) -> Iterator[Finding]:
    """Judge what is granted to the role, by itself or by PUBLIC."""
    places = {r.oid: r for r in look.relations}
    on_child: dict[tuple[int, str | None], set[str]] = defaultdict(set)
    public: dict[int, set[str]] = defaultdict(set)
    for grant in look.grants:
        relation = places.get(grant.oid)
        if relation is None:
            continue
        at, sql = place_of(relation), ident(relation.schema, relation.name)
        rule = {"TRUNCATE": "PG050", "REFERENCES": "PG051", "TRIGGER": "PG052", "MAINTAIN": "PG053"}.get(
            grant.privilege
        )
        if rule is not None:
            what = grant.privilege + (f" ({ident(grant.column)})" if grant.column else "")
            yield found(
                rule, at, f"{grantee_name(grant.grantee)} is granted {grant.privilege} on {at}.",
                f"REVOKE {what} ON TABLE {sql} FROM {role(grant.grantee)};",
            )  # fmt: skip
        if grant.grantable:
            what = grant.privilege + (f" ({ident(grant.column)})" if grant.column else "")
            yield found(
                "PG055", at, f"{grantee_name(grant.grantee)} may grant {grant.privilege} on {at} to others.",
                f"REVOKE GRANT OPTION FOR {what} ON TABLE {sql} FROM {role(grant.grantee)} CASCADE;",
            )  # fmt: skip
        if relation.place == "child":
            on_child[grant.oid, grant.grantee].add(grant.privilege)
        elif grant.grantee is None:
            public[grant.oid].add(grant.privilege)
    for (oid, grantee), privileges in on_child.items():
        relation = places[oid]
        yield found(
            "PG025", place_of(relation),
            f"{grantee_name(grantee)} is granted {listed(privileges)} on {place_of(relation)} itself.",
            f"REVOKE ALL ON TABLE {ident(relation.schema, relation.name)} FROM {role(grantee)};",
        )  # fmt: skip
    for oid, privileges in public.items():
        relation = places[oid]
        yield found(
            "PG054", place_of(relation), f"PUBLIC is granted {listed(privileges)} on {place_of(relation)}.",
            f"REVOKE ALL ON TABLE {ident(relation.schema, relation.name)} FROM PUBLIC;",
        )  # fmt: skip


def tenant_column(look: Look) -> Iterator[Finding]:
    """Judge the tenant column."""
    table, column = look.table, look.column
    if table is None or "columns" in look.missing:
        return
    at, sql = place_of(table), ident(table.schema, table.name)
    if column is None:
        name = look.target.tenant_column or "tenant_id"
        yield found(
            "PG060", at, f"{at} has no tenant column" + (f" {name}." if look.target.tenant_column else "."),
            f"ALTER TABLE {sql} ADD COLUMN {ident(name)} text NOT NULL CHECK ({ident(name)} <> '');",
        )  # fmt: skip
        return
    subject, name = f"{at}.{column.name}", ident(column.name)
    if not column.not_null:
        yield found("PG061", subject, "Rows without a tenant are accepted.",
                     f"ALTER TABLE {sql} ALTER COLUMN {name} SET NOT NULL;")  # fmt: skip
    if column.type_name in _TEXT_TYPES and not any("<> ''" in c for c in column.checks):
        yield found("PG062", subject, "Rows with the empty string as tenant are accepted.",
                     f"ALTER TABLE {sql} ADD CHECK ({name} <> '');")  # fmt: skip
    if column.default is not None and not column.generated:
        yield found("PG063", subject, "Rows that name no tenant get one by default.",
                     f"ALTER TABLE {sql} ALTER COLUMN {name} DROP DEFAULT;")  # fmt: skip
    if column.type_name in ("citext", "bpchar") or not column.deterministic:
        yield found(
            "PG064", subject, f"Tenants of the type {column.type_text} with this collation can compare as equal.",
            advice("Drop the policies and keys of the column, run the next line, and create them again:")
            + f'\nALTER TABLE {sql} ALTER COLUMN {name} TYPE text COLLATE "C";',
        )  # fmt: skip


def keys(look: Look) -> Iterator[Finding]:
    """Judge unique keys and exclusion constraints: each is asked about hidden rows."""
    tenant, places = look.target.tenant_column, {r.oid: r for r in look.relations}
    for index in look.read("indexes", Index):
        if not (index.unique or index.exclusion) or index.parent or (tenant and tenant in index.keys):
            continue
        relation = places[index.oid]
        sql = ident(relation.schema, relation.name)
        keys = [k for k in index.keys if k]
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
        yield found("PG065", f"{place_of(relation)}.{index.name}",
                     f"{index.name} is unique over all tenants: {', '.join(k or 'an expression' for k in index.keys)}.",
                     fix)  # fmt: skip


def foreign_keys(look: Look) -> Iterator[Finding]:
    """Judge foreign keys to and from the table."""
    tenant = look.target.tenant_column
    for key in look.read("foreign_keys", ForeignKey):
        if any(a == tenant and b == tenant for a, b in zip(key.columns, key.to_columns, strict=False)):
            continue
        here, there = ident(key.schema, key.table), ident(key.to_schema, key.to_table)
        drop = f"ALTER TABLE {here} DROP CONSTRAINT {ident(key.name)};"
        if key.has_tenant and key.to_has_tenant:
            wanted = [tenant, *key.to_columns]
            unique = "" if ",".join(sorted(wanted)) in {",".join(sorted(u.split(","))) for u in key.to_unique} else (
                f" ALTER TABLE {there} ADD UNIQUE ({columns(wanted)});")  # fmt: skip
            fix = (
                f"{drop}{unique} ALTER TABLE {here} ADD CONSTRAINT {ident(key.name)} "
                f"FOREIGN KEY ({columns([tenant, *key.columns])}) REFERENCES {there} ({columns(wanted)})"
                f"{_action(look, 'UPDATE', key.on_update, key.columns)}"
                f"{_action(look, 'DELETE', key.on_delete, key.columns)};"
            )
        else:
            fix = drop
        yield found(
            "PG066" if key.direction == "in" else "PG067", f"{key.schema}.{key.table}.{key.name}",
            f"{key.name} goes from {key.schema}.{key.table} to {key.to_schema}.{key.to_table} without the tenant.", fix,
        )  # fmt: skip


def _action(look: Look, event: str, action: str, names: list[str]) -> str:
    if action not in _ACTIONS:
        return ""
    text = f" ON {event} {_ACTIONS[action]}"
    if action in "nd":
        if event == "UPDATE" or look.major < 15:
            return ""  # it would set the tenant itself
        text += f" ({columns(names)})"
    return text


def indexes(look: Look) -> Iterator[Finding]:
    """Judge approximate indexes that hold more than one tenant."""
    places = {r.oid: r for r in look.relations}
    roots: dict[str, list[str]] = defaultdict(list)
    for index in look.read("indexes", Index):
        relation = places[index.oid]
        if index.method not in ("hnsw", "ivfflat") or index.kind == "I" or _one_tenant(look, relation):
            continue
        partial = bind(index.predicate, look.target.tenant_column)
        if partial is not None and partial.binding is Binding.FIXED:
            continue
        roots[index.parent or ident(index.schema, index.name)].append(place_of(relation))
    for root, tables in roots.items():
        parts = root if root.startswith('"') else ident(*root.split(".", 1))
        yield found(
            "PG105", parts.replace('"', ""), f"An approximate index on {', '.join(sorted(tables))} holds many tenants.",
            f"DROP INDEX {parts};",
        )  # fmt: skip


def _one_tenant(look: Look, relation: Relation) -> bool:
    """A LIST partition by the tenant column alone, for exactly one value."""
    parent = next(
        (r for r in look.relations if (r.schema, r.name) == (relation.parent_schema, relation.parent_name)), None
    )
    if parent is None or relation.bound is None or parent.partition_key is None:
        return False
    key = parent.partition_key.replace('"', "")
    values = re.fullmatch(r"FOR VALUES IN \(((?:'(?:[^']|'')*')|[-\w.]+)\)", relation.bound)
    if key == f"LIST ({look.target.tenant_column})" and values is not None and values.group(1) != "NULL":
        return True
    return _one_tenant(look, parent)


def catalog(look: Look) -> Iterator[Finding]:
    """Say what the catalog tells everybody."""
    if look.table is not None:
        yield found(
            "PG106", place_of(look.table), f"Row estimates of {len(look.relations)} relations, and the bounds of their "
            "partitions, are open to every role that can connect.",
            advice("Let no stranger run SQL; name partitions by a number or a hash instead of by the tenant."),
        )  # fmt: skip
