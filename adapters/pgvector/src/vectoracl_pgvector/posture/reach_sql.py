"""The posture check's statements about reach: everything through which a role could read governed rows.

They return candidates and access lists, by role OIDs. `reach_graph` works out who can use which of them, because a
SECURITY DEFINER function lends its owner's privileges, and those can reach the next object. Objects of a fresh server
that still have their original privileges are not candidates: OIDs below 16384 belong to the server itself.
"""

from __future__ import annotations

from typing import Final

from vectoracl_pgvector.posture import sql_fragments as parts

_FIRST_NORMAL: Final = 16384

# Every role, and memberships. `reach_graph` follows these in Python, also from the owners of functions.
ROLES: Final = """SELECT r.oid::bigint, r.rolname::text, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication
  FROM pg_catalog.pg_roles r ORDER BY 1"""

MEMBERS: Final = """SELECT DISTINCT m.member::bigint, m.roleid::bigint FROM pg_catalog.pg_auth_members m
 WHERE m.admin_option OR coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::boolean, true)
    OR coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true) ORDER BY 1, 2"""


def _grantees(list_: str, privileges: str = "") -> str:
    """Return SQL for the OIDs of the grantees in an access list; 0 is PUBLIC."""
    which = f" WHERE acl.privilege_type IN ({privileges})" if privileges else ""
    return f"ARRAY(SELECT DISTINCT acl.grantee::bigint FROM pg_catalog.aclexplode({list_}) acl{which} ORDER BY 1)"


_USAGE: Final = _grantees("coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))", "'USAGE'")
_EXECUTE: Final = _grantees("coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))", "'EXECUTE'")

# The digest of a function, independent of the schema of its extension.
IDENTITY: Final = """pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat_ws('|',
         p.proname, pg_catalog.replace(pg_catalog.pg_get_function_identity_arguments(p.oid),
                                       pg_catalog.quote_ident(n.nspname) || '.', ''),
         l.lanname, p.prosrc, p.probin, pg_catalog.to_jsonb(p) ->> 'prosqlbody', p.prosecdef, p.proleakproof,
         p.proconfig), 'UTF8')), 'hex'), 32)"""

_EXTENSION_OF: Final = """LEFT JOIN pg_catalog.pg_depend x ON x.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        AND x.objid = p.oid AND x.deptype = 'e'
  LEFT JOIN pg_catalog.pg_extension e ON e.oid = x.refobjid"""

# PostgreSQL stores a body in SQL-standard form parsed: whether it refers only to PostgreSQL's own objects, calls only
# functions of their arguments (and a few that return the time or a setting), and reads no relation.
_PARSED: Final = "pg_catalog.to_jsonb(p) ->> 'prosqlbody'"
_PURE: Final = f"""coalesce(
         {_PARSED} !~ ':relid [1-9]'
         AND {_PARSED} !~ ':(?!location|stmt_location|stmt_len|rtekind)\\w+ [1-9]\\d{{4,}}'
         AND NOT EXISTS (
           SELECT FROM pg_catalog.regexp_matches({_PARSED},
                         ':(?:funcid|opfuncid|hashfuncid|negfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m
             LEFT JOIN pg_catalog.pg_proc q ON q.oid = m[1]::oid
            WHERE m[1] <> '0' AND (q.oid IS NULL OR q.prosecdef OR q.provolatile <> 'i' AND q.proname NOT IN
                   ('current_setting', 'now', 'statement_timestamp', 'clock_timestamp', 'transaction_timestamp',
                    'gen_random_uuid', 'random', 'version', 'count'))), false)"""

