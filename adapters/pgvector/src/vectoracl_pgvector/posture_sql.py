"""Every statement of the posture check: fixed in number, read-only, over the system catalogs, PostgreSQL 13 to 18.

The first one empties the search_path for the transaction, so that nothing below, nor what `pg_get_expr` prints, is
resolved in a schema that somebody else can write. Columns that only newer versions have are read through
`to_jsonb(row) ->> 'column'`. Rights are worked out from the access lists and the memberships that the role can
reach, with the name of the grantee, because the statement that mends has to name it.
"""

from __future__ import annotations

from typing import Final

# The role that is judged, and every role whose rights it has or can take: by inheriting, SET ROLE or ADMIN.
_REACH: Final = """WITH RECURSIVE
  me AS (SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r
          WHERE r.rolname = coalesce(%(role)s::name, current_user)),
  reach AS (SELECT me.oid FROM me
     UNION SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN reach ON m.member = reach.oid
            WHERE m.admin_option OR coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::boolean, true)
                  OR coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true))"""

# The target with all its parents and all its partitions or children.
_TREE: Final = """,
  target AS (SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE n.nspname = %(schema)s AND c.relname = %(table)s),
  up AS (SELECT oid FROM target
     UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up ON i.inhrelid = up.oid),
  down AS (SELECT oid FROM target
     UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN down ON i.inhparent = down.oid),
  tree AS (SELECT oid, CASE WHEN oid IN (SELECT oid FROM target) THEN 'target' ELSE 'parent' END AS place FROM up
     UNION SELECT oid, CASE WHEN oid IN (SELECT oid FROM target) THEN 'target' ELSE 'child' END FROM down)"""

# Tables of the same schema with the same tenant column that are not in the tree.
_RELATED: Final = """,
  related AS (SELECT c.oid FROM pg_catalog.pg_class c
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = %(tenant)s AND NOT a.attisdropped
               WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p') AND c.oid NOT IN (SELECT oid FROM tree))"""

# Roles that the tenant policy does not bind: exempt by attribute, owner of a table of the tree that is not forced, or
# named by a policy of their own that does not read the setting (an operator's USING (true)).
_EXEMPT: Final = """,
  exempt AS (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolsuper OR r.rolbypassrls
     UNION SELECT c.relowner FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
            WHERE c.relrowsecurity AND NOT c.relforcerowsecurity
     UNION SELECT r.oid FROM pg_catalog.pg_policy p CROSS JOIN LATERAL pg_catalog.unnest(p.polroles) o
             JOIN pg_catalog.pg_roles r ON o <> 0 AND pg_catalog.pg_has_role(r.oid, o, 'USAGE')
            WHERE p.polrelid IN (SELECT oid FROM tree) AND p.polpermissive AND r.oid NOT IN (SELECT oid FROM reach)
              AND pg_catalog.strpos(coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ''),
                                    'current_setting') = 0)"""

# Views (and views over views) that read the tree.
_VIEWS: Final = """,
  seen AS (SELECT oid FROM tree
     UNION SELECT w.ev_class FROM pg_catalog.pg_depend d
             JOIN pg_catalog.pg_rewrite w
               ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = d.objid
             JOIN pg_catalog.pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm')
             JOIN seen ON d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = seen.oid)"""

_INVOKER: Final = """coalesce('security_invoker=true' = ANY (v.reloptions)
                OR 'security_invoker=on' = ANY (v.reloptions)
                OR 'security_invoker=1' = ANY (v.reloptions) OR 'security_invoker=yes' = ANY (v.reloptions), false)"""

# Every role in whose name the runtime role can have something read: its own, and the owners of views and SECURITY
# DEFINER functions that it may use, of what those may use, and so on. It stops at exempt roles: what those own is
# judged by itself.
_LENT: Final = f""",
  lends AS (SELECT acl.grantee, v.relowner AS owner FROM pg_catalog.pg_class v
             CROSS JOIN LATERAL (SELECT v.relacl AS list UNION ALL SELECT a.attacl FROM pg_catalog.pg_attribute a
                                  WHERE a.attrelid = v.oid AND a.attacl IS NOT NULL) l
             CROSS JOIN LATERAL pg_catalog.aclexplode(l.list) acl
             WHERE v.relkind = 'v' AND NOT {_INVOKER}
     UNION SELECT acl.grantee, p.proowner FROM pg_catalog.pg_proc p
             CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
             WHERE p.prosecdef
     UNION SELECT m.member, m.roleid FROM pg_catalog.pg_auth_members m
            WHERE coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true)),
  lent AS (SELECT oid FROM reach
     UNION SELECT lends.owner FROM lent JOIN lends ON lends.grantee = 0 OR lends.grantee = lent.oid
            WHERE lends.owner NOT IN (SELECT oid FROM exempt))"""

