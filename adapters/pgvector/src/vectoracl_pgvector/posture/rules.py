"""The rules of the PostgreSQL posture check, in one table. An id never changes its meaning and is never reused.

    PG00x PG01x  the role and the session      PG07x  ways around the policies
    PG02x        row-level security            PG08x  schema and database
    PG03x PG04x  policies                      PG09x  versions
    PG05x        grants                        PG10x  related tables and side channels
    PG06x        tenant column and keys        PG11x  what could not be read, or is not as expected
    PG13x        reach                         PG12x  moves between tiers
    PG14x        backups

`lowers` is True where the database itself would then answer with, change or let someone reach another tenant's
rows: the grade falls to "none". Existence oracles and side channels are warnings; they do not lower it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vectoracl.adapter_api.posture import Rule, Severity

_E: Final[Severity] = "error"
_W: Final[Severity] = "warning"
_N: Final[Severity] = "note"

_TABLE: Final[tuple[tuple[str, str, Severity, bool, str], ...]] = (
    # --- the role and the session
    ("PG001", "The runtime role is a superuser", _E, True,
     "A superuser is exempt from every policy: any query that the application sends, and any injected one, sees "
     "all tenants, and can read files and run programs on the server."),
    ("PG002", "The runtime role has BYPASSRLS", _E, True,
     "BYPASSRLS switches all policies off for this role, so every query answers with all tenants' rows."),
    ("PG003", "The runtime role owns the table", _E, True,
     "An owner can run ALTER TABLE … NO FORCE ROW LEVEL SECURITY or drop the policy. One injected statement "
     "opens every tenant."),
    ("PG004", "The runtime role is a member of a stronger role", _E, True,
     "Membership lets the session SET ROLE (or grant itself the right to) to a role that is a superuser, has "
     "BYPASSRLS, owns the table or may create roles. An attacker with SQL does that and is then exempt from policies."),
    ("PG005", "The runtime role has a predefined role that reaches past grants", _E, True,
     "pg_read_all_data and pg_write_all_data reach every table and every partition by name; the server-file and "
     "server-program roles read and write the data files or run a shell, where no policy exists; the "
     "administrator roles of managed services can grant themselves the rest."),
    ("PG006", "The runtime role has CREATEROLE", _E, True,
     "Before PostgreSQL 16 CREATEROLE may grant itself membership in any role that is not a superuser, the "
     "table's owner included; since 16 it may still create roles and change those that it created."),
    ("PG007", "The runtime role has REPLICATION", _E, True,
     "A replication connection streams the write-ahead log: every row of every tenant, with no policy applied. "
     "Before the releases of August 2026 it could also load a library into the server (CVE-2026-6471)."),
    ("PG008", "The session was opened by a stronger role than it runs as", _E, True,
     "SET ROLE gives no protection: RESET ROLE, in any injected statement, returns to the role that logged in. "
     "That role is a superuser, bypasses row security or owns the table."),
    ("PG009", "The runtime role reads other sessions' statements", _W, True,
     "With pg_monitor or pg_read_all_stats the role reads the text of other sessions' running statements and "
     "statistics, which contain values of other tenants."),
    ("PG010", "row_security is off", _W, False,
     "With row_security = off a query that a policy would filter raises an error instead. It opens nothing, but "
     "every search fails, and the usual reaction is to grant BYPASSRLS."),
    ("PG011", "A tenant is preset", _E, True,
     "With a role, database or session default of the tenant setting, a query without a scope is not empty: it "
     "returns that tenant's rows to every caller."),
    ("PG012", "The runtime role may execute functions that read or write server files", _E, True,
     "pg_read_binary_file, lo_import and similar functions read the table's own data files as the server's user; no "
     "policy applies to files."),
    # --- row-level security
    ("PG020", "Row-level security is not enabled", _E, True,
     "Policies are not applied at all until row-level security is enabled on the table. A query without a "
     "tenant condition returns every tenant's rows."),
    ("PG021", "Row-level security is not forced", _E, True,
     "Without FORCE the table's owner is exempt: maintenance scripts, views and SECURITY DEFINER functions that "
     "belong to the owner see all tenants, and so does everyone who may call them."),
    ("PG022", "A partition or child table has no row-level security", _E, True,
     "A policy of the parent applies only to queries that name the parent. A role that may read the partition by "
     "name reads all of it. Partitions that are attached later need policies, too."),
    ("PG023", "Row-level security is not forced on a partition or child table", _E, True,
     "The partition's owner, and views and functions that run as the owner, see the whole partition."),
    ("PG024", "A parent table is less protected than this table", _E, True,
     "A query that names a parent applies the parent's policies and not this table's. Without forced row "
     "security on the parent, the rows of this table can be read through it."),
    ("PG025", "Grants on a partition or child table", _W, False,
     "The role may name the partition directly, where the parent's policies do not apply. Grant only the parent: "
     "a partition that is later created without policies is then still closed."),
    ("PG026", "A partition is a foreign table", _E, True,
     "Foreign tables cannot have row-level security, and the remote side does not know the tenant."),
    ("PG027", "The target is not a table", _E, True,
     "Views, materialized views and foreign tables cannot have row-level security."),
    ("PG028", "The table does not exist, or the role cannot see it", _E, True,
     "A table that does not exist cannot be checked; the name or the schema in the configuration is wrong."),
    ("PG029", "The runtime role does not exist", _E, True,
     "The role that the configuration names does not exist in this cluster, so its rights cannot be checked."),
    # --- policies
    ("PG030", "A granted command has no policy", _W, False,
     "The role holds a privilege that no permissive policy covers, so the command silently finds no row or is "
     "refused. It opens nothing, but the usual reaction, a policy with USING (true), does."),
    ("PG031", "A permissive policy is not bound to the tenant", _E, True,
     "Permissive policies are joined by OR: one that does not compare the tenant, or that has an OR branch "
     "without the tenant, opens other tenants' rows regardless of the other policies. There is no restrictive "
     "tenant policy in addition to it."),
    ("PG032", "A policy permits every row", _E, True,
     "USING (true), or a condition that is always true, shows every row of every tenant."),
    ("PG033", "A policy accepts new rows of any tenant", _E, True,
     "WITH CHECK is true or does not compare the tenant: a caller can write rows into another tenant, or move a "
     "row there by UPDATE, and so plant documents among another tenant's."),
    ("PG034", "A policy falls back to a tenant when none is set", _E, True,
     "coalesce(current_setting(…), 'default') turns a forgotten scope into access to the default tenant instead "
     "of into no rows."),
    ("PG035", "A policy could not be proven to bind the tenant", _W, True,
     "The condition mentions the tenant column, but through a function, a subquery, a narrowing cast or an "
     "operator whose meaning the catalog does not show. It may be right; what cannot be proven counts as open."),
    ("PG036", "The policy reads a different setting than the configured one", _W, False,
     "The database compares the tenant with a setting that vectoracl does not set, so every search is empty. "
     "Either the policy or the configuration has the wrong name."),
    ("PG037", "The runtime role can replace code that the table runs", _E, True,
     "The role owns (or can become the owner of) a function that a policy, a trigger, a constraint, a default or an "
     "index calls. CREATE OR REPLACE FUNCTION then changes the policy, or runs the attacker's code with the rights "
     "of the next operator who writes."),
    ("PG038", "The policy does not treat an unset tenant as nothing", _N, False,
     "An unset setting reads as NULL in a fresh session, but as the empty string after the first transaction "
     "that set it. Without NULLIF(current_setting(…, true), '') the policy raises an error, or shows rows that "
     "were tagged with the empty string."),
    ("PG039", "Scope is a session setting, which any SQL can set", _N, False,
     "This is what grade \"engine\" means: a forgotten scope shows nothing, but whoever can run SQL can call "
     "set_config first. Against SQL injection use a role per tenant (grade \"credential\")."),
    ("PG040", "A policy shows one fixed tenant to all roles", _W, True,
     "The condition compares the tenant with a constant and the policy holds for more than that tenant's role: "
     "those rows are visible with any scope, and without one."),
    ("PG041", "The policies are from an earlier version of vectoracl", _W, False,
     "They are sound, but apply to every role that is granted the table, although the runtime role and the owner "
     "are enough. The next `vectoracl provision` replaces them; everything works until then."),
    # --- grants
    ("PG050", "TRUNCATE is granted", _E, True,
     "TRUNCATE is not subject to policies: one statement deletes every tenant's rows."),
    ("PG051", "REFERENCES is granted", _W, False,
     "A foreign key to the table is checked without policies. A role that may create one can try any id and find "
     "out whether it exists in another tenant."),
    ("PG052", "TRIGGER is granted", _E, True,
     "The role can attach a trigger, which then runs with the rights of the next writer, the owner or an operator "
     "included, and sees the new row."),
    ("PG053", "MAINTAIN is granted", _N, False,
     "MAINTAIN (PostgreSQL 17) lets the role lock, cluster or reindex the whole table, all tenants at once."),
    ("PG054", "The table is granted to PUBLIC", _W, False,
     "Every role of the database, including roles created later for other purposes, can query the table; only the "
     "policies stop it."),
    ("PG055", "A grant can be passed on", _W, False,
     "WITH GRANT OPTION lets the runtime role grant the table to other roles, to which other policies may apply."),
    # --- tenant column and keys
    ("PG060", "The table has no tenant column", _E, True,
     "Without a column that names the tenant of a row, neither the database nor a filter can separate tenants."),
    ("PG061", "The tenant column is nullable", _W, False,
     "A row without a tenant has no owner: no policy shows it, no deletion finds it, and a later policy with "
     "IS NULL opens it to all tenants."),
    ("PG062", "The tenant column may be empty", _W, False,
     "After a scoped transaction the setting reads as the empty string. Rows with the empty string as tenant "
     "are then visible to sessions without a scope."),
    ("PG063", "The tenant column has a default", _W, False,
     "A write without a tenant is accepted and stored for the default tenant instead of failing."),
    ("PG064", "Different tenants compare as equal", _E, True,
     "citext, character(n) or a nondeterministic collation make tenants such as 'acme' and 'ACME', or 'a' and "
     "'a ', the same in the policy, so that one sees the other's rows."),
    ("PG065", "A unique key without the tenant column", _W, False,
     "Unique keys are checked against rows that the policy hides. Inserting an id and watching for error 23505 "
     "(or for an upsert that does nothing) reveals whether another tenant has it, and blocks that id."),
    ("PG066", "A foreign key to the table without the tenant column", _W, False,
     "Foreign keys are checked, and cascade, without policies. A child row that names another tenant's id is "
     "accepted when the id exists and refused (23503) when not; ON DELETE CASCADE deletes across tenants."),
    ("PG067", "A foreign key from the table without the tenant column", _W, False,
     "A row can point to another tenant's parent: the success of the insert reveals whether the parent exists."),
    ("PG068", "The primary key does not contain the tenant", _N, False,
     "Ids are unique over all tenants: an insert of another tenant's id fails (23505, or the policy's refusal after "
     "ON CONFLICT DO UPDATE) and so reveals that the id exists. Random ids reveal nothing; ids that are computed from "
     "the content, or chosen by users, do, and block each other."),
    ("PG069", "Rows that name no tenant are accepted", _N, False,
     "A row without a tenant, or with an empty one, has no owner: no tenant's policy shows it and no deletion finds "
     "it. A constraint makes the write fail instead."),
    # --- ways around the policies
    ("PG070", "A view reads the table with rights that bypass the policy", _E, True,
     "A view without security_invoker runs as its owner. This owner bypasses row security, so the view shows "
     "all tenants to everyone who may read it."),
    ("PG071", "A materialized view holds the table's rows", _E, True,
     "A materialized view is a copy with its owner's rights and cannot have policies: a role that may read it "
     "reads every tenant in it."),
    ("PG072", "A SECURITY DEFINER function reaches the table with rights that bypass the policy", _E, True,
     "The function runs as its owner, who bypasses row security, and the runtime role may call it: what it "
     "returns or changes is not limited to the tenant."),
    ("PG073", "A SECURITY DEFINER function without a pinned search_path", _E, True,
     "The caller chooses the search_path: with a table or function of the same name in a schema that the caller "
     "may write (pg_temp is open by default) the attacker's code runs with the owner's rights, and this owner "
     "bypasses row security."),
    ("PG074", "A SECURITY DEFINER function could not be judged", _W, True,
     "It builds its statements at run time or is written in a language that cannot be read here, its owner "
     "bypasses row security, and the runtime role may call it. It may be harmless; it counts as a bypass."),
    ("PG075", "A trigger runs a function of another owner", _N, False,
     "The trigger sees every new row of every tenant. Its function belongs to a role that is neither the table's "
     "owner nor a superuser, and which can change what happens to the rows."),
    ("PG076", "A rewrite rule acts on the table", _N, False,
     "A rule's commands run with the rights of the table's owner and can copy rows to a place without policies."),
    ("PG077", "A publication sends the table without a row filter", _N, False,
     "Logical replication reads the log and ignores policies: the subscriber gets every tenant's rows."),
    # --- schema and database
    ("PG080", "Other roles may create objects in a schema that the table relies on", _W, True,
     "A role that may create functions, operators or tables in the schema can shadow objects that the owner's "
     "scripts and SECURITY DEFINER functions resolve by name, and so run code with their rights."),
    ("PG081", "The runtime role may create schemas", _W, True,
     "CREATE on the database lets the role create schemas, and in them objects that shadow others."),
    ("PG082", "Default privileges open future tables", _W, False,
     "A partition that is created later is granted to the runtime role or to PUBLIC automatically, before it has "
     "policies."),
    ("PG083", "A LEAKPROOF function that PostgreSQL does not ship", _W, True,
     "LEAKPROOF functions run before the policy, on every tenant's rows. One that writes a log, raises an error or "
     "takes a different time reveals what is in them."),
    ("PG084", "An extension that reaches outside is usable by the runtime role", _W, False,
     "dblink and the foreign-data wrappers open separate connections (also back to this server); untrusted "
     "languages and file extensions leave the database. Policies do not apply there."),
    ("PG085", "Large objects are readable without policies", _W, True,
     "Large objects have an owner and grants, but no rows and no tenant. What is stored there is outside the "
     "isolation."),
    ("PG086", "pg_stat_statements is readable", _N, False,
     "All tenants share the runtime role, so the role reads the normalised statements of all of them, with call "
     "counts, row counts and timings."),
    ("PG087", "The server logs statements with their parameters", _N, False,
     "Chunk texts, query texts and vectors are parameters: they are written to the server's log in the clear, "
     "where no policy applies."),
    ("PG088", "The runtime role owns the schema of the table", _E, True,
     "A schema's owner may drop every table in it, regardless of that table's owner, with all tenants' rows; and "
     "create one of the same name without policies, into which the next writes go."),
    # --- versions
    ("PG090", "The server has a published vulnerability in row-level security", _E, True,
     "It is publicly known how to bypass policies on this minor release: through planner statistics of hidden rows, "
     "or through a plan that was made for another role. The finding names the release that fixes it."),
    ("PG091", "The server lacks security fixes", _W, False,
     "Published vulnerabilities of this minor release let a user with ordinary SQL reach more than granted, some "
     "of them the operating system."),
    ("PG092", "The server's major version is out of support", _W, False,
     "New vulnerabilities are not fixed in this version any more."),
    ("PG093", "pgvector is out of date", _W, False,
     "Before 0.8.2 a parallel HNSW build could disclose other relations' memory (CVE-2026-3172); 0.8.3 and 0.8.4 "
     "repair HNSW indexes that vacuum damaged; before 0.8.0 there are no iterative scans, so that a search "
     "behind a policy returns too few rows."),
    ("PG094", "pg_textsearch is out of date", _W, False,
     "Before 1.1.0 the weights of words are wrong after a vacuum; before 1.2.0 a ranking by the index can miss a row "
     "that belongs to the best ones; before 1.3.1 a search next to writers can miss a row; before 1.4.0 any role that "
     "may run SQL can name any index and compute a score with its statistics: it sees how many chunks of another "
     "tenant contain a word. vectoracl only names the tenant's."),
    # --- related tables and side channels
    ("PG100", "A related table has the tenant column and no row-level security", _W, False,
     "The table is in the same schema, has the same tenant column and is granted to the role: documents, labels or "
     "logs of every tenant can be read next to the protected chunks."),
    ("PG101", "Row-level security of a related table is not forced", _N, False,
     "Its owner, and views and functions that run as the owner, see all tenants."),
    ("PG102", "A policy of a related table is not bound to the tenant", _W, False,
     "Permissive policies are joined by OR: this one shows or accepts rows of other tenants in a related table."),
    ("PG103", "A foreign key to a table without tenants", _N, False,
     "The referenced table is shared: every tenant can find out whether a row exists in it. That is right for lists "
     "and settings that are the same for all, and for the list of tenants."),
    ("PG104", "A partition without row-level security is closed to the role", _N, False,
     "The role reaches the rows only through the parent, where the policies apply. A later grant on the partition, or "
     "default privileges, would open it."),
    ("PG105", "Many tenants share an approximate index", _N, False,
     "HNSW and IVFFlat choose candidates before the policy filters them: a small tenant gets fewer rows than it "
     "has, often none, and the duration of a search reveals how many vectors of others are near the query."),
    ("PG106", "The catalog shows sizes and tenants", _N, False,
     "Every role that can connect can read row estimates of all tables, and the names and bounds of partitions: who "
     "the tenants are and how much each has. It matters if untrusted users can run SQL."),
    ("PG107", "SQL without the tenant's predicate plans every partition", _N, False,
     "The policy's setting is read when a statement starts, so the planner has to look at each partition, and lock it, "
     "unless the statement itself compares the tenant column with a constant or parameter. Rows stay safe; joins and "
     "queries of the application, in the transaction of `join` for example, get slow with hundreds of partitions. "
     "vectoracl's statements have the predicate."),
    # --- what could not be read
    ("PG110", "A part of the posture could not be read", _N, True,
     "The catalog refused a query of this check. What cannot be read cannot be trusted, so the grade falls."),
    # --- what was expected
    ("PG111", "The tenant column is a guess", _W, True,
     "A database does not record which column holds the tenant; its name, or what the policies compare, only "
     "suggests it. If it is another column, every other line of this report is about the wrong one."),
    ("PG112", "A column is missing", _E, False,
     "The configuration names a column that the table does not have, so operations fail."),
    ("PG113", "A column's type or dimension differs from the configuration", _E, True,
     "Writes and searches fail, or rank by the numbers of another embedder."),
    ("PG115", "The precision of the vectors differs from the configuration", _W, False,
     "Vectors are cast between single and half precision when they are written and read. Nothing fails, but unlike in "
     "the configuration, stored vectors are rounded, or take twice the space."),
    ("PG116", "The index of bits is not usable", _W, False,
     "Tenants of more than `exact_rows` chunks are searched by comparing every vector or through the HNSW index: more "
     "slowly, or with hits missing among hidden rows. Isolation does not depend on the index."),
    ("PG117", "The visibility map of a partition is empty", _N, False,
     "After a bulk load only VACUUM, which autovacuum runs by itself after a while, lets a search by bits read its "
     "index alone. Until then these tenants are searched as without the index."),
    ("PG118", "Words of a large tenant have no usable index", _W, False,
     "Lexical and hybrid queries read all chunks of the tenant. They are right, but take 5 to 20 µs a chunk, where an "
     "index takes about a millisecond."),
    ("PG119", "An index of words holds many tenants", _W, False,
     "Its statistics are those of all tenants' texts, so the scores of SQL that uses it reveal how common a word is in "
     "other tenants' chunks. vectoracl never uses such an index."),
    # --- moves between tiers
    ("PG120", "A move of a tenant was interrupted", _W, False,
     "The process that moved a tenant has ended. Nothing is lost: the tenant is served from its old partition, and the "
     "copy is kept in sync, which makes each of its writes a little slower. A move that was interrupted in its last "
     "moment blocks the tenant's writes."),
    # --- reach: whose rights the runtime role has, and what those could read
    ("PG140", "A role may dump or restore everything, and the configuration does not name it", _W, False,
     "Policies do not apply to superusers, to roles with BYPASSRLS or REPLICATION, to those that read the server's "
     "files, and to the table's owner, who can switch row-level security off. Backups need one of them; each other one "
     "is an unwatched way to bypass isolation. List the intended roles in `backup_roles`."),
    ("PG130", "A readable relation can contain copies of governed rows", _E, True,
     "The role can read a table or materialized view that has text, documents or vectors, and no policy that is proved "
     "to restrict it to the tenant. A copy does not keep the policies of its source, whatever its columns are called "
     "and whichever trigger, rule or job fills it."),
    ("PG131", "Code runs with rights that could read governed rows, and is not proved harmless", _E, True,
     "A function or procedure runs as its owner (SECURITY DEFINER), the runtime role can have it run, and the owner is "
     "a superuser, bypasses row security, owns the table and so can remove FORCE, reads regardless of grants, or has "
     "another policy. A name can be escaped, built at run time or hidden, so the body is not searched: what is not "
     "proved counts as open."),
    ("PG132", "A view or rule reads the table as a role with another policy", _E, True,
     "A view without security_invoker, and a rule, read as their owner. To that owner not only the tenant's policy "
     "applies, so the rows of other tenants can be read through it."),
    ("PG133", "Native code that is not recognised", _E, True,
     "Functions in C, in internal or in an untrusted language run inside the server without any privilege checks: they "
     "can read any row and any file. Functions of extensions are compared with a table of what their authors ship."),
    ("PG134", "Rights on PostgreSQL's objects beyond its defaults", _E, True,
     "Rights were granted that PostgreSQL or an extension withholds: pg_statistic contains values of every tenant's "
     "rows, pg_authid the passwords, and functions that read files, logs or pages read them without policies."),
    ("PG135", "The runtime role may change a parameter that is reserved for superusers", _E, True,
     "SET or ALTER SYSTEM on such a parameter can load code into sessions, switch triggers off or write statements to "
     "logs. The check does not guess which of them are harmless."),
    ("PG136", "The runtime role has a predefined role that acts on others", _E, True,
     "pg_maintain acts on every table, pg_signal_backend ends other sessions, pg_create_subscription writes tables "
     "from elsewhere. A role that serves tenants needs none of them."),
    ("PG137", "The runtime role owns objects that other roles' objects use", _E, True,
     "It owns, or can own, a function, operator, type, event trigger, publication or server that an object of another "
     "role uses. By replacing it, an attacker controls that role's next policy, trigger or statement."),
    ("PG138", "A foreign table or server is usable by the runtime role", _E, True,
     "A foreign server is reached with other credentials, and it can be this same server: there the session's tenant "
     "is not known, and other policies apply."),
    ("PG141", "A trigger of the table runs code that is not proved harmless", _E, True,
     "It gets every row of every tenant that is written, and can pass it on without keeping it in a table: by NOTIFY, "
     "to a log, to another server. This applies to tables that vectoracl provisioned, where such triggers are rare."),
    ("PG139", "An entry of accept matches nothing", _N, False,
     "The accepted object no longer exists or has another name. If the entry stays, it could match another object "
     "later."),
)  # fmt: skip

RULES: Final[Mapping[str, Rule]] = MappingProxyType({row[0]: Rule(*row) for row in _TABLE})