# Functions that run as their owner, that are written in native code or an untrusted language, or that see rows before
# the policies are applied.
FUNCTIONS: Final = f"""SELECT p.oid::bigint, n.nspname::text, p.proname::text,
       pg_catalog.pg_get_function_identity_arguments(p.oid),
       p.prokind::text, p.proowner::bigint, l.lanname::text, l.lanpltrusted AND l.lanname <> 'internal', p.prosecdef,
       p.proleakproof, coalesce(e.extname::text, ''),
       coalesce(e.extowner::bigint, 0), coalesce(p.proconfig, '{{}}'::text[]),
       CASE WHEN pg_catalog.length(p.prosrc) <= 20000 THEN p.prosrc ELSE '' END, {_PURE}, {IDENTITY},
       {_EXECUTE}, {_USAGE},
       EXISTS (SELECT FROM pg_catalog.pg_depend d
                WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = p.oid
                  AND d.classid NOT IN ('pg_catalog.pg_trigger'::pg_catalog.regclass,
                                        'pg_catalog.pg_event_trigger'::pg_catalog.regclass)
                  AND d.deptype IN ('n', 'a', 'i')),
       EXISTS (SELECT FROM pg_catalog.pg_event_trigger t WHERE t.evtfoid = p.oid AND t.evtenabled <> 'D'),
       p.prorettype = 'pg_catalog.event_trigger'::pg_catalog.regtype
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang {_EXTENSION_OF}
 WHERE p.prosecdef OR (p.oid >= {_FIRST_NORMAL}
       AND (p.proleakproof OR e.oid IS NULL AND (NOT l.lanpltrusted OR l.lanname = 'internal') AND p.prokind <> 'a'))
 ORDER BY 2, 3, 4"""

# One row for each extension: its native functions that PUBLIC or the role may call.
NATIVE: Final = (
    parts.REACH
    + f"""
SELECT e.extname::text, e.extversion, bool_and(o.rolsuper OR p.proowner = e.extowner),
       pg_catalog.array_agg({IDENTITY} ORDER BY p.oid), pg_catalog.min(n.nspname::text || '.' || p.proname::text)
  FROM pg_catalog.pg_extension e
  JOIN pg_catalog.pg_depend x ON x.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND x.refobjid = e.oid
   AND x.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND x.deptype = 'e'
  JOIN pg_catalog.pg_proc p ON p.oid = x.objid AND p.prokind <> 'a'
  JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND (NOT l.lanpltrusted OR l.lanname = 'internal')
 WHERE EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
                WHERE {parts.MINE})
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) acl
                WHERE {parts.MINE} AND acl.privilege_type = 'USAGE')
 GROUP BY 1, 2 ORDER BY 1"""
)

# LEAKPROOF functions with an OID of the server's own.
SYSTEM_LEAKPROOF: Final = f"""SELECT coalesce(pg_catalog.array_agg(p.oid::bigint ORDER BY p.oid), '{{}}')
  FROM pg_catalog.pg_proc p WHERE p.proleakproof AND p.oid < {_FIRST_NORMAL}"""

_READS: Final = "'SELECT'"
_WRITES: Final = "'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE'"


def _relation_grantees(privileges: str) -> str:
    """Return SQL for the grantees of *privileges* on the relation `c` or on one of its columns."""
    return f"""ARRAY(SELECT DISTINCT acl.grantee::bigint
          FROM (SELECT coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner)) AS list
                 UNION ALL SELECT a.attacl FROM pg_catalog.pg_attribute a
                            WHERE a.attrelid = c.oid AND a.attacl IS NOT NULL AND NOT a.attisdropped) s
         CROSS JOIN LATERAL pg_catalog.aclexplode(s.list) acl WHERE acl.privilege_type IN ({privileges}) ORDER BY 1)"""


# Relations outside the tree that roles other than their owner may use, or whose owner lends its privileges, and all
# relations that views among them read (catalogs leave no dependency: only those that PUBLIC may not read).
# `content`: the columns that can hold text, documents or vectors.
_CANDIDATES: Final = f""",
  lenders AS (SELECT p.proowner AS oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
               WHERE p.prosecdef AND NOT r.rolsuper
                 AND p.proowner NOT IN (SELECT c.relowner FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid)
     UNION SELECT oid FROM reach),
  refs AS (SELECT DISTINCT w.ev_class AS rel, d.refobjid AS ref FROM pg_catalog.pg_rewrite w
             JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
              AND d.objid = w.oid AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
              AND d.refobjid <> w.ev_class
            WHERE w.oid >= {_FIRST_NORMAL}),
  used AS (SELECT c.oid FROM pg_catalog.pg_class c
            WHERE c.oid >= {_FIRST_NORMAL} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 't') AND c.relpersistence <> 't'
              AND c.oid NOT IN (SELECT oid FROM tree)
              AND (c.relowner IN (SELECT oid FROM lenders)
                   OR c.relacl IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) acl
                                                        WHERE acl.grantee <> c.relowner)
                   OR c.oid IN (SELECT a.attrelid FROM pg_catalog.pg_attribute a
                                  JOIN pg_catalog.pg_class o ON o.oid = a.attrelid
                                 CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) acl
                                 WHERE a.attacl IS NOT NULL AND acl.grantee <> o.relowner))),
  cand AS (SELECT oid FROM used
     UNION SELECT refs.ref FROM cand JOIN refs ON refs.rel = cand.oid
            WHERE refs.ref NOT IN (SELECT oid FROM tree) AND refs.ref >= {_FIRST_NORMAL})"""

