"""The provisioning SQL, run the way its text says: a superuser's part once, then the owner's, any number of times."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig

pytestmark = pytest.mark.server


def test_the_owner_needs_no_right_to_make_schemas(database: Any) -> None:
    made = database()
    config = PgvectorConfig(dsn="-", dimension=3, schema="elsewhere")  # type: ignore[call-arg, arg-type]
    with psycopg.connect(made.bootstrap, autocommit=True) as superuser:
        row = superuser.execute("SELECT current_database()").fetchone()
        assert row is not None
        superuser.execute(f"ALTER DATABASE {row[0]} OWNER TO CURRENT_USER")
        superuser.execute(f"GRANT CONNECT ON DATABASE {row[0]} TO vectoracl_owner")
        for statement in schema.roles(config):
            superuser.execute(statement)
    with psycopg.connect(made.owner, autocommit=True) as owner:
        allowed = owner.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchone()
        assert allowed == (False,)
        for _ in range(2):
            for statement in schema.migrations(config):
                owner.execute(statement)
