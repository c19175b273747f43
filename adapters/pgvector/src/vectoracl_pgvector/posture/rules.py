"""The rules of the PostgreSQL posture check, in one table. An id never changes its meaning and is never reused.

    PG00x PG01x  the role and the session      PG07x  ways round the policy
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
     "An owner can say ALTER TABLE … NO FORCE ROW LEVEL SECURITY or drop the policy. One injected statement "
     "opens every tenant."),
    ("PG004", "The runtime role is a member of a stronger role", _E, True,
     "Membership lets the session SET ROLE (or grant itself the right to) to a role that is a superuser, has "
     "BYPASSRLS, owns the table or may create roles. An attacker with SQL does just that and is no longer bound."),
    ("PG005", "The runtime role has a predefined role that reaches past grants", _E, True,
     "pg_read_all_data and pg_write_all_data reach every table and every partition by name; the server-file and "
     "server-program roles read and write the data files or run a shell, where no policy exists; the "
     "administrator roles of managed services can grant themselves the rest."),
    ("PG006", "The runtime role has CREATEROLE", _E, True,
     "Before PostgreSQL 16 CREATEROLE may grant itself membership in any role that is not a superuser, the "
     "table's owner included; since 16 it may still make roles and change those that it made."),
    ("PG007", "The runtime role has REPLICATION", _E, True,
     "A replication connection streams the write-ahead log: every row of every tenant, with no policy applied. "
     "Before the releases of August 2026 it could also load a library into the server (CVE-2026-6471)."),
    ("PG008", "The session was opened by a stronger role than it runs as", _E, True,
     "SET ROLE is not a wall: RESET ROLE, in any injected statement, returns to the role that logged in. That "
     "role is a superuser, bypasses row security or owns the table."),
    ("PG009", "The runtime role reads other sessions' statements", _W, True,
     "With pg_monitor or pg_read_all_stats the role reads the text of other sessions' running statements and "
     "statistics, where values of other tenants stand."),
    ("PG010", "row_security is off", _W, False,
     "With row_security = off a query that a policy would filter raises an error instead. It opens nothing, but "
     "every search fails, and the usual reaction is to grant BYPASSRLS."),
    ("PG011", "A tenant is preset", _E, True,
     "A role, database or session default of the tenant setting means that a query whose scope was forgotten is "
     "not empty: it answers with that tenant's rows, to whoever asked."),
    ("PG012", "The runtime role may execute functions that read or write server files", _E, True,
     "pg_read_binary_file, lo_import and their like read the table's own data files as the server's user; no "
     "policy applies to files."),
    # --- row-level security
    ("PG020", "Row-level security is not enabled", _E, True,
     "Policies are not applied at all until row-level security is enabled on the table. A query without a "
     "tenant condition returns every tenant's rows."),
    ("PG021", "Row-level security is not forced", _E, True,
     "Without FORCE the table's owner is exempt: maintenance scripts, views and SECURITY DEFINER functions that "
     "belong to the owner see all tenants, and so does whoever may call them."),
    ("PG022", "A partition or child table has no row-level security", _E, True,
     "A policy of the parent applies only to queries that name the parent. Who may read the partition by its "
     "own name reads it whole. Partitions that are attached later need the same."),
    ("PG023", "Row-level security is not forced on a partition or child table", _E, True,
     "The partition's owner, and views and functions that run as the owner, see the whole partition."),
    ("PG024", "A parent table is less protected than this table", _E, True,
     "A query that names a parent applies the parent's policies and not this table's. Without forced row "
     "security on the parent the rows of this table come out through it."),
    ("PG025", "Grants on a partition or child table", _W, False,
     "The role may name the partition directly, where the parent's policies do not apply. It has to be granted "
     "the parent only; one partition that is later created without policies is then still closed."),
    ("PG026", "A partition is a foreign table", _E, True,
     "Foreign tables cannot have row-level security, and the remote side does not know the tenant."),
    ("PG027", "The target is not a table", _E, True,
     "Views, materialized views and foreign tables cannot carry row-level security of their own."),
    ("PG028", "The table does not exist, or the role cannot see it", _E, True,
     "Nothing can be said about a table that is not there; the name or the schema in the configuration is wrong."),
    ("PG029", "The runtime role does not exist", _E, True,
     "The role that the configuration names is not in this cluster, so nothing can be said about its rights."),
    # --- policies
    ("PG030", "A granted command has no policy", _W, False,
     "The role holds a privilege that no permissive policy covers, so the command silently finds no row or is "
     "refused. It opens nothing, but the usual reaction, a policy with USING (true), does."),
    ("PG031", "A permissive policy is not bound to the tenant", _E, True,
     "Permissive policies are joined by OR: one that does not compare the tenant, or that has an OR branch "
     "without the tenant, opens other tenants' rows whatever the other policies say. No restrictive tenant "
     "policy stands beside it."),
    ("PG032", "A policy permits every row", _E, True,
     "USING (true), or a condition that is always true, shows every row of every tenant."),
    ("PG033", "A policy accepts new rows of any tenant", _E, True,
     "WITH CHECK is true or does not compare the tenant: a caller can write rows into another tenant, or move a "
     "row there by UPDATE, and so plant documents in a foreign index."),
    ("PG034", "A policy falls back to a tenant when none is set", _E, True,
     "coalesce(current_setting(…), 'default') turns a forgotten scope into access to the default tenant instead "
     "of into no rows."),
    ("PG035", "A policy could not be proven to bind the tenant", _W, True,
     "The condition mentions the tenant column, but through a function, a subquery, a narrowing cast or an "
     "operator whose meaning the catalog does not show. It may be right; what cannot be proven is counted as open."),
    ("PG036", "The policy reads another setting than the configured one", _W, False,
     "The database compares the tenant with a setting that vectoracl does not set, so every search is empty. "
     "Either the policy or the configuration has the wrong name."),
    ("PG037", "The runtime role can replace code that the table runs", _E, True,
     "The role owns (or can become the owner of) a function that a policy, a trigger, a constraint, a default or an "
     "index calls. CREATE OR REPLACE FUNCTION then changes the policy, or runs the attacker's code as the next "
     "operator who writes."),
    ("PG038", "The policy does not treat an unset tenant as nothing", _N, False,
     "An unset setting reads as NULL in a fresh session, but as the empty string after the first transaction "
     "that set it. Without NULLIF(current_setting(…, true), '') the policy raises an error, or shows rows that "
     "were tagged with the empty string."),
    ("PG039", "Scope is a session setting, which any SQL can set", _N, False,
     "This is what grade \"engine\" means: a forgotten scope shows nothing, but whoever can run SQL of their own "
     "can call set_config first. Against SQL injection use a role per tenant (grade \"credential\")."),
    ("PG040", "A policy shows one fixed tenant to everybody", _W, True,
     "The condition compares the tenant with a constant and the policy holds for more than that tenant's role: "
     "those rows are visible with any scope, and with none."),
    ("PG041", "The policies were made by an earlier version of vectoracl", _W, False,
     "They are sound, but open to every role that is granted the table, where the runtime role and the owner are "
     "enough. The next `vectoracl provision` replaces them; everything works until then."),
    # --- grants
    ("PG050", "TRUNCATE is granted", _E, True,
     "TRUNCATE is not subject to policies: one statement deletes every tenant's rows."),
    ("PG051", "REFERENCES is granted", _W, False,
     "A foreign key to the table is checked without policies. Who may make one can ask for any id and see "
     "whether it exists in another tenant."),
    ("PG052", "TRIGGER is granted", _E, True,
     "The role can attach a trigger of its own. It then runs with the rights of whoever writes next, the owner "
     "or an operator included, and sees the new row."),
    ("PG053", "MAINTAIN is granted", _N, False,
     "MAINTAIN (PostgreSQL 17) lets the role lock, cluster or reindex the whole table, all tenants at once."),
    ("PG054", "The table is granted to PUBLIC", _W, False,
     "Every role of the database, also ones made later for other purposes, gets as far as the policies."),
    ("PG055", "A grant can be passed on", _W, False,
     "WITH GRANT OPTION lets the runtime role hand the table to other roles, for whom other policies may hold."),
    # --- tenant column and keys
    ("PG060", "The table has no tenant column", _E, True,
     "Without a column that says whose row it is neither the database nor a filter can tell tenants apart."),
    ("PG061", "The tenant column is nullable", _W, False,
     "A row without a tenant belongs to nobody: no policy shows it, no deletion finds it, and a later policy "
     "with IS NULL opens it to all."),
    ("PG062", "The tenant column may be empty", _W, False,
     "After a scoped transaction the setting reads as the empty string. Rows that carry the empty string as "
     "tenant are then visible to sessions without scope."),
    ("PG063", "The tenant column has a default", _W, False,
     "A write that forgot its tenant is accepted and lands with the default one instead of failing."),
    ("PG064", "Different tenants compare as equal", _E, True,
     "citext, character(n) or a nondeterministic collation make tenants such as 'acme' and 'ACME', or 'a' and "
     "'a ', the same in the policy, so that one sees the other's rows."),
    ("PG065", "A unique key without the tenant column", _W, False,
     "Unique keys are checked against rows that the policy hides. Inserting an id and watching for error 23505 "
     "(or for an upsert that does nothing) tells whether another tenant has it, and blocks that id."),
    ("PG066", "A foreign key to the table without the tenant column", _W, False,
     "Foreign keys are checked, and cascade, without policies. A child row that names another tenant's id is "
     "accepted when the id exists and refused (23503) when not; ON DELETE CASCADE deletes across tenants."),
    ("PG067", "A foreign key from the table without the tenant column", _W, False,
     "A row can point to another tenant's parent: whether the insert succeeds tells whether the parent exists."),
    ("PG068", "The primary key does not hold the tenant", _N, False,
     "Whether an id is taken is asked over all tenants: an insert of another tenant's id fails (23505, or the policy's "
     "refusal after ON CONFLICT DO UPDATE) and so tells that it exists. Random ids tell nothing; ids that are made "
     "from the content, or chosen by users, do, and block each other."),
    ("PG069", "Rows that name no tenant are accepted", _N, False,
     "A row without a tenant, or with an empty one, belongs to nobody: no tenant's policy shows it and no deletion "
     "finds it. A constraint makes the write fail instead."),
    # --- ways round the policy
    ("PG070", "A view reads the table with rights that bypass the policy", _E, True,
     "A view without security_invoker runs as its owner. This owner bypasses row security, so the view shows "
     "all tenants to everyone who may read it."),
    ("PG071", "A materialized view holds the table's rows", _E, True,
     "A materialized view is a copy that was made with its owner's rights and cannot have policies: who may "
     "read it reads every tenant in it."),
    ("PG072", "A SECURITY DEFINER function reaches the table with rights that bypass the policy", _E, True,
     "The function runs as its owner, who bypasses row security, and the runtime role may call it: what it "
     "returns or changes is not limited to the tenant."),
    ("PG073", "A SECURITY DEFINER function without a pinned search_path", _E, True,
     "The caller chooses the search_path: with a table or function of the same name in a schema that the caller "
     "may write (pg_temp is open by default) the attacker's code runs with the owner's rights, and this owner "
     "bypasses row security."),
    ("PG074", "A SECURITY DEFINER function could not be judged", _W, True,
     "It builds its statements at run time or is written in a language that cannot be read here, its owner "
     "bypasses row security, and the runtime role may call it. It may be harmless; it is counted as a way round."),
    ("PG075", "A trigger runs a function of another owner", _N, False,
     "The trigger sees every new row of every tenant. Its function belongs to a role that is neither the table's "
     "owner nor a superuser and that can change what is done with the rows."),
    ("PG076", "A rewrite rule acts on the table", _N, False,
     "A rule's commands run with the rights of the table's owner and can copy rows to a place without policies."),
    ("PG077", "A publication sends the table without a row filter", _N, False,
     "Logical replication reads the log and not the policies: the subscriber gets every tenant's rows."),
    # --- schema and database
    ("PG080", "Others may create objects in a schema that the table relies on", _W, True,
     "Who may create functions, operators or tables in the schema can shadow what the owner's scripts and "
     "SECURITY DEFINER functions resolve by name, and so have code run with their rights."),
    ("PG081", "The runtime role may create schemas", _W, True,
     "CREATE on the database lets the role make schemas, and in them objects that shadow others."),
    ("PG082", "Default privileges open future tables", _W, False,
     "A partition that is created later is granted to the runtime role or to PUBLIC by itself, before anyone has "
     "given it policies."),
    ("PG083", "A LEAKPROOF function that is not PostgreSQL's own", _W, True,
     "LEAKPROOF functions run before the policy, on every tenant's rows. One that does keep a log, raise an "
     "error or compare by time tells what is in them."),
    ("PG084", "An extension that reaches outside is usable by the runtime role", _W, False,
     "dblink and the foreign-data wrappers open connections of their own (back to this server too), untrusted "
     "languages and file extensions leave the database: policies stop at that border."),
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
     "A schema's owner may drop every table in it, whoever owns that table, with all tenants' rows; and create one of "
     "the same name without policies, into which the next writes go."),
    # --- versions
    ("PG090", "The server has a published hole in row-level security", _E, True,
     "How to get past policies on this minor release is public: through planner statistics of hidden rows, or "
     "through a plan that was made for another role. The release that closes it is named in the finding."),
    ("PG091", "The server lacks security fixes", _W, False,
     "Published vulnerabilities of this minor release let a user with ordinary SQL reach more than granted, some "
     "of them the operating system."),
    ("PG092", "The server's major version is out of support", _W, False,
     "New holes are no longer closed in this version."),
    ("PG093", "pgvector is out of date", _W, False,
     "Before 0.8.2 a parallel HNSW build could disclose other relations' memory (CVE-2026-3172); 0.8.3 and 0.8.4 "
     "repair HNSW indexes that vacuum damaged; before 0.8.0 there are no iterative scans, so that a search "
     "behind a policy comes back short."),
    # --- related tables and side channels
    ("PG100", "A related table has the tenant column and no row-level security", _W, False,
     "The table stands in the same schema, has the same tenant column and is granted to the role: documents, "
     "labels or logs of every tenant are read beside the protected chunks."),
    ("PG101", "Row-level security of a related table is not forced", _N, False,
     "Its owner, and views and functions that run as the owner, see all tenants."),
    ("PG102", "A policy of a related table is not bound to the tenant", _W, False,
     "Permissive policies are joined by OR: this one shows or accepts rows of other tenants in a related table."),
    ("PG103", "A foreign key to a table without tenants", _N, False,
     "The table that is referred to is shared: whether a row exists in it is told to every tenant. That is right for "
     "lists and settings that are the same for all, and for the list of tenants."),
    ("PG104", "A partition without row-level security is closed to the role", _N, False,
     "The role reaches the rows through the parent alone, where the policies hold. A later grant on the partition, or "
     "default privileges, would open it."),
    ("PG105", "Many tenants share an approximate index", _N, False,
     "HNSW and IVFFlat choose candidates before the policy filters them: a small tenant gets fewer rows than it "
     "has, often none, and the time that a search takes tells how many vectors of others lie near the query."),
    ("PG106", "The catalog shows sizes and tenants", _N, False,
     "Every role that can connect reads row estimates of all tables, and of partitions their names and bounds: "
     "who the tenants are and how much each has. It matters where strangers can run SQL."),
    ("PG107", "SQL without the tenant's predicate plans every partition", _N, False,
     "The policy's setting is read when a statement starts, so the planner has to look at each partition, and lock it, "
     "unless the statement itself compares the tenant column with a constant or parameter. Rows stay safe; joins and "
     "queries of the application's own, in the transaction of `join` for example, get slow with hundreds of "
     "partitions. vectoracl's own statements have the predicate."),
    # --- what could not be read
    ("PG110", "A part of the posture could not be read", _N, True,
     "The catalog refused a query of this check. What cannot be read cannot be trusted, so the grade falls."),
    # --- what was expected
    ("PG111", "The tenant column is a guess", _W, True,
     "Nothing in a database says which column tells tenants apart; its name, or what the policies compare, only "
     "suggests it. If it is another one, every other line of this report is about the wrong thing."),
    ("PG112", "A column is missing", _E, False,
     "The configuration names a column that the table does not have, so that operations fail."),
    ("PG113", "A column has another type or dimension than the configuration", _E, True,
     "Writes and searches fail, or rank by numbers that another embedder made."),
    ("PG115", "The vectors are of the other precision than the configuration", _W, False,
     "Vectors are cast between single and half precision on their way in and out. Nothing fails, and what is kept is "
     "rounded, or takes twice the room, other than the configuration says."),
    # --- moves between tiers
    ("PG120", "A move of a tenant was broken off", _W, False,
     "The process that moved a tenant is gone. Nothing is lost: the tenant is served from where it was, and the copy "
     "stays in step, which makes each of its writes a little slower. One that was broken off in its last moment keeps "
     "its tenant from writing."),
    # --- reach: whose rights the runtime role has, and what those could read
    ("PG140", "A role may dump or restore everything, and the configuration does not name it", _W, False,
     "No policy binds superusers, roles with BYPASSRLS or REPLICATION, those that read the server's files, and the "
     "table's owner, who can take row-level security off. Backups need one of them; each other one is a way past "
     "isolation that nobody watches. `backup_roles` names those that are meant."),
    ("PG130", "A readable relation can hold copies of governed rows", _E, True,
     "The role can read a table or materialized view that has text, documents or vectors, and no policy that is proved "
     "to bind it to the tenant. A copy keeps nothing of the policies of where it came from, whatever its columns are "
     "called and whichever trigger, rule or job fills it."),
    ("PG131", "Code runs with rights that could read governed rows, and is not proved harmless", _E, True,
     "A function or procedure runs as its owner (SECURITY DEFINER), the runtime role can have it run, and the owner is "
     "a superuser, bypasses row security, owns the table and so can take FORCE away, reads past grants, or has another "
     "policy. A name can be spelt, built or hidden, so the body is not searched: what is not proved counts as open."),
    ("PG132", "A view or rule reads the table as a role with another policy", _E, True,
     "A view without security_invoker, and a rule, read as their owner. The policies that hold for that owner are not "
     "the tenant's policy alone, so the rows of other tenants come out through it."),
    ("PG133", "Native code that is not recognised", _E, True,
     "Functions in C, in internal or in an untrusted language run inside the server, where no privilege binds them: "
     "they can read any row and any file. Those of extensions are compared with a table of what their makers ship."),
    ("PG134", "Rights on PostgreSQL's own objects that it does not give", _E, True,
     "Somebody granted what PostgreSQL or an extension keeps back: pg_statistic holds values of every tenant's rows, "
     "pg_authid the passwords, and functions that read files, logs or pages read them without policies."),
    ("PG135", "The runtime role may change a parameter that only superusers change", _E, True,
     "SET or ALTER SYSTEM on such a parameter can load code into sessions, switch triggers off or write statements to "
     "logs. Which of them is harmless is not for this check to guess."),
    ("PG136", "The runtime role has a predefined role that acts on others", _E, True,
     "pg_maintain acts on every table, pg_signal_backend ends other sessions, pg_create_subscription writes tables "
     "from elsewhere. A role that serves tenants needs none of them."),
    ("PG137", "The runtime role owns what runs for others", _E, True,
     "It owns, or can own, a function, operator, type, event trigger, publication or server that somebody else's "
     "object uses. Replacing it makes the next policy, trigger or statement of that other role do what the attacker "
     "wants."),
    ("PG138", "A foreign table or server is usable by the runtime role", _E, True,
     "A foreign server is reached with other credentials, and it can be this very server: there the session's tenant "
     "is not known and other policies hold."),
    ("PG141", "A trigger of the table runs code that is not proved harmless", _E, True,
     "It gets every row of every tenant that is written, and can pass it on without keeping it in a table: by NOTIFY, "
     "to a log, to another server. Counted on tables that vectoracl provisioned, where such triggers are not usual."),
    ("PG139", "An entry of accept covers nothing", _N, False,
     "What it accepted is gone or has another name. Left in place, it could cover something else one day."),
)  # fmt: skip

RULES: Final[Mapping[str, Rule]] = MappingProxyType({row[0]: Rule(*row) for row in _TABLE})