RELATIONS: Final = (
    parts.REACH
    + parts.TREE
    + _CANDIDATES
    + f"""
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, c.relowner::bigint, c.relrowsecurity,
       c.relforcerowsecurity,
       coalesce((SELECT pg_catalog.lower(pg_catalog.split_part(o, '=', 2)) IN ('true', 'on', '1', 'yes', 't', 'y')
                   FROM pg_catalog.unnest(c.reloptions) o WHERE o LIKE 'security\\_invoker=%%'), false),
       coalesce(e.extname::text, ''), {_relation_grantees(_READS)}, {_relation_grantees(_WRITES)}, {_USAGE},
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND NOT (t.typtype = 'e' OR t.oid < {_FIRST_NORMAL} AND t.typcategory IN ('B', 'D', 'T', 'N', 'I')
                         OR t.oid IN ('uuid'::pg_catalog.regtype, '"char"'::pg_catalog.regtype,
                                      'pg_catalog.void'::pg_catalog.regtype)) ORDER BY a.attnum),
       EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                 LEFT JOIN pg_catalog.pg_type b ON b.oid IN (t.typelem, t.typbasetype) AND b.oid <> 0
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND (t.typname IN ('vector', 'halfvec', 'sparsevec', '_float4', '_float8')
                       OR b.typname IN ('vector', 'halfvec', 'sparsevec', '_float4', '_float8'))),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
               JOIN pg_catalog.pg_attribute b ON b.attrelid = (SELECT oid FROM target) AND b.attname = a.attname
                AND b.atttypid = a.atttypid AND b.attnum > 0 AND NOT b.attisdropped
               JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND t.typcategory NOT IN ('B', 'D', 'T', 'N', 'I') AND a.attname NOT IN ('id', 'name', %(tenant)s)
              ORDER BY 1),
       ARRAY(SELECT ref::bigint FROM refs WHERE refs.rel = c.oid ORDER BY 1),
       ARRAY(SELECT DISTINCT k.relname::text FROM pg_catalog.pg_rewrite w
              CROSS JOIN LATERAL pg_catalog.regexp_matches(w.ev_action::text, ':relid (\\d+)', 'g') m
               JOIN pg_catalog.pg_class k ON k.oid = m[1]::oid AND k.oid < {_FIRST_NORMAL}
              WHERE w.ev_class = c.oid AND w.oid >= {_FIRST_NORMAL}
                AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(k.relacl) acl
                                 WHERE acl.grantee = 0 AND acl.privilege_type = 'SELECT') ORDER BY 1)
  FROM cand JOIN pg_catalog.pg_class c ON c.oid = cand.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_depend x ON x.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND x.objid = c.oid
        AND x.deptype = 'e' AND x.objsubid = 0
  LEFT JOIN pg_catalog.pg_extension e ON e.oid = x.refobjid ORDER BY 2, 3"""
)

# Relations of the tree that roles other than the owner may use (usually only the parent), with their owners.
TREE: Final = (
    parts.REACH
    + parts.TREE
    + f"""
SELECT c.oid::bigint, c.relowner::bigint, {_relation_grantees(_READS)}, {_relation_grantees(_WRITES)},
       ARRAY(SELECT DISTINCT d.refobjid::bigint FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend d
                 ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = w.oid
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> w.ev_class
              WHERE w.ev_class = c.oid)
  FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
 WHERE c.oid IN (SELECT oid FROM target) OR c.relhasrules
    OR c.relacl IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.aclexplode(c.relacl) acl
                                         WHERE acl.grantee <> c.relowner)
    OR c.oid IN (SELECT a.attrelid FROM pg_catalog.pg_attribute a
                  WHERE a.attacl IS NOT NULL AND NOT a.attisdropped) ORDER BY 1"""
)

POLICIES: Final = (
    parts.REACH
    + parts.TREE
    + _CANDIDATES
    + """
SELECT y.polrelid::bigint, y.polname::text, y.polpermissive, y.polcmd::text,
       pg_catalog.pg_get_expr(y.polqual, y.polrelid), pg_catalog.pg_get_expr(y.polwithcheck, y.polrelid),
       y.polroles::bigint[]
  FROM pg_catalog.pg_policy y JOIN cand ON cand.oid = y.polrelid ORDER BY 1, 2"""
)

