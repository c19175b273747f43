"""The configuration: parses TOML, a dict or a model into checked models. Its errors never quote a value."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)

from vectoracl.adapter_api.contract import Grade
from vectoracl.adapter_api.settings import Model, Secret
from vectoracl.errors import ConfigError, InvalidTenantError, without_context
from vectoracl.model.identifiers import check_tenant

DEFAULT_PATH = "vectoracl.toml"
EMBEDDER_TIMEOUT = 300.0
"""The default time limit of an embedder for one batch of texts, in seconds."""


class StoreConfig(BaseModel):
    """`[stores.NAME]`: the keys of the core; all other keys belong to the adapter, whose model checks them."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, frozen=True)

    adapter: str = Field(min_length=1)
    distribution: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    timeout: float | None = Field(default=30.0, gt=0, le=86_400, allow_inf_nan=False)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the adapter's keys without their values: a connection string holds its password."""
        extra = self.model_extra or {}
        for name, value in super().__repr_args__():
            yield name, "…" if name in extra else value

    def own(self) -> dict[str, Any]:
        """Return the adapter's keys."""
        return dict(self.model_extra or {})


class TenantsConfig(Model):
    """`[tenants]`: the shared tenants, which every principal reads, and the store of each tenant."""

    shared: tuple[str, ...] = ()
    store: dict[str, str] = Field(default_factory=dict)

    @field_validator("shared")
    @classmethod
    def _shared(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_tenant(one) for one in value)

    @field_validator("store")
    @classmethod
    def _store(cls, value: dict[str, str]) -> dict[str, str]:
        return {_tenant(tenant): store for tenant, store in value.items()}


@without_context
def _tenant(value: str) -> str:
    try:
        return check_tenant(value)
    except InvalidTenantError as error:
        raise ValueError(error.message) from None


class EmbedderConfig(Model):
    """`[embedder]`: "hashed", "hashed:256", "fastembed:MODEL" or, with allow_import, "package.module:attribute".

    `timeout` is in seconds for each batch of up to 64 texts; it does not count towards the store's time limit.
    """

    use: str
    dimension: int | None = Field(default=None, ge=1, le=65_536)
    allow_import: StrictBool = False
    timeout: float | None = Field(default=EMBEDDER_TIMEOUT, gt=0, le=86_400, allow_inf_nan=False)


class PolicyConfig(Model):
    """`[policy]`: "tenant", or with allow_import an import path of a Policy, or of a callable that returns one.

    `decision_ttl` is the lifetime in seconds of a decision without `valid_until`; 0 means one operation.
    """

    use: str = "tenant"
    allow_import: StrictBool = False
    decision_ttl: float = Field(default=5.0, ge=0, le=3_600, allow_inf_nan=False)


class AuditConfig(Model):
    """`[audit]`: where decisions are recorded; returned = "hashed" adds keyed hashes of returned chunks."""

    sink: Literal["memory", "jsonl"] = "memory"
    path: Path | None = None
    fsync: StrictBool = False
    returned: Literal["none", "hashed"] = "none"
    key: Secret | None = None

    @model_validator(mode="after")
    def _path(self) -> AuditConfig:
        if (self.sink == "jsonl") != (self.path is not None):
            raise ValueError('path is required with sink = "jsonl", and not allowed otherwise')
        if (self.returned == "hashed") != (self.key is not None):
            raise ValueError('key is required with returned = "hashed", and not allowed otherwise')
        if self.key is not None and self.key.text is not None:
            raise ValueError('key must be { env = "NAME" } or { file = "path" }, not text in the configuration')
        return self


class Config(Model):
    """The whole configuration.

    Attributes:
        version: The version of the format: 1.
        default_store: The name of the default store; it may be omitted if there is only one.
        minimum_grade: The isolation grade that every store must reach; None requires the grade that its adapter claims.
        debug_errors: Whether client exceptions, which may quote rows and secrets, are attached to errors.
        stores: The stores by name.
        tenants: The shared tenants, and the store of each tenant.
        embedder: The embedder of texts, if any.
        policy: The policy.
        audit: The audit sink.
    """

    version: Literal[1]
    default_store: str | None = None
    minimum_grade: Grade | None = None
    debug_errors: StrictBool = False
    stores: dict[str, StoreConfig] = Field(min_length=1)
    tenants: TenantsConfig = TenantsConfig()
    embedder: EmbedderConfig | None = None
    policy: PolicyConfig = PolicyConfig()
    audit: AuditConfig = AuditConfig()

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, value: Any) -> Any:
        if isinstance(value, bool):  # True equals 1
            raise ValueError("must be the number 1")
        return value

    @model_validator(mode="after")
    def _names(self) -> Config:
        if self.default_store is None and len(self.stores) > 1:
            raise ValueError("default_store is required if there are several stores")
        for name in (self.default_store, *self.tenants.store.values()):
            if name is not None and name not in self.stores:
                raise ValueError(f"the store {name!r} is not among [stores]")
        return self

    @property
    def default(self) -> str:
        """The name of the default store."""
        return self.default_store or next(iter(self.stores))


def describe(error: ValidationError, place: str) -> ConfigError:
    """Map a ValidationError of pydantic to a ConfigError that lists keys and reasons, never a value."""
    lines = []
    for one in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part) for part in one["loc"])
        message = "is not a known key" if one["type"] == "extra_forbidden" else one["msg"]
        lines.append(f"{where or 'the whole'}: {message.removeprefix('Value error, ')}")
    return ConfigError(f"{place}: " + "; ".join(lines) + ".")


@without_context
def read(
    config: str | os.PathLike[str] | Mapping[str, Any] | Config, *, store: str | None = None
) -> tuple[Config, Path]:
    """Read a configuration and return it with the base folder of its relative paths.

    *config* is the path of a TOML file, a dict or a Config; *store* overrides the default store. Raises: ConfigError.
    """
    base = Path.cwd()
    place = "the configuration"
    if isinstance(config, Config):
        parsed = config
    else:
        if isinstance(config, Mapping):
            data: Any = copy.deepcopy(dict(config))
        elif isinstance(config, str | os.PathLike):
            path = Path(config)
            base, place = path.resolve().parent, str(path)
            data = _toml(path)
        else:
            raise ConfigError(f"A configuration must be a path, a dict or a Config, got {type(config).__name__}.")
        try:
            parsed = Config.model_validate(data)
        except ValidationError as error:
            raise describe(error, place) from None
    if store is not None:
        if store not in parsed.stores:
            raise ConfigError(f"{place} has no store {store!r}. Its stores: {', '.join(sorted(parsed.stores))}.")
        parsed = parsed.model_copy(update={"default_store": store})
    return parsed, base


@without_context
def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no configuration file {path}. `vectoracl init` writes one.") from None
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"The configuration {path} cannot be read: it is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        # The decoder's text gives line and column and quotes a character at most.
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


@without_context
def adapter_config(model: type[BaseModel], store: StoreConfig, name: str) -> BaseModel:
    """Check the adapter's keys of `[stores.NAME]` by the adapter's model. Raises: ConfigError."""
    try:
        return model.model_validate(store.own())
    except ValidationError as error:
        raise describe(error, f"[stores.{name}]") from None