# Functions that nobody's extension brought, with their source as words, and those that come to the table, or to what
# cannot be read, through any chain of calls.
_CALLS: Final = """,
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

_GRANTEE: Final = "CASE WHEN acl.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(acl.grantee) END"
_MINE: Final = "(acl.grantee = 0 OR acl.grantee IN (SELECT oid FROM reach))"
_LENT_TO: Final = "(acl.grantee = 0 OR acl.grantee IN (SELECT oid FROM lent))"

SERVER: Final = (
    _REACH
    + """
SELECT pg_catalog.current_setting('server_version_num')::integer, pg_catalog.current_setting('server_version'),
       pg_catalog.current_database()::text, session_user::text, coalesce(%(role)s::name, current_user)::text,
       EXISTS (SELECT FROM me), CURRENT_DATE::text,
       coalesce(pg_catalog.current_setting(%(setting)s, true), '') <> '',
       pg_catalog.current_setting('row_security')"""
)

ROLES: Final = (
    _REACH
    + _TREE
    + """
SELECT r.rolname::text, r.oid IN (SELECT oid FROM me), r.rolname = session_user, r.oid IN (SELECT oid FROM reach),
       r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication,
       EXISTS (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relowner = r.oid)
  FROM pg_catalog.pg_roles r
 WHERE r.oid IN (SELECT oid FROM reach) OR r.rolname = session_user ORDER BY 1"""
)

MEMBERSHIPS: Final = (
    _REACH
    + """
SELECT DISTINCT g.rolname::text, m.rolname::text
  FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles g ON g.oid = a.roleid
  JOIN pg_catalog.pg_roles m ON m.oid = a.member
 WHERE a.member IN (SELECT oid FROM reach) AND a.roleid IN (SELECT oid FROM reach) ORDER BY 1, 2"""
)

RELATIONS: Final = (
    _REACH
    + _TREE
    + """
SELECT c.oid::bigint, tree.place, n.nspname::text, c.relname::text, c.relkind::text, c.relrowsecurity,
       c.relforcerowsecurity, pg_catalog.pg_get_userbyid(c.relowner)::text, c.relispartition,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid), pg_catalog.pg_get_partkeydef(c.oid),
       (SELECT pp.nspname::text FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
          JOIN pg_catalog.pg_namespace pp ON pp.oid = p.relnamespace WHERE i.inhrelid = c.oid
         ORDER BY i.inhseqno LIMIT 1),
       (SELECT p.relname::text FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
         WHERE i.inhrelid = c.oid ORDER BY i.inhseqno LIMIT 1)
  FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 ORDER BY tree.place = 'target' DESC, tree.place, 3, 4"""
)

POLICIES: Final = (
    _REACH
    + _TREE
    + _RELATED
    + """
SELECT p.polrelid::bigint, p.polname::text, p.polpermissive, p.polcmd::text,
       pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
       ARRAY(SELECT CASE WHEN o = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(o)::text END
               FROM pg_catalog.unnest(p.polroles) o ORDER BY 1),
       0 = ANY (p.polroles) OR EXISTS (SELECT FROM reach WHERE reach.oid = ANY (p.polroles))
  FROM pg_catalog.pg_policy p
 WHERE p.polrelid IN (SELECT oid FROM tree) OR p.polrelid IN (SELECT oid FROM related) ORDER BY 1, 2"""
)

GRANTS: Final = (
    _REACH
    + _TREE
    + _RELATED
    + f"""
