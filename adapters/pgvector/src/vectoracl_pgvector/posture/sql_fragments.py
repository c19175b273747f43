"""Common table expressions and conditions that several of the posture check's statements share."""

from __future__ import annotations

from typing import Final

# The judged role, and every role whose privileges it has or can take: by inheritance, SET ROLE or ADMIN.
REACH: Final = """WITH RECURSIVE
  me AS (SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r
          WHERE r.rolname = coalesce(%(role)s::name, current_user)),
  reach AS (SELECT me.oid FROM me
     UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN reach ON m.member = reach.oid
            WHERE m.admin_option OR coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::boolean, true)
                  OR coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true))"""

# The target with all its parents and all its partitions or children.
TREE: Final = """,
  target AS (SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = %(schema)s AND c.relname = %(table)s),
  up AS (SELECT oid FROM target
     UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up ON i.inhrelid = up.oid),
  down AS (SELECT oid FROM target
     UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN down ON i.inhparent = down.oid),
  tree AS (SELECT oid, CASE WHEN oid IN (SELECT oid FROM target) THEN 'target' ELSE 'parent' END AS place FROM up
     UNION SELECT oid, CASE WHEN oid IN (SELECT oid FROM target) THEN 'target' ELSE 'child' END FROM down)"""

# Tables of the same schema with the same tenant column that are not in the tree.
RELATED: Final = """,
  related AS (SELECT c.oid FROM pg_catalog.pg_class c
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = %(tenant)s AND NOT a.attisdropped
               WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.oid NOT IN (SELECT oid FROM tree))"""

# Roles that the tenant policy does not bind: exempt by attribute, owner of a table of the tree without FORCE, or named
# by a separate policy that does not read the setting (an operator's USING (true)).
EXEMPT: Final = """,
  exempt AS (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolsuper OR r.rolbypassrls
     UNION SELECT c.relowner FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
            WHERE c.relrowsecurity AND NOT c.relforcerowsecurity
     UNION SELECT r.oid FROM pg_catalog.pg_policy p CROSS JOIN LATERAL pg_catalog.unnest(p.polroles) o
             JOIN pg_catalog.pg_roles r ON o <> 0 AND pg_catalog.pg_has_role(r.oid, o, 'USAGE')
            WHERE p.polrelid IN (SELECT oid FROM tree) AND p.polpermissive AND p.polqual IS NOT NULL
              AND r.oid NOT IN (SELECT oid FROM reach)
              AND pg_catalog.strpos(coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ''),
                                    'current_setting') = 0)"""

# Views (and views over views) that read the tree.
VIEWS: Final = """,
  seen AS (SELECT oid FROM tree
     UNION SELECT w.ev_class FROM pg_catalog.pg_depend d
             JOIN pg_catalog.pg_rewrite w
               ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid
             JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
             JOIN seen ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = seen.oid)"""

INVOKER: Final = """coalesce('security_invoker=true' = ANY (v.reloptions)
                OR 'security_invoker=on' = ANY (v.reloptions)
                OR 'security_invoker=1' = ANY (v.reloptions) OR 'security_invoker=yes' = ANY (v.reloptions), false)"""

# Every role in whose name the runtime role can have something read: its own, and the owners of views and SECURITY
# DEFINER functions that it may use, of what those may use, and so on. It stops at exempt roles: what those own is
# judged by itself.
LENT: Final = f""",
  lends AS (SELECT acl.grantee, v.relowner AS owner FROM pg_catalog.pg_class v
             CROSS JOIN LATERAL (SELECT v.relacl AS list UNION ALL SELECT a.attacl FROM pg_catalog.pg_attribute a
                                  WHERE a.attrelid = v.oid AND a.attacl IS NOT NULL) l
             CROSS JOIN LATERAL pg_catalog.aclexplode(l.list) acl
             WHERE v.relkind = 'v' AND NOT {INVOKER}
     UNION SELECT acl.grantee, p.proowner FROM pg_catalog.pg_proc p
             CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
             WHERE p.prosecdef
     UNION SELECT m.member, m.roleid FROM pg_catalog.pg_auth_members m
            WHERE coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true)),
  lent AS (SELECT oid FROM reach
     UNION SELECT lends.owner FROM lent JOIN lends ON lends.grantee = 0 OR lends.grantee = lent.oid
            WHERE lends.owner NOT IN (SELECT oid FROM exempt))"""

# Functions that no extension ships, with their source as words, and those that reach the table, or code that cannot be
# read, through any chain of calls.
CALLS: Final = """,
  own AS (SELECT p.oid, ' ' || pg_catalog.regexp_replace(pg_catalog.lower(p.proname), '[^[:alnum:]_$]+', ' ', 'g')
                     || ' ' AS name, pg_catalog.lower(p.prosrc) AS source,
                 ' ' || pg_catalog.regexp_replace(pg_catalog.lower(p.prosrc), '[^[:alnum:]_$]+', ' ', 'g')
                     || ' ' AS words,
                 l.lanname NOT IN ('sql', 'plpgsql')
                   OR (l.lanname = 'plpgsql' AND p.prosrc ~* '\\mexecute\\M') AS opaque
            FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            JOIN pg_catalog.pg_language l ON l.oid = p.prolang
           WHERE n.nspname NOT IN ('pg_catalog', 'information_schema')
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                              WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                                AND d.deptype = 'e')),
  calls AS (SELECT caller.oid AS caller, callee.oid AS callee FROM own caller
              JOIN own callee ON callee.oid <> caller.oid AND pg_catalog.strpos(caller.words, callee.name) > 0
     UNION SELECT d.objid, d.refobjid FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
              AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass),
  touching AS (SELECT own.oid FROM own JOIN seen ON true JOIN pg_catalog.pg_class c ON c.oid = seen.oid
                WHERE pg_catalog.strpos(own.source, pg_catalog.lower(c.relname)) > 0
     UNION SELECT d.objid FROM pg_catalog.pg_depend d JOIN seen ON seen.oid = d.refobjid
            WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
              AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass),
  reaching AS (SELECT oid FROM touching
     UNION SELECT calls.caller FROM calls JOIN reaching ON calls.callee = reaching.oid),
  murky AS (SELECT oid FROM own WHERE opaque
     UNION SELECT calls.caller FROM calls JOIN murky ON calls.callee = murky.oid)"""

GRANTEE: Final = "CASE WHEN acl.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(acl.grantee) END"
MINE: Final = "(acl.grantee = 0 OR acl.grantee IN (SELECT oid FROM reach))"
LENT_TO: Final = "(acl.grantee = 0 OR acl.grantee IN (SELECT oid FROM lent))"
