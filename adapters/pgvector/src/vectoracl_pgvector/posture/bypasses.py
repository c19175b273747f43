"""Judges ways around the policies: views, functions, copies, schema, extensions, logs and versions."""

from __future__ import annotations

from collections.abc import Iterator

from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.posture import releases
from vectoracl_pgvector.posture.fix_sql import advice, ident, role
from vectoracl_pgvector.posture.rows import Code, DefaultGrant, Extension, Function, Move, Publication, Setting, View
from vectoracl_pgvector.posture.snapshot import (
    Snapshot,
    database_of,
    grantee_name,
    grantee_names,
    make_finding,
    new_owner,
)


def views(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge views and materialized views that read the table."""
    for view in snapshot.read("views", View):
        if not view.grantees:
            continue
        at, sql, who = f"{view.schema}.{view.name}", ident(view.schema, view.name), view.grantees
        revoke = f"REVOKE ALL ON TABLE {sql} FROM {', '.join(role(g) for g in who)};"
        if view.kind == "m":
            yield make_finding("PG071", at, f"{grantee_names(who)} may read the materialized view {at}.", revoke)
        elif not view.invoker and view.owner_exempt:
            fix = f"ALTER VIEW {sql} SET (security_invoker = true);" if snapshot.major >= 15 else revoke
            yield make_finding(
                "PG070", at, f"{at} runs as {view.owner}, which no policy binds; {grantee_names(who)} may use it.", fix
            )


def functions(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge SECURITY DEFINER functions that run as a role that no policy binds."""
    for function in snapshot.read("functions", Function):
        at = f"{function.schema}.{function.name}({function.arguments})"
        kind = "PROCEDURE" if function.kind == "p" else "FUNCTION"
        sql = f"{kind} {ident(function.schema, function.name)}({function.arguments})"
        revoke = f"REVOKE EXECUTE ON {sql} FROM {', '.join(role(g) for g in function.grantees)};"
        whom = f"{at} runs as {function.owner}, which no policy binds; {grantee_names(function.grantees)} may call it"
        if function.mentions:
            yield make_finding("PG072", at, f"{whom}, and it mentions the table.", revoke)
        elif function.opaque:
            yield make_finding("PG074", at, f"{whom}; what it does cannot be determined.", revoke)
        if not function.pinned:
            pin = ", ".join(["pg_catalog", *dict.fromkeys(ident(s) for s in (function.schema, snapshot.target.schema))])
            yield make_finding("PG073", at, f"{whom}, with the search_path of its caller.",
                         f"ALTER {sql} SET search_path = {pin}, pg_temp;")  # fmt: skip


def moves(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the leftovers of interrupted moves."""
    for move in snapshot.read("moves", Move):
        blocks = "; its tenant cannot write until then" if move.blocks else ""
        yield make_finding(
            "PG120", f"{snapshot.target.schema}.{move.copy}",
            f"A move of a tenant was interrupted, and its copy {move.copy} has to be completed or removed{blocks}.",
            advice("Run `vectoracl tenants list`, which names the tenant; then `vectoracl tenants promote TENANT` "
                   "completes the move, and `vectoracl tenants demote TENANT` undoes it."),
        )  # fmt: skip


def called_code(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge which roles can replace the functions that policies and triggers call."""
    for code in snapshot.read("code", Code):
        at = f"{code.schema}.{code.function}({code.arguments})"
        fix = (
            f"ALTER FUNCTION {ident(code.schema, code.function)}({code.arguments}) "
            f"OWNER TO {ident(new_owner(snapshot, code.table_owner))};"
        )
        user = f"{code.kind} {code.name} on {code.table_schema}.{code.table}"
        if code.reachable:
            yield make_finding("PG037", at, f"{snapshot.role} can replace {at}, which {user} calls.", fix)
        elif code.kind == "trigger" and not code.trusted:
            yield make_finding("PG075", at, f"{user} calls {at}, which belongs to {code.owner}.", fix)


def copies(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge rewrite rules and publications, which copy rows elsewhere."""
    for schema, table, name in snapshot.rows.get("rewrite_rules", []):
        yield make_finding("PG076", f"{schema}.{table}.{name}", f"The rule {name} acts on {schema}.{table}.",
                     f"DROP RULE {ident(name)} ON {ident(schema, table)};")  # fmt: skip
    for publication in snapshot.read("publications", Publication):
        alter = f"ALTER PUBLICATION {ident(publication.name)}"
        if publication.all_tables:
            fix = f"DROP PUBLICATION {ident(publication.name)};"
        elif publication.named_tables:
            named = zip(publication.named_schemas, publication.named_tables, strict=True)
            fix = f"{alter} DROP TABLE {', '.join(ident(*names) for names in named)};"
        else:
            fix = f"{alter} DROP TABLES IN SCHEMA {ident(publication.schema)};"
        yield make_finding(
            "PG077", publication.name, f"Publication {publication.name} sends rows of every tenant.", fix
        )


def schema_and_database(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge who may create objects in the schema and database, default privileges, and related settings."""
    for schema, grantee, owner in snapshot.rows.get("schemas", []):
        fix = f"REVOKE CREATE ON SCHEMA {ident(schema)} FROM {role(grantee)};"
        if owner:
            fix = f"ALTER SCHEMA {ident(schema)} OWNER TO {ident(new_owner(snapshot))};"
            if schema == snapshot.target.schema:
                who = grantee_name(grantee)
                yield make_finding("PG088", schema, f"{who} owns the schema {schema} and may drop what is in it.", fix)
        yield make_finding("PG080", schema, f"{grantee_name(grantee)} may create objects in the schema {schema}.", fix)
    for database, grantee, owner in snapshot.rows.get("database", []):
        fix = f"REVOKE CREATE ON DATABASE {ident(database)} FROM {role(grantee)};"
        if owner:
            fix = f"ALTER DATABASE {ident(database)} OWNER TO {ident(new_owner(snapshot))};"
        yield make_finding(
            "PG081", database, f"{grantee_name(grantee)} may create schemas in the database {database}.", fix
        )
    for default in snapshot.read("default_grants", DefaultGrant):
        schema = f" IN SCHEMA {ident(default.schema)}" if default.schema else ""
        yield make_finding(
            "PG082", default.schema or "all schemas",
            f"Tables that {default.creator} will create are granted to {grantee_name(default.grantee)}.",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {ident(default.creator)}{schema} "
            f"REVOKE ALL ON TABLES FROM {role(default.grantee)};",
        )  # fmt: skip
    for schema, name, arguments in snapshot.rows.get("leakproof", []):
        yield make_finding("PG083", f"{schema}.{name}({arguments})", f"{schema}.{name} is marked LEAKPROOF.",
                     f"ALTER FUNCTION {ident(schema, name)}({arguments}) NOT LEAKPROOF;")  # fmt: skip
    for count, compatible in snapshot.rows.get("large_objects", []):
        if compatible:
            yield make_finding("PG085", "lo_compat_privileges", "Every role may read and write every large object.",
                         "ALTER SYSTEM SET lo_compat_privileges = off; SELECT pg_reload_conf();")  # fmt: skip
        if count:
            yield make_finding(
                "PG085", "large objects", f"{snapshot.role} can reach {count} large objects, which have no tenant.",
                advice("Move what belongs to tenants into a table with policies, and lo_unlink the rest."),
            )  # fmt: skip


def extensions(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the version of pgvector, and extensions that reach outside the database."""
    for extension in snapshot.read("extensions", Extension):
        name = ident(extension.name)
        if extension.name == "vector":
            holes = releases.pgvector_holes(extension.version, wide=snapshot.server is None or snapshot.server.wide)
            if releases.parts(extension.version) < releases.PGVECTOR_NEEDED:
                holes = ["it has no iterative scans, which every search uses", *holes]
            if holes:
                text = f"pgvector is {extension.version}: {'; '.join(holes)}."
                yield make_finding("PG093", "vector", text, f"ALTER EXTENSION {name} UPDATE;")
        if extension.name in releases.OUTSIDE_EXTENSIONS and extension.usable:
            yield make_finding("PG084", extension.name, f"{snapshot.role} may use the extension {extension.name}.",
                         f"DROP EXTENSION {name};")  # fmt: skip
        if extension.name == "pg_stat_statements" and extension.statements_readable:
            view = ident(extension.schema, "pg_stat_statements")
            yield make_finding("PG086", extension.name, f"{snapshot.role} may read pg_stat_statements.",
                         f"REVOKE ALL ON TABLE {view} FROM PUBLIC, {ident(snapshot.role)};")  # fmt: skip


def logs(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge whether statements of the runtime role are logged with their parameters."""
    settings: dict[str, Setting] = {}
    for setting in sorted(snapshot.read("settings", Setting), key=lambda s: s.rank):
        settings[setting.name] = setting
    value = {name: setting.value for name, setting in settings.items()}
    whole = value.get("log_statement", "none") in ("all", "mod")
    timed = any(value.get(n, "-1") != "-1" for n in ("log_min_duration_statement", "log_min_duration_sample"))
    if (whole or timed) and value.get("log_parameter_max_length", "-1") != "0":
        yield make_finding(
            "PG087", snapshot.role, "Statements are logged together with their parameters.",
            f"ALTER ROLE {ident(snapshot.role)} IN DATABASE {ident(database_of(snapshot))} SET "
            "log_parameter_max_length = 0;",
        )  # fmt: skip


def server_versions(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the server's version, using the server's own date for the end of support."""
    server = snapshot.server
    if server is None:
        return
    newest = releases.SECURITY_RELEASE.get(snapshot.major)
    update = advice(
        f"Update the server to PostgreSQL {snapshot.major}.{newest} or newer." if newest
        else f"Move to a supported major version (at least PostgreSQL {releases.OLDEST_MAJOR + 2})."
    )  # fmt: skip
    for identifier, fixed in releases.ROW_SECURITY_HOLES:
        if releases.affected(server.number, fixed):
            yield make_finding(
                "PG090", f"PostgreSQL {server.version}",
                f"{identifier} is fixed in {snapshot.major}.{fixed[snapshot.major]}; this is "
                f"{server.version}.", update,
            )  # fmt: skip
    if snapshot.major < releases.OLDEST_MAJOR:
        yield make_finding(
            "PG090", f"PostgreSQL {server.version}", "This version is older than any that this check knows.", update
        )
    elif releases.affected(server.number, releases.SECURITY_RELEASE) and not snapshot.target.embedded:
        yield make_finding(
            "PG091", f"PostgreSQL {server.version}",
            f"{snapshot.major}.{newest} fixes vulnerabilities of {server.version} "
            f"({releases.SECURITY_RELEASE_CLOSES}).",
            update,
        )  # fmt: skip
    end = releases.END_OF_LIFE.get(snapshot.major)
    if snapshot.major < releases.OLDEST_MAJOR or (end is not None and server.today > end):
        yield make_finding(
            "PG092", f"PostgreSQL {server.version}",
            f"Support of PostgreSQL {snapshot.major} ended{f' on {end}' if end else ''}.",
            advice("Move to a supported major version with pg_upgrade."),
        )  # fmt: skip
