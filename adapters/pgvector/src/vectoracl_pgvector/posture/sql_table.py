"""The posture check's statements about the table: privileges, policies, keys, views, code, publications."""

from __future__ import annotations

from typing import Final

from vectoracl_pgvector.posture import sql_fragments as parts

# Whether a partition is for one value is read from the stored bound: printing it would open thousands of relations.
RELATIONS: Final = (
    parts.REACH
    + parts.TREE
    + """
SELECT c.oid::bigint, tree.place, n.nspname::text, c.relname::text, c.relkind::text, c.relrowsecurity,
       c.relforcerowsecurity, pg_catalog.pg_get_userbyid(c.relowner)::text, c.relispartition,
       coalesce(c.relpartbound::text ~ ':strategy l :is_default false ' AND c.relpartbound::text !~ '[{]CONST.*[{]CONST'
                AND c.relpartbound::text ~ ':constisnull false', false),
       CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END,
       pn.nspname::text, p.relname::text
  FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN LATERAL (SELECT h.inhparent FROM pg_catalog.pg_inherits h
                      WHERE h.inhrelid = c.oid ORDER BY h.inhseqno LIMIT 1) i ON true
  LEFT JOIN pg_catalog.pg_class p ON p.oid = i.inhparent LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
 ORDER BY tree.place = 'target' DESC, tree.place, 3, 4"""
)

# One row for each policy that several relations have in common: thousands of partitions have few different texts. The
# output of `pg_get_expr` depends on the expression tree, on the names of the relation's columns and, for a whole row,
# on the relation. Before version 17 the tree also contains the position of each part in its statement. The key is one
# text, of which the planner expects few and so hashes: sorting megabytes of equal texts takes several times longer.
POLICIES: Final = (
    parts.REACH
    + parts.TREE
    + parts.RELATED
    + """,
  shape AS (SELECT a.attrelid,
                   pg_catalog.md5(pg_catalog.string_agg(a.attnum || ' ' || a.attname, ',' ORDER BY a.attnum)) AS names
              FROM pg_catalog.pg_attribute a
             WHERE a.attnum > 0 AND (a.attrelid IN (SELECT oid FROM tree) OR a.attrelid IN (SELECT oid FROM related))
             GROUP BY a.attrelid),
  keyed AS (SELECT p.oid, p.polrelid, pg_catalog.concat(x.using IS NULL, x.checked IS NULL,
                   pg_catalog.octet_length(p.polname::text), ' ', p.polname, p.polpermissive, p.polcmd, p.polroles,
                   shape.names, ' ', CASE WHEN pg_catalog.strpos(x.using, ':varattno 0 ') > 0
                                            OR pg_catalog.strpos(x.checked, ':varattno 0 ') > 0 THEN p.polrelid END,
                   ' ', pg_catalog.octet_length(x.using), ' ', x.using, x.checked) AS key
              FROM pg_catalog.pg_policy p LEFT JOIN shape ON shape.attrelid = p.polrelid
             CROSS JOIN LATERAL (SELECT CASE WHEN n.number >= 170000 THEN p.polqual::text
                                    ELSE pg_catalog.regexp_replace(p.polqual::text, ':location -?[0-9]+', '', 'g')
                                    END AS using,
                                        CASE WHEN n.number >= 170000 THEN p.polwithcheck::text
                                    ELSE pg_catalog.regexp_replace(p.polwithcheck::text, ':location -?[0-9]+', '', 'g')
                                    END AS checked
                                   FROM (SELECT pg_catalog.current_setting('server_version_num')::integer AS number) n
                                 OFFSET 0) x
             WHERE p.polrelid IN (SELECT oid FROM tree) OR p.polrelid IN (SELECT oid FROM related)
            OFFSET 0),
  alike AS (SELECT pg_catalog.min(oid) AS one, pg_catalog.array_agg(polrelid::bigint) AS relations
              FROM keyed GROUP BY key)
SELECT ARRAY(SELECT pg_catalog.unnest(alike.relations) ORDER BY 1), p.polname::text, p.polpermissive, p.polcmd::text,
       pg_catalog.pg_get_expr(p.polqual, p.polrelid), pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid),
       ARRAY(SELECT CASE WHEN o = 0 THEN 'public' ELSE pg_catalog.pg_get_userbyid(o)::text END
               FROM pg_catalog.unnest(p.polroles) o ORDER BY 1),
       0 = ANY (p.polroles) OR EXISTS (SELECT FROM reach WHERE reach.oid = ANY (p.polroles)),
       coalesce((SELECT pg_catalog.min(q.proname::text) FROM pg_catalog.regexp_matches(
                          pg_catalog.concat(p.polqual, p.polwithcheck), ':(?:funcid|opfuncid) (\\d+)', 'g') m
                   JOIN pg_catalog.pg_proc q ON q.oid = m[1]::oid AND q.provolatile = 'v'), '')
  FROM alike JOIN pg_catalog.pg_policy p ON p.oid = alike.one ORDER BY 2, 1"""
)