# Policies that refer to an operator, function, type or relation other than their table and PostgreSQL's own objects,
# and those outside the tree that call a volatile function (`POLICIES` reports it for the tree).
POLICY_CODE: Final = (
    parts.REACH
    + parts.TREE
    + _CANDIDATES
    + """,
  other AS MATERIALIZED (SELECT y.polrelid, y.polname, y.polqual, y.polwithcheck
                           FROM pg_catalog.pg_policy y WHERE y.polrelid IN (SELECT oid FROM cand))
SELECT DISTINCT y.polrelid::bigint, y.polname::text, y.polrelid IN (SELECT oid FROM tree),
       pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)
  FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_depend d
    ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = y.oid
 WHERE (y.polrelid IN (SELECT oid FROM cand) OR y.polrelid IN (SELECT oid FROM tree))
   AND NOT (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = y.polrelid)
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typtype = 'e' AND t.oid = d.refobjid
                      AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass)
UNION
SELECT y.polrelid::bigint, y.polname::text, false, 'function ' || q.proname::text
  FROM other y CROSS JOIN LATERAL pg_catalog.regexp_matches(
         pg_catalog.concat(y.polqual, y.polwithcheck), ':(?:funcid|opfuncid) (\\d+)', 'g') m
  JOIN pg_catalog.pg_proc q ON q.oid = m[1]::oid AND q.provolatile = 'v' ORDER BY 1, 2, 4"""
)

# Triggers whose function runs as its owner, with the roles that can fire them (also by a foreign key's cascade); and
# every trigger of the tree, with its body.
TRIGGERS: Final = (
    parts.REACH
    + parts.TREE
    + f""",
  fired AS (SELECT g.oid, g.tgname, g.tgrelid, g.tgfoid FROM pg_catalog.pg_trigger g
              JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid
             WHERE NOT g.tgisinternal AND g.tgenabled <> 'D' AND g.tgparentid = 0
               AND (p.prosecdef OR g.tgrelid IN (SELECT oid FROM tree))),
  source AS (SELECT tgrelid AS rel, tgrelid AS via FROM fired
     UNION SELECT source.rel, k.confrelid FROM source JOIN pg_catalog.pg_constraint k
               ON k.contype = 'f' AND k.conrelid = source.via
              AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')))
SELECT fired.tgfoid::bigint, n.nspname::text, c.relname::text, fired.tgname::text,
       EXISTS (SELECT FROM source JOIN tree ON tree.oid = source.via WHERE source.rel = c.oid),
       ARRAY(SELECT DISTINCT acl.grantee::bigint FROM source s JOIN pg_catalog.pg_class v ON v.oid = s.via
              CROSS JOIN LATERAL (SELECT coalesce(v.relacl, pg_catalog.acldefault('r', v.relowner)) AS list
                                   UNION ALL SELECT a.attacl FROM pg_catalog.pg_attribute a
                                              WHERE a.attrelid = v.oid AND a.attacl IS NOT NULL) l
              CROSS JOIN LATERAL pg_catalog.aclexplode(l.list) acl
              WHERE s.rel = c.oid AND acl.privilege_type IN ({_WRITES})),
       p.prosecdef, l.lanname::text, CASE WHEN p.prosecdef THEN '' ELSE pg_catalog.left(p.prosrc, 20000) END
  FROM fired JOIN pg_catalog.pg_class c ON c.oid = fired.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_proc p ON p.oid = fired.tgfoid JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 ORDER BY 2, 3, 4"""
)

