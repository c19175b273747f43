"""Judges roles that may dump or restore everything. No policy binds them, so the configuration has to name them."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from vectoracl.adapter_api.postgres_roles import SERVER_ROLES
from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.posture import sql_fragments as parts
from vectoracl_pgvector.posture.fix_sql import advice, ident
from vectoracl_pgvector.posture.snapshot import Snapshot, make_finding

# Administrators that a managed service reserves for itself; its customers can neither change nor use them.
SERVICE_ROLES: Final = frozenset({
    "rdsadmin", "cloudsqladmin", "cloudsqlagent", "alloydbadmin", "azuresu", "supabase_admin", "cloud_admin",
})  # fmt: skip

# Roles that may log in and that no policy binds, or that can act as such a role. The cluster's first superuser (OID 10)
# always exists; the runtime role has separate findings.
POWERFUL: Final = (
    parts.REACH
    + parts.TREE
    + """,
  able AS (SELECT r.oid, r.rolname, r.rolsuper, r.rolreplication,
                  ARRAY(SELECT s.rolname::text FROM pg_catalog.pg_roles s
                         WHERE (s.rolsuper OR s.rolbypassrls OR s.rolname IN
                               ("""
    + ", ".join(f"'{one}'" for one in SERVER_ROLES)
    + """))
                           AND pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER') ORDER BY 1) AS through,
                  EXISTS (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
                           WHERE pg_catalog.pg_has_role(r.oid, c.relowner, 'MEMBER')) AS owns
             FROM pg_catalog.pg_roles r
            WHERE r.rolcanlogin AND r.oid <> 10 AND r.oid NOT IN (SELECT oid FROM me))
SELECT rolname::text, rolsuper, rolreplication, through, owns FROM able
 WHERE rolsuper OR rolreplication OR owns OR through <> '{}' ORDER BY 1"""
)


def backups(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge roles that may dump or restore everything, if the configuration could name them."""
    named = snapshot.target.backup_roles
    if named is None:
        return
    for role, superuser, replication, through, owns in snapshot.rows.get("powerful", []):
        if role in SERVICE_ROLES or any(fnmatchcase(role, pattern) for pattern in named):
            continue
        powers = []
        if superuser:
            powers.append("is a superuser")
        elif role in through:
            powers.append("has BYPASSRLS")
        elif through:
            powers.append(f"can act as {', '.join(through)}")
        if replication:
            powers.append("has REPLICATION")
        if owns and not superuser:
            powers.append("owns the table, or can act as its owner, and so can disable row-level security")
        yield make_finding(
            "PG140", role, f"{role} {', and '.join(powers)}.",
            advice(
                f'If {role} makes or restores backups, or operates the server, list it: backup_roles = ["{role}"] in '
                f"the store's configuration. Otherwise revoke the power, for example: ALTER ROLE {ident(role)} "
                "NOSUPERUSER NOBYPASSRLS NOREPLICATION;"
            ),
        )  # fmt: skip
