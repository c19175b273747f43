"""A fingerprint of everything that the posture check reads: equal only if nothing has changed. Pure.

PostgreSQL never changes a row of its catalogs in place, with the exceptions below: a change writes a new row, and the
`xmin` of that row is the id of the transaction that wrote it. Within one epoch of 2^32 transactions no id is given
twice, so a catalog whose rows have the same `xmin` as before, in number and in order, has not changed. Reading them
takes a tenth of the time of the check itself, which prints and compares thousands of expressions. The whole catalogs
are read, not the rows that matter: what matters is the check's to decide, and a fingerprint that chose rows by itself
could miss some. A change that does not matter therefore costs a full check, for example a temporary table.

Something that was added and removed again cannot be found afterwards. The check itself is therefore read in the same
snapshot as the fingerprint that is kept with it (`PgvectorAdapter.fingerprinted_posture`).

The other parts:

- The start of the server, since a copy that was restored and started gives the same transaction ids to other changes;
  the epoch, the server's date and the database.
- Roles and subscriptions by their columns: an ordinary role may not read `xmin` there.
- The state of indexes, which older servers change in place, and whether partitions were vacuumed, by the statement of
  the check (`bits`). What else is changed in place (the number of rows, the oldest transaction id) is not read by the
  check.
- The statements of the check that read the session, settings and locks, as they are.
- The target, and the files of this package: another version may judge the same rows otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from vectoracl_pgvector.posture.bits import BITS
from vectoracl_pgvector.posture.snapshot import Target
from vectoracl_pgvector.posture.sql import MOVES, SAFE_PATH, SERVER, SETTINGS

# Catalogs of one database, whole. `EXCLUDED` has the others, with the reason for each.
CATALOGS: Final = (
    "pg_aggregate", "pg_am", "pg_amop", "pg_amproc", "pg_attrdef", "pg_attribute", "pg_auth_members", "pg_cast",
    "pg_class", "pg_collation", "pg_constraint", "pg_conversion", "pg_default_acl", "pg_depend", "pg_description",
    "pg_enum", "pg_event_trigger", "pg_extension", "pg_foreign_data_wrapper", "pg_foreign_server", "pg_foreign_table",
    "pg_index", "pg_inherits", "pg_init_privs", "pg_language", "pg_largeobject_metadata", "pg_namespace", "pg_opclass",
    "pg_operator", "pg_opfamily", "pg_partitioned_table", "pg_policy", "pg_proc", "pg_publication",
    "pg_publication_rel", "pg_range", "pg_rewrite", "pg_sequence", "pg_transform", "pg_trigger", "pg_ts_config",
    "pg_ts_config_map", "pg_ts_dict", "pg_ts_parser", "pg_ts_template", "pg_type",
)  # fmt: skip
# Since PostgreSQL 15.
LATER: Final = ("pg_parameter_acl", "pg_publication_namespace")
LATER_SINCE: Final = 150_000
# Shared by all databases of the server: only the rows of this one, and those of none.
SHARED: Final = {
    "pg_database": "datname = pg_catalog.current_database()",
    "pg_db_role_setting": "setdatabase IN (0, {database})",
    "pg_shdepend": "dbid IN (0, {database})",
}
EXCLUDED: Final = {
    "pg_authid": "not readable; pg_roles is read instead",
    "pg_subscription": "not readable as a whole; its public columns are read instead",
    "pg_user_mapping": "not readable, and not read by the check",
    "pg_largeobject": "the content of large objects; the check reads their privileges",
    "pg_statistic": "changed by each ANALYZE, and not read by the check",
    "pg_statistic_ext": "not read by the check",
    "pg_statistic_ext_data": "changed by each ANALYZE, and not read by the check",
    "pg_subscription_rel": "the progress of a subscription, not read by the check",
    "pg_replication_origin": "the progress of a subscription, not read by the check",
    "pg_tablespace": "where files are, not read by the check",
    "pg_shdescription": "comments on roles and databases, not read by the check",
    "pg_seclabel": "labels of another module, not read by the check",
    "pg_shseclabel": "labels of another module, not read by the check",
}

_DATABASE: Final = "(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())"


def _digest(values: str) -> str:
    return f"pg_catalog.encode(pg_catalog.sha256(pg_catalog.array_send({values})), 'hex')"


def _catalogs(names: Iterable[str]) -> str:
    rows = _digest("pg_catalog.array_agg(xmin)")
    return " UNION ALL ".join(f"SELECT '{name}', {rows} FROM pg_catalog.{name}" for name in names)


def _shared() -> str:
    rows = _digest("pg_catalog.array_agg(xmin ORDER BY ctid)")
    return " UNION ALL ".join(
        f"SELECT '{name}', {rows} FROM pg_catalog.{name} WHERE {where.format(database=_DATABASE)}"
        for name, where in SHARED.items()
    )


# chr(10) and no escape string: what reads recorded statements, such as the kit, need not know escapes.
_ROWS: Final = (
    "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.string_agg("
    "{0}::text, pg_catalog.chr(10) ORDER BY {0}::text), 'UTF8')), 'hex')"
)
_OTHERS: Final = f"""SELECT 'start', pg_catalog.pg_postmaster_start_time()::text
UNION ALL SELECT 'epoch', (pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint >> 32)::text
UNION ALL SELECT 'database', {_DATABASE}::text
UNION ALL SELECT 'standby', pg_catalog.pg_is_in_recovery()::text
UNION ALL SELECT 'large objects', pg_catalog.current_setting('lo_compat_privileges')
UNION ALL SELECT 'pg_roles', {_ROWS.format("r")} FROM pg_catalog.pg_roles r
UNION ALL SELECT 'pg_subscription', {_ROWS.format("s")}
            FROM (SELECT subdbid, subname, subowner FROM pg_catalog.pg_subscription) s
UNION ALL SELECT 'index states', {_digest("pg_catalog.array_agg(indisvalid::int4 + indisready::int4 * 2)")}
            FROM pg_catalog.pg_index"""

STATEMENTS: Final[tuple[tuple[str, int], ...]] = (
    (SAFE_PATH, 0),
    (SERVER, 0),
    (SETTINGS, 0),
    (MOVES, 0),
    (BITS, 0),
    (f"{_catalogs(CATALOGS)} UNION ALL {_shared()} UNION ALL {_OTHERS}", 0),
    (_catalogs(LATER), LATER_SINCE),
)
"""The statements, each with the oldest `server_version` that supports it."""

# Rows are read in the order in which they are stored: no scan begins where another one is, and none is divided.
ORDERED: Final = (("synchronize_seqscans", "off"), ("max_parallel_workers_per_gather", "0"))


def fingerprint(target: Target, replies: Iterable[Iterable[tuple[Any, ...]]]) -> str | None:
    """Return the fingerprint of *target* from the replies of `STATEMENTS`.

    None if the judging code cannot be identified, because the files of this package are not readable as files.
    """
    code = _code()
    if code is None:
        return None
    parts = [code, repr(target), *(repr([tuple(row) for row in rows]) for rows in replies)]
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@cache
def _code() -> str | None:
    """Return a digest of this package's files, read once for a process."""
    root = Path(__file__).parent.parent
    whole = hashlib.sha256()
    try:
        files = sorted(one for one in root.rglob("*") if one.suffix in (".py", ".json"))
        for file in files:
            data = file.read_bytes()
            whole.update(f"{file.relative_to(root).as_posix()}:{len(data)}:".encode() + data)
    except OSError:
        return None
    return whole.hexdigest() if files else None