# Privileges on functions, relations and columns beyond those that PostgreSQL, or an extension's script, granted.
_EXPLODE: Final = """SELECT acl.grantee, acl.privilege_type FROM pg_catalog.aclexplode({}) acl"""
PRIVILEGES: Final = f"""
SELECT x.kind, x.schema, x.name, x.privilege_type, x.grantee::bigint FROM (
  SELECT 'function' AS kind, n.nspname::text AS schema,
         p.proname::text || '(' || pg_catalog.pg_get_function_identity_arguments(p.oid) || ')' AS name, a.*
    FROM pg_catalog.pg_init_privs i JOIN pg_catalog.pg_proc p ON p.oid = i.objoid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
   CROSS JOIN LATERAL ({_EXPLODE.format("coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))")}
                       EXCEPT {_EXPLODE.format("i.initprivs")}) a
   WHERE i.classoid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND i.objsubid = 0 AND a.grantee <> p.proowner
  UNION ALL
  SELECT 'schema', n.nspname::text, '', a.*
    FROM pg_catalog.pg_namespace n
    LEFT JOIN pg_catalog.pg_init_privs i ON i.classoid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
          AND i.objoid = n.oid AND i.objsubid = 0
   CROSS JOIN LATERAL ({_EXPLODE.format("n.nspacl")} EXCEPT {_EXPLODE.format("i.initprivs")}) a
   WHERE n.oid < {_FIRST_NORMAL} AND n.nspname <> 'public' AND n.nspacl IS NOT NULL AND a.grantee <> n.nspowner
     AND a.privilege_type = 'CREATE'
  UNION ALL
  SELECT 'relation', n.nspname::text, c.relname::text, a.*
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_init_privs i ON i.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
          AND i.objoid = c.oid AND i.objsubid = 0
   CROSS JOIN LATERAL ({_EXPLODE.format("c.relacl")} EXCEPT {_EXPLODE.format("i.initprivs")}) a
   WHERE c.oid < {_FIRST_NORMAL} AND c.relacl IS NOT NULL AND c.relkind IN ('r', 'v', 'm') AND a.grantee <> c.relowner
  UNION ALL
  SELECT 'relation', n.nspname::text, c.relname::text || '.' || t.attname::text, a.*
    FROM pg_catalog.pg_attribute t JOIN pg_catalog.pg_class c ON c.oid = t.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_init_privs i ON i.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
          AND i.objoid = c.oid AND i.objsubid = t.attnum
   CROSS JOIN LATERAL ({_EXPLODE.format("t.attacl")} EXCEPT {_EXPLODE.format("i.initprivs")}) a
   WHERE c.oid < {_FIRST_NORMAL} AND t.attacl IS NOT NULL AND a.grantee <> c.relowner) x
 WHERE NOT (x.schema = 'information_schema' AND x.grantee = 0 AND x.privilege_type = 'SELECT') ORDER BY 1, 2, 3, 4, 5"""

# pg_parameter_acl exists since PostgreSQL 15: older servers are not queried (see SINCE).
PARAMETERS: Final = """SELECT ARRAY(SELECT x.grantee::text || ' ' || a.parname || ' ' || x.privilege_type
  FROM pg_catalog.pg_parameter_acl a CROSS JOIN LATERAL pg_catalog.aclexplode(a.paracl) x ORDER BY 1)"""

# Servers, wrappers and languages that lead out of the database, with the roles that may use them.
OUTSIDE: Final = f"""SELECT 'server', s.srvname::text,
       {_grantees("coalesce(s.srvacl, pg_catalog.acldefault('S', s.srvowner))")}
  FROM pg_catalog.pg_foreign_server s
UNION ALL
SELECT 'foreign-data wrapper', w.fdwname::text,
       {_grantees("coalesce(w.fdwacl, pg_catalog.acldefault('F', w.fdwowner))")}
  FROM pg_catalog.pg_foreign_data_wrapper w
UNION ALL
SELECT 'language', l.lanname::text, {_grantees("coalesce(l.lanacl, pg_catalog.acldefault('l', l.lanowner))")}
  FROM pg_catalog.pg_language l
 WHERE l.lanpltrusted AND (l.lanname IN ('c', 'internal') OR l.lanname ~ '(u|sh)$') ORDER BY 1, 2"""