GRANTS: Final = (
    parts.REACH
    + parts.TREE
    + parts.RELATED
    + f""",
  listed AS MATERIALIZED (SELECT a.attrelid, a.attname, a.attacl FROM pg_catalog.pg_attribute a
                           WHERE a.attacl IS NOT NULL AND NOT a.attisdropped)
SELECT x.oid::bigint, x.place, x.attname, {parts.GRANTEE}::text, acl.privilege_type, acl.is_grantable
  FROM (SELECT t.oid, t.place, NULL::text AS attname, c.relowner, c.relacl AS list
          FROM (SELECT oid, place FROM tree UNION ALL SELECT oid, 'related' FROM related) t
          JOIN pg_catalog.pg_class c ON c.oid = t.oid
        UNION ALL
        SELECT t.oid, t.place, a.attname::text, c.relowner, a.attacl
          FROM (SELECT oid, place FROM tree UNION ALL SELECT oid, 'related' FROM related) t
          JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN listed a ON a.attrelid = c.oid) x
 CROSS JOIN LATERAL pg_catalog.aclexplode(x.list) acl
 WHERE {parts.MINE} AND acl.grantee <> x.relowner ORDER BY 1, 3, 4, 5"""
)

COLUMNS: Final = (
    parts.REACH
    + parts.TREE
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
 WHERE a.attname = %(column)s AND NOT a.attisdropped AND a.attnum > 0"""
)

# Every column, with the sequence that provides its values.
ALL_COLUMNS: Final = (
    parts.REACH
    + parts.TREE
    + """
SELECT a.attname::text, t.typname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypmod, a.attnotnull,
       pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '' OR a.attgenerated <> '',
       s.nspname::text, s.relname::text
  FROM target JOIN pg_catalog.pg_attribute a ON a.attrelid = target.oid
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN LATERAL (SELECT n.nspname, c.relname FROM pg_catalog.pg_depend w
                       JOIN pg_catalog.pg_class c ON c.oid = w.objid AND c.relkind = 'S'
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                      WHERE w.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND w.refobjid = a.attrelid
                        AND w.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        AND w.refobjsubid = a.attnum LIMIT 1) s ON true
 WHERE a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""
)

# The comment of the vector column (`vector_column`).
NOTES: Final = (
    parts.REACH
    + parts.TREE
    + """
SELECT pg_catalog.col_description(a.attrelid, a.attnum)
  FROM target JOIN pg_catalog.pg_attribute a ON a.attrelid = target.oid
 WHERE a.attname = %(vector)s AND NOT a.attisdropped AND a.attnum > 0"""
)