SELECT x.oid::bigint, x.place, x.attname, {_GRANTEE}::text, acl.privilege_type, acl.is_grantable
  FROM (SELECT t.oid, t.place, NULL::text AS attname, c.relowner, c.relacl AS list
          FROM (SELECT oid, place FROM tree UNION ALL SELECT oid, 'related' FROM related) t
          JOIN pg_catalog.pg_class c ON c.oid = t.oid
        UNION ALL
        SELECT t.oid, t.place, a.attname::text, c.relowner, a.attacl
          FROM (SELECT oid, place FROM tree UNION ALL SELECT oid, 'related' FROM related) t
          JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
         WHERE a.attacl IS NOT NULL AND NOT a.attisdropped) x
 CROSS JOIN LATERAL pg_catalog.aclexplode(x.list) acl
 WHERE {_MINE} AND acl.grantee <> x.relowner ORDER BY 1, 3, 4, 5"""
)

COLUMNS: Final = (
    _REACH
    + _TREE
    + """
SELECT a.attname::text, t.typname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '' OR a.attgenerated <> '',
       coalesce(k.collisdeterministic, true),
       ARRAY(SELECT pg_catalog.pg_get_constraintdef(o.oid) FROM pg_catalog.pg_constraint o
              WHERE o.conrelid = a.attrelid AND o.contype = 'c' AND a.attnum = ANY (o.conkey) ORDER BY 1)
  FROM target JOIN pg_catalog.pg_attribute a ON a.attrelid = target.oid
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_catalog.pg_collation k ON k.oid = a.attcollation
 WHERE a.attname = %(tenant)s AND NOT a.attisdropped AND a.attnum > 0"""
)

INDEXES: Final = (
    _REACH
    + _TREE
    + """
SELECT i.indrelid::bigint, n.nspname::text, c.relname::text, am.amname::text, i.indisunique, i.indisexclusion,
       ARRAY(SELECT coalesce(a.attname::text, '') FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k(num, pos)
               LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num AND k.num > 0
              WHERE k.pos <= i.indnkeyatts ORDER BY k.pos),
       (SELECT o.conname::text FROM pg_catalog.pg_constraint o
         WHERE o.conindid = i.indexrelid AND o.conrelid = i.indrelid AND o.contype IN ('p', 'u', 'x') LIMIT 1),
       (SELECT o.contype::text FROM pg_catalog.pg_constraint o
         WHERE o.conindid = i.indexrelid AND o.conrelid = i.indrelid AND o.contype IN ('p', 'u', 'x') LIMIT 1),
       pg_catalog.pg_get_expr(i.indpred, i.indrelid), c.relkind::text,
       (SELECT pn.nspname::text || '.' || p.relname::text FROM pg_catalog.pg_inherits h
          JOIN pg_catalog.pg_class p ON p.oid = h.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
         WHERE h.inhrelid = c.oid),
       pg_catalog.pg_get_indexdef(i.indexrelid)
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am am ON am.oid = c.relam
 WHERE i.indrelid IN (SELECT oid FROM tree WHERE place <> 'parent') ORDER BY 1, 2, 3"""
)

FOREIGN_KEYS: Final = (
    _REACH
    + _TREE
    + """
SELECT o.conname::text, CASE WHEN o.confrelid IN (SELECT oid FROM tree) THEN 'in' ELSE 'out' END,
       fn.nspname::text, f.relname::text, tn.nspname::text, t.relname::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(o.conkey) WITH ORDINALITY k(num, pos)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.num ORDER BY k.pos),
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(o.confkey) WITH ORDINALITY k(num, pos)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = o.confrelid AND a.attnum = k.num ORDER BY k.pos),
       o.confupdtype::text, o.confdeltype::text,
       EXISTS (SELECT FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = o.conrelid AND a.attname = %(tenant)s AND NOT a.attisdropped),
       EXISTS (SELECT FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = o.confrelid AND a.attname = %(tenant)s AND NOT a.attisdropped),
       ARRAY(SELECT pg_catalog.array_to_string(ARRAY(
               SELECT a.attname::text FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k(num, pos)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
                WHERE k.pos <= i.indnkeyatts ORDER BY 1), ',')
               FROM pg_catalog.pg_index i
              WHERE i.indrelid = o.confrelid AND i.indisunique AND i.indpred IS NULL AND i.indimmediate)
  FROM pg_catalog.pg_constraint o
  JOIN pg_catalog.pg_class f ON f.oid = o.conrelid JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
  JOIN pg_catalog.pg_class t ON t.oid = o.confrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
 WHERE o.contype = 'f' AND o.conparentid = 0
   AND (o.conrelid IN (SELECT oid FROM tree) OR o.confrelid IN (SELECT oid FROM tree)) ORDER BY 3, 4, 1"""
)

VIEWS: Final = (
    _REACH
    + _TREE
    + _EXEMPT
    + _VIEWS
    + _LENT
    + f"""
