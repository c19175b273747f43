"""The configuration: TOML, a dict or a model in; checked models out. Its errors never quote a value."""

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
"""How many seconds an embedder has for a batch of texts, if nothing else is configured."""


class StoreConfig(BaseModel):
    """`[stores.NAME]`: the core's keys here; all others are the adapter's, checked by its own model."""

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
        """Return the adapter's part."""
        return dict(self.model_extra or {})


class TenantsConfig(Model):
    """`[tenants]`: tenants that everybody reads, and which tenant lives in which store."""

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

    `timeout` is in seconds for each batch of up to 64 texts; the store's time limit does not count them.
    """

    use: str
    dimension: int | None = Field(default=None, ge=1, le=65_536)
    allow_import: StrictBool = False
    timeout: float | None = Field(default=EMBEDDER_TIMEOUT, gt=0, le=86_400, allow_inf_nan=False)


class PolicyConfig(Model):
    """`[policy]`: "tenant", or with allow_import an import path of a Policy, or of a callable that returns one.

    `decision_ttl` is how many seconds a decision without a `valid_until` is used; 0: for one operation.
    """

    use: str = "tenant"
    allow_import: StrictBool = False
    decision_ttl: float = Field(default=5.0, ge=0, le=3_600, allow_inf_nan=False)


class AuditConfig(Model):
    """`[audit]`: where decisions are recorded, and with returned = "hashed" what reads returned (see `returned`)."""

    sink: Literal["memory", "jsonl"] = "memory"
    path: Path | None = None
    fsync: StrictBool = False
    returned: Literal["none", "hashed"] = "none"
    key: Secret | None = None

    @model_validator(mode="after")
    def _path(self) -> AuditConfig:
        if (self.sink == "jsonl") != (self.path is not None):
            raise ValueError('a path goes with sink = "jsonl", and only with it')
        if (self.returned == "hashed") != (self.key is not None):
            raise ValueError('a key goes with returned = "hashed", and only with it')
        if self.key is not None and self.key.text is not None:
            raise ValueError('key is { env = "NAME" } or { file = "path" }: it is not written into the configuration')
        return self


class Config(Model):
    """The whole configuration. `minimum_grade` None demands of each store the grade that its adapter claims."""

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
            raise ValueError("default_store is needed where there are several stores")
        for name in (self.default_store, *self.tenants.store.values()):
            if name is not None and name not in self.stores:
                raise ValueError(f"the store {name!r} is not among [stores]")
        return self

    @property
    def default(self) -> str:
        """The name of the default store."""
        return self.default_store or next(iter(self.stores))


def describe(error: ValidationError, place: str) -> ConfigError:
    """Return pydantic's complaint as ours: the keys and what is wrong with them, never a value."""
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
    """Read a configuration; return it with the folder that its relative paths start from.

    *config* is a path of a TOML file, a dict or a Config; *store* overrides the default store.
    Raises: ConfigError.
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
            raise ConfigError(f"A configuration is a path, a dict or a Config, not {type(config).__name__}.")
        try:
            parsed = Config.model_validate(data)
        except ValidationError as error:
            raise describe(error, place) from None
    if store is not None:
        if store not in parsed.stores:
            raise ConfigError(f"{place} has no store {store!r}; it has {', '.join(sorted(parsed.stores))}.")
        parsed = parsed.model_copy(update={"default_store": store})
    return parsed, base


@without_context
def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"There is no configuration at {path}. `vectoracl init` writes one.") from None
    except OSError as error:
        raise ConfigError(f"The configuration {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"The configuration {path} cannot be read: it is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        # The decoder's text gives line and column and quotes a character at most.
        raise ConfigError(f"{path} is not valid TOML: {error}.") from None


@without_context
def adapter_config(model: type[BaseModel], store: StoreConfig, name: str) -> BaseModel:
    """Check the adapter's part of `[stores.NAME]` by the adapter's own model. Raises: ConfigError."""
    try:
        return model.model_validate(store.own())
    except ValidationError as error:
        raise describe(error, f"[stores.{name}]") from None
