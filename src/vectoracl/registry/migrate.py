"""Migrations of the registry's tables, by Alembic; `vectoracl provision` runs and prints them."""

from __future__ import annotations

import io
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import SQLAlchemyError

from vectoracl.errors import ConfigError
from vectoracl.registry.database import Database, failed
from vectoracl.registry.row_security import quote


def _config(database: Database, output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output) if output is not None else Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["database"] = database
    return config


def script(database: Database) -> str:
    """Return the statements of all migrations as SQL, without contacting the database."""
    output = io.StringIO()
    if not database.sqlite:
        output.write(f"SET search_path = {quote(str(database.schema))}, pg_temp;\n\n")
    command.upgrade(_config(database, output), "head", sql=True)
    return output.getvalue()


def current(database: Database) -> str | None:
    """Return the version of the tables; None if there are none. Raises: StoreError."""
    caught: Exception
    try:
        with database.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": "vectoracl_registry_version"})
            return context.get_current_revision()
    except SQLAlchemyError as error:
        caught = error
    raise failed(caught, writing=False)


def head(database: Database) -> str:
    """Return the version that this library needs."""
    found = ScriptDirectory.from_config(_config(database)).get_current_head()
    assert found is not None
    return found


def check(database: Database) -> None:
    """Raise ConfigError unless the tables have exactly the version of this library; a newer one is never changed."""
    has, needs = current(database), head(database)
    if has == needs:
        return
    if has is None:
        raise ConfigError("The registry has no tables yet. Run `vectoracl provision`, which creates them.")
    known = {one.revision for one in ScriptDirectory.from_config(_config(database)).walk_revisions()}
    if has in known:
        raise ConfigError("The registry's tables are of an earlier version. Run `vectoracl provision`.")
    raise ConfigError(
        "The registry's tables are of a later version than this library knows. Install that version of vectoracl."
    )


def upgrade(database: Database) -> list[str]:
    """Create or update the tables; returns a line for each thing that was done."""
    before = current(database.owner)
    if before is not None:
        known = {one.revision for one in ScriptDirectory.from_config(_config(database)).walk_revisions()}
        if before not in known:
            check(database)
    caught: Exception
    try:
        command.upgrade(_config(database, io.StringIO()), "head")
    except SQLAlchemyError as error:
        caught = error
    else:
        after = head(database)
        if before == after:
            return [f"the registry's tables have version {after} already"]
        return [f"the registry's tables have version {after} now ({'created' if before is None else 'updated'})"]
    raise failed(caught, writing=True)