SELECT n.nspname::text, v.relname::text, v.relkind::text,
       {_INVOKER},
       pg_catalog.pg_get_userbyid(v.relowner)::text, v.relowner IN (SELECT oid FROM exempt),
       ARRAY(SELECT DISTINCT coalesce({_GRANTEE}::text, '')
               FROM (SELECT coalesce(v.relacl, pg_catalog.acldefault('r', v.relowner)) AS list
                      UNION ALL SELECT a.attacl FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = v.oid AND a.attacl IS NOT NULL) l
              CROSS JOIN LATERAL pg_catalog.aclexplode(l.list) acl
              WHERE {_LENT_TO} AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') ORDER BY 1)
  FROM seen JOIN pg_catalog.pg_class v ON v.oid = seen.oid AND v.relkind IN ('v', 'm')
  JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace ORDER BY 1, 2"""
)

FUNCTIONS: Final = (
    _REACH
    + _TREE
    + _EXEMPT
    + _VIEWS
    + _LENT
    + _CALLS
    + f"""
SELECT n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid), p.prokind::text,
       pg_catalog.pg_get_userbyid(p.proowner)::text, l.lanname::text,
       EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) s WHERE s LIKE 'search\\_path=%%'),
       p.oid IN (SELECT oid FROM reaching), p.oid IN (SELECT oid FROM murky),
       ARRAY(SELECT DISTINCT coalesce({_GRANTEE}::text, '')
               FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
              WHERE {_LENT_TO} ORDER BY 1)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
 WHERE p.prosecdef AND p.prokind IN ('f', 'p', 'w') AND n.nspname <> 'pg_catalog'
   AND p.prorettype <> 'pg_catalog.event_trigger'::pg_catalog.regtype
   AND p.proowner IN (SELECT oid FROM exempt)
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
                WHERE {_LENT_TO})
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                      AND d.objid = p.oid AND d.deptype = 'e') ORDER BY 1, 2, 3"""
)

# Code that a policy, trigger, constraint, default or index of the tree calls.
CODE: Final = (
    _REACH
    + _TREE
    + """
SELECT x.kind, x.name, tn.nspname::text, t.relname::text, n.nspname::text, p.proname::text,
       pg_catalog.pg_get_function_identity_arguments(p.oid), o.rolname::text, o.oid IN (SELECT oid FROM reach),
       o.rolsuper OR o.oid = t.relowner, pg_catalog.pg_get_userbyid(t.relowner)::text
  FROM (SELECT 'policy' AS kind, y.polname::text AS name, y.polrelid AS rel, d.refobjid AS func
          FROM pg_catalog.pg_policy y JOIN pg_catalog.pg_depend d
            ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND d.objid = y.oid
           AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        UNION SELECT 'trigger', g.tgname::text, g.tgrelid, g.tgfoid FROM pg_catalog.pg_trigger g
               WHERE NOT g.tgisinternal
        UNION SELECT 'constraint', o.conname::text, o.conrelid, d.refobjid FROM pg_catalog.pg_constraint o
                JOIN pg_catalog.pg_depend d
                  ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = o.oid
                 AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        UNION SELECT 'default', a.attname::text, e.adrelid, d.refobjid FROM pg_catalog.pg_attrdef e
                JOIN pg_catalog.pg_attribute a ON a.attrelid = e.adrelid AND a.attnum = e.adnum
                JOIN pg_catalog.pg_depend d
                  ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = e.oid
                 AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        UNION SELECT 'index', c.relname::text, i.indrelid, d.refobjid FROM pg_catalog.pg_index i
                JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
                JOIN pg_catalog.pg_depend d
                  ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = i.indexrelid
                 AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass) x
  JOIN tree ON tree.oid = x.rel JOIN pg_catalog.pg_class t ON t.oid = x.rel
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_catalog.pg_proc p ON p.oid = x.func JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_roles o ON o.oid = p.proowner WHERE n.nspname <> 'pg_catalog' ORDER BY 1, 3, 4, 2"""
)

REWRITE_RULES: Final = (
    _REACH
    + _TREE
    + """