# Objects that the role owns, or can own, and other roles' objects use; and objects it owns that run by themselves.
OWNED: Final = (
    parts.REACH
    + """
SELECT DISTINCT pg_catalog.pg_describe_object(s.classid, s.objid, 0), '' FROM pg_catalog.pg_shdepend s
 WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.deptype = 'o'
   AND s.refobjid IN (SELECT oid FROM reach)
   AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND s.classid IN ('pg_catalog.pg_event_trigger'::pg_catalog.regclass,
                     'pg_catalog.pg_foreign_server'::pg_catalog.regclass,
                     'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass,
                     'pg_catalog.pg_publication'::pg_catalog.regclass,
                     'pg_catalog.pg_extension'::pg_catalog.regclass)
UNION
SELECT pg_catalog.pg_describe_object('pg_catalog.pg_subscription'::pg_catalog.regclass, s.objid, 0), ''
  FROM pg_catalog.pg_shdepend s
 WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.deptype = 'o'
   AND s.refobjid IN (SELECT oid FROM reach) AND s.classid = 'pg_catalog.pg_subscription'::pg_catalog.regclass
UNION
SELECT pg_catalog.pg_describe_object(s.classid, s.objid, 0),
       pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid)
  FROM pg_catalog.pg_shdepend s JOIN pg_catalog.pg_depend d ON d.refclassid = s.classid AND d.refobjid = s.objid
 CROSS JOIN LATERAL (SELECT CASE d.classid
     WHEN 'pg_catalog.pg_policy'::pg_catalog.regclass
       THEN (SELECT c.relowner FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_class c ON c.oid = y.polrelid
              WHERE y.oid = d.objid)
     WHEN 'pg_catalog.pg_trigger'::pg_catalog.regclass
       THEN (SELECT c.relowner FROM pg_catalog.pg_trigger y JOIN pg_catalog.pg_class c ON c.oid = y.tgrelid
              WHERE y.oid = d.objid)
     WHEN 'pg_catalog.pg_rewrite'::pg_catalog.regclass
       THEN (SELECT c.relowner FROM pg_catalog.pg_rewrite y JOIN pg_catalog.pg_class c ON c.oid = y.ev_class
              WHERE y.oid = d.objid)
     WHEN 'pg_catalog.pg_constraint'::pg_catalog.regclass
       THEN (SELECT coalesce(c.relowner, t.typowner) FROM pg_catalog.pg_constraint y
               LEFT JOIN pg_catalog.pg_class c ON c.oid = y.conrelid
               LEFT JOIN pg_catalog.pg_type t ON t.oid = y.contypid WHERE y.oid = d.objid)
     WHEN 'pg_catalog.pg_attrdef'::pg_catalog.regclass
       THEN (SELECT c.relowner FROM pg_catalog.pg_attrdef y JOIN pg_catalog.pg_class c ON c.oid = y.adrelid
              WHERE y.oid = d.objid)
     WHEN 'pg_catalog.pg_class'::pg_catalog.regclass
       THEN (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = d.objid)
     WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass
       THEN (SELECT c.proowner FROM pg_catalog.pg_proc c WHERE c.oid = d.objid)
     WHEN 'pg_catalog.pg_operator'::pg_catalog.regclass
       THEN (SELECT c.oprowner FROM pg_catalog.pg_operator c WHERE c.oid = d.objid)
     WHEN 'pg_catalog.pg_type'::pg_catalog.regclass
       THEN (SELECT c.typowner FROM pg_catalog.pg_type c WHERE c.oid = d.objid)
     WHEN 'pg_catalog.pg_event_trigger'::pg_catalog.regclass
       THEN (SELECT c.evtowner FROM pg_catalog.pg_event_trigger c WHERE c.oid = d.objid)
     ELSE 0::oid END AS owner) o
 WHERE s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND s.deptype = 'o'
   AND s.refobjid IN (SELECT oid FROM reach)
   AND s.dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND s.classid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
                     'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_opclass'::pg_catalog.regclass,
                     'pg_catalog.pg_ts_dict'::pg_catalog.regclass, 'pg_catalog.pg_ts_config'::pg_catalog.regclass)
   AND d.deptype IN ('n', 'a') AND o.owner IS NOT NULL AND o.owner NOT IN (SELECT oid FROM reach)
 ORDER BY 1, 2"""
)

STATEMENTS: Final[tuple[tuple[str, str], ...]] = (
    ("reach_roles", ROLES),
    ("reach_members", MEMBERS),
    ("reach_functions", FUNCTIONS),
    ("reach_native", NATIVE),
    ("reach_leakproof", SYSTEM_LEAKPROOF),
    ("reach_relations", RELATIONS),
    ("reach_tree", TREE),
    ("reach_policies", POLICIES),
    ("reach_policy_code", POLICY_CODE),
    ("reach_triggers", TRIGGERS),
    ("reach_privileges", PRIVILEGES),
    ("reach_parameters", PARAMETERS),
    ("reach_outside", OUTSIDE),
    ("reach_owned", OWNED),
)

SINCE: Final = {"reach_parameters": 150_000}
"""The oldest `server_version` that supports a statement; an older server has nothing of that kind."""
