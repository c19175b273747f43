"""Known vulnerabilities and limits of PostgreSQL's and pgvector's releases. Pure data; extend it with each release.

Sources: https://www.postgresql.org/support/security/ and https://www.postgresql.org/support/versioning/ ,
https://github.com/pgvector/pgvector/blob/master/CHANGELOG.md . Read for the releases up to 2026-08-13.
"""

from __future__ import annotations

import re
from typing import Final

# Bypasses of row-level security: identifier -> {major: first fixed minor}. A missing major is not affected.
ROW_SECURITY_HOLES: Final[tuple[tuple[str, dict[int, int]], ...]] = (
    ("CVE-2023-2455", {13: 11, 14: 8, 15: 3}),  # policies of another role after inlining
    ("CVE-2023-39418", {15: 4}),  # MERGE does not check UPDATE and SELECT policies
    ("CVE-2024-10976", {13: 17, 14: 14, 15: 9, 16: 5, 17: 1}),  # policies of another role below subqueries
    ("CVE-2025-8713", {13: 22, 14: 19, 15: 14, 16: 10, 17: 6}),  # statistics of hidden rows
)
# Plans that were cached before a role change keep the old policies; relevant if policies depend on the role.
ROLE_PLAN_HOLE: Final = ("CVE-2026-14666", {14: 24, 15: 19, 16: 15, 17: 11, 18: 6})

# The newest security release of each major, and the worst vulnerabilities that it fixes for ordinary SQL users.
SECURITY_RELEASE: Final[dict[int, int]] = {13: 23, 14: 24, 15: 19, 16: 15, 17: 11, 18: 6}
SECURITY_RELEASE_CLOSES: Final = "CVE-2026-14680, CVE-2026-16239, CVE-2026-14666, CVE-2026-6473"

END_OF_LIFE: Final[dict[int, str]] = {
    13: "2025-11-13",
    14: "2026-11-12",
    15: "2027-11-11",
    16: "2028-11-09",
    17: "2029-11-08",
    18: "2030-11-14",
}
OLDEST_MAJOR: Final = 13
PGVECTOR_NEEDED: Final = (0, 8, 0)  # iterative scans
PGVECTOR_SERIAL_BEFORE: Final = (0, 8, 2)  # vectoracl builds indexes without parallel workers before it (CVE-2026-3172)
# Of pgvector: from, fixed in, 32-bit servers only, and description (issues 959, 1006 and the changelog).
PGVECTOR_HOLES: Final[tuple[tuple[tuple[int, ...], tuple[int, ...], bool, str], ...]] = (
    ((0, 6, 0), (0, 8, 2), False,
     "CVE-2026-3172: whoever may build an HNSW index with parallel workers can read memory of other relations or crash "
     "the server; fixed in 0.8.2, and vectoracl builds its indexes without parallel workers until then"),
    ((0, 0, 0), (0, 8, 6), True,
     "CVE-2026-18022: whoever may build an IVFFlat index on a 32-bit server can write out of bounds; fixed in 0.8.6"),
    ((0, 5, 0), (0, 8, 4), False,
     "VACUUM with concurrent writers can damage an HNSW index, whose searches then miss hits; fixed in 0.8.3 and "
     "0.8.4"),
)  # fmt: skip

STATISTICS_PREDEFINED: Final = frozenset({"pg_monitor", "pg_read_all_stats"})
# Every other predefined role counts as a bypass of grants, including those of later versions.
HARMLESS_PREDEFINED: Final = frozenset({"pg_database_owner", "pg_use_reserved_connections", "pg_checkpoint"})
# Extensions that reach this server's tables and files again, with separate privileges.
RETURNING_EXTENSIONS: Final = frozenset({"dblink", "adminpack", "pg_background", "plsh"})
OUTSIDE_EXTENSIONS: Final = frozenset({
    "dblink", "postgres_fdw", "file_fdw", "oracle_fdw", "mysql_fdw", "tds_fdw", "multicorn", "adminpack",
    "plpython3u", "plpythonu", "plperlu", "pltclu", "plsh", "http", "pg_net", "pgsql_http", "pg_background",
})  # fmt: skip


def parts(version: str) -> tuple[int, ...]:
    """Return a version of pgvector as numbers."""
    return tuple(int(one) for one in re.findall(r"\d+", version)[:3])


def pgvector_holes(version: str, *, wide: bool) -> list[str]:
    """Return the known problems of *version* of pgvector; *wide* is whether the server is a 64-bit one."""
    number = parts(version)
    return [text for since, fixed, narrow, text in PGVECTOR_HOLES if since <= number < fixed and not (narrow and wide)]


def affected(number: int, fixed: dict[int, int]) -> bool:
    """Return whether a server_version_num is older than the first fixed minor of its major."""
    major, minor = divmod(number, 10000)
    return minor < fixed.get(major, 0)