SELECT n.nspname::text, c.relname::text, w.rulename::text FROM pg_catalog.pg_rewrite w
  JOIN tree ON tree.oid = w.ev_class JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE w.rulename <> '_RETURN' ORDER BY 1, 2, 3"""
)

# One row a publication that sends any part of the tree unfiltered, with the tables of the tree that it names itself.
PUBLICATIONS: Final = (
    _REACH
    + _TREE
    + """
SELECT b.pubname::text, b.puballtables,
       ARRAY(SELECT n.nspname::text FROM pg_catalog.pg_publication_rel x JOIN tree ON tree.oid = x.prrelid
               JOIN pg_catalog.pg_class c ON c.oid = x.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
              WHERE x.prpubid = b.oid ORDER BY x.prrelid),
       ARRAY(SELECT c.relname::text FROM pg_catalog.pg_publication_rel x JOIN tree ON tree.oid = x.prrelid
               JOIN pg_catalog.pg_class c ON c.oid = x.prrelid WHERE x.prpubid = b.oid ORDER BY x.prrelid),
       pg_catalog.min(p.schemaname)::text
  FROM pg_catalog.pg_publication_tables p JOIN pg_catalog.pg_publication b ON b.pubname = p.pubname
 WHERE (pg_catalog.to_jsonb(p) ->> 'rowfilter') IS NULL
   AND EXISTS (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = p.schemaname AND c.relname = p.tablename)
 GROUP BY b.oid, b.pubname, b.puballtables ORDER BY 1"""
)

SCHEMAS: Final = (
    _REACH
    + f"""
SELECT n.nspname::text, {_GRANTEE}::text, acl.grantee = n.nspowner FROM pg_catalog.pg_namespace n
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) acl
 WHERE (n.nspname IN (%(schema)s, 'public') OR n.oid IN (SELECT extnamespace FROM pg_catalog.pg_extension
                                                           WHERE extname = 'vector'))
   AND acl.privilege_type = 'CREATE' AND {_MINE} ORDER BY 1, 2"""
)

DATABASE: Final = (
    _REACH
    + f"""
SELECT d.datname::text, {_GRANTEE}::text, acl.grantee = d.datdba FROM pg_catalog.pg_database d
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) acl
 WHERE d.datname = pg_catalog.current_database() AND acl.privilege_type = 'CREATE' AND {_MINE} ORDER BY 2"""
)

DEFAULT_GRANTS: Final = (
    _REACH
    + f"""
SELECT pg_catalog.pg_get_userbyid(a.defaclrole)::text, n.nspname::text, {_GRANTEE}::text
  FROM pg_catalog.pg_default_acl a LEFT JOIN pg_catalog.pg_namespace n ON n.oid = a.defaclnamespace
 CROSS JOIN LATERAL pg_catalog.aclexplode(a.defaclacl) acl
 WHERE a.defaclobjtype = 'r' AND (n.nspname IS NULL OR n.nspname = %(schema)s) AND {_MINE}
   AND acl.grantee <> a.defaclrole GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
)

EXTENSIONS: Final = (
    _REACH
    + f"""
SELECT e.extname::text, e.extversion, n.nspname::text,
       EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
                CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
                WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'
                  AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                  AND d.refobjid = e.oid AND {_MINE})
       OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_foreign_server s ON s.srvfdw = d.objid
                   CROSS JOIN LATERAL
                        pg_catalog.aclexplode(coalesce(s.srvacl, pg_catalog.acldefault('S', s.srvowner))) acl
                   WHERE d.classid = 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass AND d.deptype = 'e'
                     AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                  AND d.refobjid = e.oid AND {_MINE}),
       coalesce((SELECT pg_catalog.bool_or({_MINE}) FROM pg_catalog.pg_depend d
                   JOIN pg_catalog.pg_class v ON v.oid = d.objid
                  CROSS JOIN LATERAL pg_catalog.aclexplode(v.relacl) acl
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
                    AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
                    AND v.relname = 'pg_stat_statements' AND acl.privilege_type = 'SELECT'), false)
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1"""
)

LEAKPROOF: Final = (
    _REACH
    + f"""
SELECT n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE p.proleakproof AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
                WHERE {_MINE})
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                      AND d.objid = p.oid AND d.deptype = 'e') ORDER BY 1, 2, 3"""
)

