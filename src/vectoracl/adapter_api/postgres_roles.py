"""Roles of PostgreSQL that reach past row-level security or grants, for the registry and for adapters alike."""

from __future__ import annotations

from typing import Final

SERVER_ROLES: Final = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")
"""Predefined roles that reach the server's own files, where no policy exists."""

# Bypass grants, by membership. The last ones are the administrators of managed services.
STRONG_PREDEFINED: Final = frozenset({
    "pg_read_all_data", "pg_write_all_data", *SERVER_ROLES,
    "rds_superuser", "cloudsqlsuperuser", "azure_pg_admin", "alloydbsuperuser",
})  # fmt: skip
