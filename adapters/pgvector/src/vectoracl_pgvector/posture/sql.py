"""Every statement of the posture check: fixed in number, read-only, over the system catalogs, PostgreSQL 13 to 18.

The first statement empties the search_path for the transaction, so that no name, including those that `pg_get_expr`
prints, is resolved in a schema that another role can write. Columns that only newer versions have are read through
`to_jsonb(row) ->> 'column'`. Privileges are computed from the access lists and the memberships that the role can reach,
with the name of the grantee, because the statement that fixes a finding has to name it.
"""

from __future__ import annotations

from typing import Final

from vectoracl_pgvector.names import CONSTRAINT, UNFINISHED
from vectoracl_pgvector.posture import reach_sql, words
from vectoracl_pgvector.posture import sql_fragments as parts
from vectoracl_pgvector.posture.backups import POWERFUL
from vectoracl_pgvector.posture.bits import BITS
from vectoracl_pgvector.posture.sql_table import (
    ALL_COLUMNS,
    CODE,
    COLUMNS,
    FOREIGN_KEYS,
    FUNCTIONS,
    GRANTS,
    INDEXES,
    NOTES,
    POLICIES,
    PUBLICATIONS,
    RELATIONS,
    REWRITE_RULES,
    VIEWS,
)

SERVER: Final = (
    parts.REACH
    + """
SELECT pg_catalog.current_setting('server_version_num')::integer, pg_catalog.current_setting('server_version'),
       pg_catalog.current_database()::text, session_user::text, coalesce(%(role)s::name, current_user)::text,
       EXISTS (SELECT FROM me), CURRENT_DATE::text,
       coalesce(pg_catalog.current_setting(%(setting)s, true), '') <> '',
       pg_catalog.current_setting('row_security'), pg_catalog.version() !~ '32-bit'"""
)

ROLES: Final = (
    parts.REACH
    + parts.TREE
    + """
SELECT r.rolname::text, r.oid IN (SELECT oid FROM me), r.rolname = session_user, r.oid IN (SELECT oid FROM reach),
       r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication,
       EXISTS (SELECT FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid WHERE c.relowner = r.oid)
  FROM pg_catalog.pg_roles r
 WHERE r.oid IN (SELECT oid FROM reach) OR r.rolname = session_user ORDER BY 1"""
)

APPLICATION: Final = (
    parts.REACH
    + """
SELECT r.oid = 10, EXISTS (SELECT FROM pg_catalog.pg_database d
                            WHERE d.datname = pg_catalog.current_database() AND d.datdba = r.oid),
       coalesce((SELECT pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE') FROM pg_catalog.pg_namespace n
                  WHERE n.nspname = %(schema)s), false)
  FROM me JOIN pg_catalog.pg_roles r ON r.oid = me.oid"""
)

MEMBERSHIPS: Final = (
    parts.REACH
    + """
SELECT DISTINCT g.rolname::text, m.rolname::text
  FROM pg_catalog.pg_auth_members a JOIN pg_catalog.pg_roles g ON g.oid = a.roleid
  JOIN pg_catalog.pg_roles m ON m.oid = a.member
 WHERE a.member IN (SELECT oid FROM reach) AND a.roleid IN (SELECT oid FROM reach) ORDER BY 1, 2"""
)

SCHEMAS: Final = (
    parts.REACH
    + f"""
SELECT n.nspname::text, {parts.GRANTEE}::text, acl.grantee = n.nspowner FROM pg_catalog.pg_namespace n
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) acl
 WHERE (n.nspname IN (%(schema)s, 'public') OR n.oid IN (SELECT extnamespace FROM pg_catalog.pg_extension
                                                           WHERE extname = 'vector'))
   AND acl.privilege_type = 'CREATE' AND {parts.MINE} ORDER BY 1, 2"""
)

DATABASE: Final = (
    parts.REACH
    + f"""
SELECT d.datname::text, {parts.GRANTEE}::text, acl.grantee = d.datdba FROM pg_catalog.pg_database d
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) acl
 WHERE d.datname = pg_catalog.current_database() AND acl.privilege_type = 'CREATE' AND {parts.MINE} ORDER BY 2"""
)