# Definitions are printed of unique and exclusion indexes alone, whose columns are judged.
INDEXES: Final = (
    parts.REACH
    + parts.TREE
    + """
SELECT i.indrelid::bigint, n.nspname::text, c.relname::text, am.amname::text, i.indisunique, i.indisexclusion,
       ARRAY(SELECT coalesce(a.attname::text, '') FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k(num, pos)
               LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num AND k.num > 0
              WHERE k.pos <= i.indnkeyatts ORDER BY k.pos),
       o.conname::text, o.contype::text,
       pg_catalog.pg_get_expr(i.indpred, i.indrelid), c.relkind::text,
       (SELECT pn.nspname::text || '.' || p.relname::text FROM pg_catalog.pg_inherits h
          JOIN pg_catalog.pg_class p ON p.oid = h.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
         WHERE h.inhrelid = c.oid),
       CASE WHEN i.indisunique OR i.indisexclusion THEN pg_catalog.pg_get_indexdef(i.indexrelid) ELSE '' END
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  LEFT JOIN LATERAL (SELECT k.conname, k.contype FROM pg_catalog.pg_constraint k
                      WHERE (i.indisunique OR i.indisexclusion) AND k.conindid = i.indexrelid
                        AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x') LIMIT 1) o ON true
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_am am ON am.oid = c.relam
 WHERE i.indrelid IN (SELECT oid FROM tree WHERE place <> 'parent')
   AND (am.amname IN ('hnsw', 'ivfflat') OR NOT c.relispartition) ORDER BY 1, 2, 3"""
)

FOREIGN_KEYS: Final = (
    parts.REACH
    + parts.TREE
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
    parts.REACH
    + parts.TREE
    + parts.EXEMPT
    + parts.VIEWS
    + parts.LENT
    + f"""
SELECT n.nspname::text, v.relname::text, v.relkind::text,
       {parts.INVOKER},
       pg_catalog.pg_get_userbyid(v.relowner)::text, v.relowner IN (SELECT oid FROM exempt),
       ARRAY(SELECT DISTINCT coalesce({parts.GRANTEE}::text, '')
               FROM (SELECT coalesce(v.relacl, pg_catalog.acldefault('r', v.relowner)) AS list
                      UNION ALL SELECT a.attacl FROM pg_catalog.pg_attribute a
                      WHERE a.attrelid = v.oid AND a.attacl IS NOT NULL) l
              CROSS JOIN LATERAL pg_catalog.aclexplode(l.list) acl
              WHERE {parts.LENT_TO} AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE') ORDER BY 1)
  FROM seen JOIN pg_catalog.pg_class v ON v.oid = seen.oid AND v.relkind IN ('v', 'm')
  JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace ORDER BY 1, 2"""
)

FUNCTIONS: Final = (
    parts.REACH
    + parts.TREE
    + parts.EXEMPT
    + parts.VIEWS
    + parts.LENT
    + parts.CALLS
    + f"""
SELECT n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid), p.prokind::text,
       pg_catalog.pg_get_userbyid(p.proowner)::text,
       EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) s WHERE s LIKE 'search\\_path=%%'),
       p.oid IN (SELECT oid FROM reaching), p.oid IN (SELECT oid FROM murky),
       ARRAY(SELECT DISTINCT coalesce({parts.GRANTEE}::text, '')
               FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
              WHERE {parts.LENT_TO} ORDER BY 1)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE p.prosecdef AND p.prokind IN ('f', 'p', 'w') AND n.nspname <> 'pg_catalog'
   AND p.prorettype <> 'pg_catalog.event_trigger'::pg_catalog.regtype
   AND p.proowner IN (SELECT oid FROM exempt)
   AND (EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) acl
                 WHERE {parts.LENT_TO} AND acl.privilege_type = 'USAGE')
        OR EXISTS (SELECT FROM pg_catalog.pg_depend u WHERE u.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                      AND u.refobjid = p.oid AND u.deptype IN ('n', 'a', 'i')))
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
                WHERE {parts.LENT_TO})
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                      AND d.objid = p.oid AND d.deptype = 'e') ORDER BY 1, 2, 3"""
)

# Code that a policy, trigger, constraint, default or index of the tree calls.
CODE: Final = (
    parts.REACH
    + parts.TREE
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
    parts.REACH
    + parts.TREE
    + """
SELECT n.nspname::text, c.relname::text, w.rulename::text FROM pg_catalog.pg_rewrite w
  JOIN tree ON tree.oid = w.ev_class JOIN pg_catalog.pg_class c ON c.oid = w.ev_class
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE w.rulename <> '_RETURN' ORDER BY 1, 2, 3"""
)

# One row for each publication that sends any part of the tree unfiltered, with the tables of the tree that it names.
PUBLICATIONS: Final = (
    parts.REACH
    + parts.TREE
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
