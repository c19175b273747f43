"""The pluggy hooks of the pgvector adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg_pool import AsyncConnectionPool, ConnectionPool
from pydantic import BaseModel

from vectoracl._util import toml
from vectoracl.adapter_api.contract import AsyncPort, Capabilities, DemoStore, OpenContext, Opened, Port
from vectoracl.adapter_api.hookspecs import hookimpl
from vectoracl.adapter_api.posture import Posture, Rule
from vectoracl.errors import ConfigError
from vectoracl_pgvector.adapter import PgvectorAdapter
from vectoracl_pgvector.capabilities import capabilities
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.dsn import Connections
from vectoracl_pgvector.connection.extension import Extension
from vectoracl_pgvector.connection.ports import AsyncPgPort, PgPort
from vectoracl_pgvector.names import Names

if TYPE_CHECKING:
    from vectoracl.adapter_api.demo_attacks import AttackContext, Attempt


@hookimpl
def vectoracl_config_model() -> type[BaseModel]:
    """Return the model of `[stores.NAME]`."""
    return PgvectorConfig


@hookimpl
def vectoracl_describe() -> Capabilities:
    """Return the adapter's capabilities."""
    return capabilities(PgvectorConfig(dsn="-", dimension=1))  # type: ignore[arg-type]  # a Secret reads text


@hookimpl
def vectoracl_open(config: PgvectorConfig, context: OpenContext) -> Opened:
    """Return the adapter; nothing is contacted before the first use."""
    where = Connections(config, Path(context.base))
    extension = Extension(config)
    debug = context.debug_errors
    client: Any = context.client
    if client is not None and not isinstance(client, ConnectionPool | AsyncConnectionPool):
        raise ConfigError("The client of a pgvector store is a psycopg_pool.ConnectionPool or AsyncConnectionPool.")

    def port() -> Port:
        pool = client if isinstance(client, ConnectionPool) else None
        return PgPort(config, extension, where.runtime, where.owner, debug=debug, pool=pool)

    def aport() -> AsyncPort:
        pool = client if isinstance(client, AsyncConnectionPool) else None
        return AsyncPgPort(config, extension, where.runtime, where.owner, debug=debug, pool=pool)

    def operator() -> Any:
        from vectoracl_pgvector.operator import PgOperator

        return PgOperator(config, context.fields, where, store=context.name, embedder=context.embedder)

    def places(port: Port) -> frozenset[str]:
        from vectoracl_pgvector import store_identity as places

        return places.places(port, Names.of(config))

    return Opened(
        PgvectorAdapter(config, context.fields, extension),
        port,
        aport,
        operator,
        where.describe,
        places,
        # One for each connection. Those who wait in the pool would get them in the order of their calls, so that a
        # tenant with many calls would make the others wait.
        in_flight=config.pool_max if client is None else client.max_size or None,  # 0: a pool without a limit
        in_flight_wait=config.connect_timeout,
    )


@hookimpl
def vectoracl_rules() -> Sequence[Rule]:
    """Return every rule of the posture check."""
    from vectoracl_pgvector.posture.rules import RULES

    return tuple(RULES.values())


@hookimpl
def vectoracl_inspect(
    dsn: str, table: str | None, role: str | None, tenant_column: str | None
) -> Mapping[str, Posture]:
    """Check the tables of a database that vectoracl did not provision."""
    from vectoracl_pgvector.posture.inspect import inspect

    return inspect(dsn, table, role, tenant_column)


@hookimpl
def vectoracl_demo_attacks(config: PgvectorConfig, context: OpenContext, forging: AttackContext) -> Sequence[Attempt]:
    """Try the attacks of `vectoracl demo` that bypass the API."""
    from vectoracl_pgvector.demo_attacks import attempts

    return attempts(config, Connections(config, Path(context.base)), forging)


@hookimpl
def vectoracl_template(settings: Mapping[str, Any], dimension: int, name: str) -> str:
    """Return `[stores.main]` as commented TOML."""
    return f"""\
{toml.store_head("pgvector", dimension)}\

# An embedded PostgreSQL in this folder, started when it is needed. For development and tests.
{toml.lines(settings or {"embedded": ".vectoracl/pg"})}
# An existing server, instead of `embedded`: as a role that owns nothing (no SUPERUSER, no BYPASSRLS).
# dsn = {{ env = "VECTORACL_DSN" }}
# The owner, for `vectoracl provision` and `vectoracl tenants` only. Not needed to serve.
# owner_dsn = {{ env = "VECTORACL_OWNER_DSN" }}
schema = "vectoracl"
table = {toml.value(name)}
"""


@hookimpl
def vectoracl_demo_place() -> DemoStore:
    """Return the folder of an embedded PostgreSQL, which starts at first use and stops with its last user."""
    return DemoStore({"embedded": Path("pg")})