DEFAULT_GRANTS: Final = (
    parts.REACH
    + f"""
SELECT pg_catalog.pg_get_userbyid(a.defaclrole)::text, n.nspname::text, {parts.GRANTEE}::text
  FROM pg_catalog.pg_default_acl a LEFT JOIN pg_catalog.pg_namespace n ON n.oid = a.defaclnamespace
 CROSS JOIN LATERAL pg_catalog.aclexplode(a.defaclacl) acl
 WHERE a.defaclobjtype = 'r' AND (n.nspname IS NULL OR n.nspname = %(schema)s) AND {parts.MINE}
   AND acl.grantee <> a.defaclrole GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
)

EXTENSIONS: Final = (
    parts.REACH
    + f"""
SELECT e.extname::text, e.extversion, n.nspname::text,
       EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_proc p ON p.oid = d.objid
                CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
                WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.deptype = 'e'
                  AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                  AND d.refobjid = e.oid AND {parts.MINE})
       OR EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_foreign_server s ON s.srvfdw = d.objid
                   CROSS JOIN LATERAL
                        pg_catalog.aclexplode(coalesce(s.srvacl, pg_catalog.acldefault('S', s.srvowner))) acl
                   WHERE d.classid = 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass AND d.deptype = 'e'
                     AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                  AND d.refobjid = e.oid AND {parts.MINE}),
       coalesce((SELECT pg_catalog.bool_or({parts.MINE}) FROM pg_catalog.pg_depend d
                   JOIN pg_catalog.pg_class v ON v.oid = d.objid
                  CROSS JOIN LATERAL pg_catalog.aclexplode(v.relacl) acl
                  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'e'
                    AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
                    AND v.relname = 'pg_stat_statements' AND acl.privilege_type = 'SELECT'), false)
  FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1"""
)

LEAKPROOF: Final = (
    parts.REACH
    + f"""
SELECT n.nspname::text, p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid)
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
 WHERE p.proleakproof AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
                WHERE {parts.MINE})
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                      AND d.objid = p.oid AND d.deptype = 'e') ORDER BY 1, 2, 3"""
)

FILE_FUNCTIONS: Final = (
    parts.REACH
    + f"""
SELECT p.proname::text, pg_catalog.pg_get_function_identity_arguments(p.oid), {parts.GRANTEE}::text
  FROM pg_catalog.pg_proc p
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) acl
 WHERE p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace AND acl.grantee <> p.proowner AND {parts.MINE}
   AND p.proname IN ('pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'lo_import', 'lo_export') ORDER BY 1, 2, 3"""
)

# Only logging settings are read with their values; of the tenant setting only whether it is not empty.
SETTINGS: Final = (
    parts.REACH
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
    parts.REACH
    + parts.TREE
    + parts.RELATED
    + """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relrowsecurity, c.relforcerowsecurity,
       pg_catalog.format_type(a.atttypid, a.atttypmod)
  FROM related JOIN pg_catalog.pg_class c ON c.oid = related.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = %(tenant)s ORDER BY 2, 3"""
)

LARGE_OBJECTS: Final = (
    parts.REACH
    + f"""
SELECT count(DISTINCT m.oid)::bigint, pg_catalog.current_setting('lo_compat_privileges') = 'on'
  FROM pg_catalog.pg_largeobject_metadata m
 CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(m.lomacl, pg_catalog.acldefault('L', m.lomowner))) acl
 WHERE {parts.MINE}"""
)

DISCOVER: Final = """
SELECT n.nspname::text, c.relname::text,
       ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT t.typname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT x.text FROM pg_catalog.pg_policy p CROSS JOIN LATERAL (VALUES
                      (pg_catalog.pg_get_expr(p.polqual, p.polrelid)),
                      (pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))) x(text)
              WHERE p.polrelid = c.oid AND x.text IS NOT NULL ORDER BY p.polname, x.text),
       ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid) FROM pg_catalog.pg_index i
              WHERE i.indrelid = c.oid AND i.indexprs IS NOT NULL
              UNION ALL
             SELECT pg_catalog.pg_get_constraintdef(o.oid) FROM pg_catalog.pg_constraint o
              WHERE o.conrelid = c.oid AND o.contype = 'c')
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

# Without just-in-time compilation, which would take seconds here (`settings.settings_of`).
SAFE_PATH: Final = (
    "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true), "
    "pg_catalog.set_config('jit', 'off', true)"
)

# Copies that a move left (`shadow_copy`), unless a move is in progress: it holds a lock of its session.
MOVES: Final = f"""SELECT c.relname::text,
       EXISTS (SELECT FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class d ON d.oid = k.conrelid
                WHERE d.relnamespace = c.relnamespace AND d.relname = %(table)s::text || '_default'
                  AND k.conname = '{CONSTRAINT}')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %(schema)s::text AND c.relkind = 'r' AND NOT c.relispartition
   AND pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), '{UNFINISHED}' || %(table)s::text || ', ')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
                    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
                      AND l.database = (SELECT b.oid FROM pg_catalog.pg_database b
                                         WHERE b.datname = pg_catalog.current_database())
                      AND (l.classid::int8 << 32 | l.objid::int8) = pg_catalog.hashtextextended(
                            'vectoracl-move:vectoracl:' || %(schema)s::text || '.' || %(table)s::text, 0))
 ORDER BY 1"""

STATEMENTS: Final[tuple[tuple[str, str], ...]] = (
    ("search_path", SAFE_PATH),
    ("server", SERVER),
    ("roles", ROLES),
    ("application", APPLICATION),
    ("memberships", MEMBERSHIPS),
    ("relations", RELATIONS),
    ("policies", POLICIES),
    ("grants", GRANTS),
    ("columns", COLUMNS),
    ("all_columns", ALL_COLUMNS),
    ("notes", NOTES),
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
    ("moves", MOVES),
    ("bits", BITS),
    ("powerful", POWERFUL),
    ("word_indexes", words.INDEXES),
    *reach_sql.STATEMENTS,
)