FILE_FUNCTIONS: Final = (
    _REACH
    + f"""
SELECT p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid), {_GRANTEE}::text
  FROM pg_catalog.pg_proc p
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
 WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND acl.grantee <> p.proowner AND {_MINE}
   AND p.proname IN ('pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'lo_import', 'lo_export') ORDER BY 1, 2, 3"""
)

# Values only of settings that are about logging; of the tenant setting only that it is not empty.
SETTINGS: Final = (
    _REACH
    + """
SELECT s.name::text, CASE WHEN s.name = 'row_security' OR s.name LIKE 'log\\_%%' THEN s.setting ELSE '' END,
       NULL::text, false, 0
  FROM pg_catalog.pg_settings s
 WHERE s.name IN ('log_statement', 'log_min_duration_statement', 'log_min_duration_sample', 'log_parameter_max_length',
                  'row_security')
UNION ALL
SELECT pg_catalog.lower(pg_catalog.split_part(c.item, '=', 1)),
       CASE WHEN c.item ~* '^(log_|row_security=)' THEN pg_catalog.substr(c.item, pg_catalog.strpos(c.item, '=') + 1)
            ELSE '' END,
       r.rolname::text, s.setdatabase <> 0,
       CASE WHEN s.setrole = 0 THEN 1 WHEN s.setdatabase = 0 THEN 2 ELSE 3 END
  FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) c(item)
  LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
 WHERE (s.setrole = 0 OR s.setrole IN (SELECT oid FROM reach))
   AND (s.setdatabase = 0 OR s.setdatabase = (SELECT d.oid FROM pg_catalog.pg_database d
                                               WHERE d.datname = pg_catalog.current_database()))
   AND pg_catalog.lower(pg_catalog.split_part(c.item, '=', 1)) IN
       (pg_catalog.lower(%(setting)s), 'log_statement', 'log_min_duration_statement', 'log_min_duration_sample',
        'log_parameter_max_length', 'row_security')
   AND pg_catalog.substr(c.item, pg_catalog.strpos(c.item, '=') + 1) <> ''
 ORDER BY 5, 1"""
)

RELATED: Final = (
    _REACH
    + _TREE
    + _RELATED
    + """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relrowsecurity, c.relforcerowsecurity,
       pg_catalog.format_type(a.atttypid, a.atttypmod)
  FROM related JOIN pg_catalog.pg_class c ON c.oid = related.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = %(tenant)s ORDER BY 2, 3"""
)

LARGE_OBJECTS: Final = (
    _REACH
    + f"""
SELECT count(DISTINCT m.oid)::bigint, pg_catalog.current_setting('lo_compat_privileges') = 'on'
  FROM pg_catalog.pg_largeobject_metadata m
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) acl
 WHERE {_MINE}"""
)

DISCOVER: Final = """
SELECT n.nspname::text, c.relname::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT pg_catalog.pg_get_expr(p.polqual, p.polrelid) FROM pg_catalog.pg_policy p
              WHERE p.polrelid = c.oid AND p.polqual IS NOT NULL ORDER BY p.polname)
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%%'
   AND EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  AND t.typname IN ('vector', 'halfvec', 'sparsevec')
                  AND EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
                               WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.objid = t.oid
                                 AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                                 AND d.deptype = 'e' AND e.extname = 'vector'))
 ORDER BY 1, 2"""

SAFE_PATH: Final = "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)"

STATEMENTS: Final[tuple[tuple[str, str], ...]] = (
    ("search_path", SAFE_PATH),
    ("server", SERVER),
    ("roles", ROLES),
    ("memberships", MEMBERSHIPS),
    ("relations", RELATIONS),
    ("policies", POLICIES),
    ("grants", GRANTS),
    ("columns", COLUMNS),
    ("indexes", INDEXES),
    ("foreign_keys", FOREIGN_KEYS),
    ("views", VIEWS),
    ("functions", FUNCTIONS),
    ("code", CODE),
    ("rewrite_rules", REWRITE_RULES),
    ("publications", PUBLICATIONS),
    ("schemas", SCHEMAS),
    ("database", DATABASE),
    ("default_grants", DEFAULT_GRANTS),
    ("extensions", EXTENSIONS),
    ("leakproof", LEAKPROOF),
    ("file_functions", FILE_FUNCTIONS),
    ("settings", SETTINGS),
    ("related", RELATED),
    ("large_objects", LARGE_OBJECTS),
)
