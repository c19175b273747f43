"""The configuration: parses TOML, a dict or a model into checked models. Its errors never quote a value."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from vectoracl.adapter_api.contract import Grade
from vectoracl.adapter_api.settings import Model, Secret
from vectoracl.errors import ConfigError, InvalidInputError, InvalidTenantError, without_context
from vectoracl.model.identifiers import check_id, check_tenant
from vectoracl.registry.scopes import OPERATIONS
from vectoracl.registry.settings import Attribute, RegistrySettings, SourceSettings, parse_rule

DEFAULT_PATH = "vectoracl.toml"
EMBEDDER_TIMEOUT = 300.0
"""The default time limit of an embedder for one batch of texts, in seconds."""


class StoreConfig(BaseModel):
    """`[stores.NAME]`: the keys of the core; all other keys belong to the adapter, whose model checks them.

    `in_flight` and `in_flight_per_tenant` limit the requests that the process has in flight on the store, of all
    tenants and of each; further ones wait, tenant by tenant in turn, for at most `in_flight_wait` seconds. Without
    them the limits are the adapter's (pgvector: `pool_max`, `connect_timeout`), or none and the call's time limit.
    `keep_posture = false` makes every `connect` measure the store's posture, also if nothing has changed.
    With `expiring = true` chunks may have a time to live, and every read asks for it.
    """

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True, frozen=True)

    adapter: str = Field(min_length=1)
    distribution: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    timeout: float | None = Field(default=30.0, gt=0, le=86_400, allow_inf_nan=False)
    in_flight: StrictInt | None = Field(default=None, ge=1, le=100_000)
    in_flight_per_tenant: StrictInt | None = Field(default=None, ge=1, le=100_000)
    in_flight_wait: float | None = Field(default=None, gt=0, le=86_400, allow_inf_nan=False)
    keep_posture: StrictBool = True
    expiring: StrictBool = False

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Show the adapter's keys without their values: a connection string holds its password."""
        extra = self.model_extra or {}
        for name, value in super().__repr_args__():
            yield name, "…" if name in extra else value

    def own(self) -> dict[str, Any]:
        """Return the adapter's keys."""
        return dict(self.model_extra or {})


class TenantsConfig(Model):
    """`[tenants]`: the shared tenants, which every principal reads, and the store of each tenant.

    `routes` is the folder of the routes that `vectoracl tenants switch` changes while the processes run.
    """

    shared: tuple[str, ...] = ()
    routes: Path | None = None
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


class AttributeConfig(Model):
    """`[registry.attributes.NAME]`: the type of a label's attribute; `levels` are its ordered values, lowest first."""

    type: Literal["keyword", "number", "boolean"] = "keyword"
    levels: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _levels(self) -> AttributeConfig:
        if self.levels and self.type != "keyword":
            raise ValueError("only a keyword has levels")
        if len(set(self.levels)) != len(self.levels):
            raise ValueError("a level is named twice")
        return self


class RuleConfig(Model):
    """`[[registry.rules]]`: a rule that allows labels by their attributes; all its conditions must hold.

    For example `allow = { "label.sensitivity" = "<= principal.clearance" }`. Any rule may allow; denials win.
    """

    allow: dict[str, str] = Field(min_length=1)
    write: StrictBool = False


class GovernorsConfig(Model):
    """`[registry] governors`: who may govern, by role, group or user id; one name or several. None by default."""

    role: str | tuple[str, ...] = ()
    group: str | tuple[str, ...] = ()
    user: str | tuple[str, ...] = ()

    def subjects(self) -> frozenset[str]:
        """Return them as subjects, for example "role:records-manager"."""
        kinds = {"role": self.role, "group": self.group, "user": self.user}
        listed = {kind: (names,) if isinstance(names, str) else names for kind, names in kinds.items()}
        return frozenset(f"{kind}:{name}" for kind, names in listed.items() for name in names if name)


class SourceConfig(Model):
    """`[registry.sources.NAME]`: a source of rights, and the time for which it is believed after it was read.

    A source that was not read for longer is stale: `withdraw` hides the documents that only it vouches for, at the next
    query; `serve` continues by its last records.
    """

    max_age_seconds: float = Field(gt=0, le=31_622_400, allow_inf_nan=False)
    stale: Literal["withdraw", "serve"] = "withdraw"


class RegistryConfig(Model):
    """`[registry]`: documents decide who reads their chunks, by labels that change in force at the next query.

    `url` is a database URL (sqlite or postgresql+psycopg); without it the registry is the file vectoracl-registry.db
    next to the configuration. In PostgreSQL its tables are in `schema`, and `owner_url`, for the operator only, is the
    URL of the role that owns them. With `assert_versions`, reads of a store in the same database assert the registry's
    versions themselves. `journal` is the URL of another database, outside of the registry's backups, that
    gets every change before it is committed: a registry that was restored is noticed by it. `receipt_key` is an
    Ed25519 private key in PEM, which signs the receipts of erasures. `max_read_seconds` must be at least the longest
    time of a read.
    """

    url: Secret | None = None
    owner_url: Secret | None = None
    schema_name: str = Field(default="vectoracl", alias="schema", min_length=1, max_length=63)
    assert_versions: StrictBool = True
    journal: Secret | None = None
    receipt_key: Secret | None = None
    single_host: StrictBool = False
    default_label: str | None = Field(default=None, min_length=1)
    governors: GovernorsConfig = GovernorsConfig()
    overlay_max: StrictInt = Field(default=2_000, ge=1, le=4_000)
    max_read_seconds: float = Field(default=30.0, ge=0, le=3_600, allow_inf_nan=False)
    ticket_seconds: float = Field(default=120.0, ge=1, le=86_400, allow_inf_nan=False)
    request_seconds: float = Field(default=60.0, ge=0, le=86_400, allow_inf_nan=False)
    attributes: dict[str, AttributeConfig] = Field(default_factory=dict)
    rules: tuple[RuleConfig, ...] = ()
    sources: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")], SourceConfig] = (
        Field(default_factory=dict)
    )

    def settings(self, shared: tuple[str, ...]) -> RegistrySettings:
        """Return the settings of the flows. Raises: ConfigError for a rule that cannot be read."""
        attributes = {name: Attribute(one.type, one.levels) for name, one in self.attributes.items()}
        return RegistrySettings(
            default_label=self.default_label,
            overlay_max=self.overlay_max,
            max_read_seconds=self.max_read_seconds,
            ticket_seconds=self.ticket_seconds,
            request_seconds=self.request_seconds,
            attributes=attributes,
            rules=tuple(parse_rule(one.allow, attributes, write=one.write) for one in self.rules),
            governors=self.governors.subjects(),
            shared=frozenset(shared),
            sources={
                name: SourceSettings(one.max_age_seconds, one.stale == "serve") for name, one in self.sources.items()
            },
        )


class ValidatorConfig(Model):
    """`[[ingest.validators]]`: "size" or "outliers", or with allow_import an import path of a Validator or its maker.

    `name` is the validator's name in records and errors, by default `use`; `options` are its options.
    """

    use: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1, max_length=100)
    allow_import: StrictBool = False
    options: dict[str, Any] = Field(default_factory=dict)


class IngestConfig(Model):
    """`[ingest]`: the pipelines that may write, and the validators of what they write, in their order.

    With `sources` every write has to be made by a handle that names one of them (`scoped(source=…)`); an empty list
    permits none. `timeout` is the number of seconds that a validator may take for one document; it does not count
    towards the store's time limit.
    """

    sources: tuple[str, ...] | None = None
    validators: tuple[ValidatorConfig, ...] = ()
    timeout: float = Field(default=30.0, gt=0, le=3_600, allow_inf_nan=False)

    @field_validator("sources")
    @classmethod
    def _sources(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else tuple(_source(one) for one in value)

    @model_validator(mode="after")
    def _names(self) -> IngestConfig:
        names = [one.name or one.use for one in self.validators]
        if len(set(names)) != len(names):
            raise ValueError("two validators have the same name; give one of them another `name`")
        return self


@without_context
def _source(value: str) -> str:
    try:
        source = check_id(value, "source")
    except InvalidInputError as error:
        raise ValueError(error.message) from None
    if source in OPERATIONS:
        raise ValueError("a source has the name of an operation; give the pipeline another one")
    return source


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
        registry: The registry of labels and documents, if rights inside a tenant are governed.
        ingest: The pipelines that may write and the validators of what they write, if writes are checked.
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
    registry: RegistryConfig | None = None
    ingest: IngestConfig | None = None

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

    @model_validator(mode="after")
    def _routes(self) -> Config:
        if self.tenants.routes is not None and self.registry is not None:
            raise ValueError(
                "tenants.routes is not possible with [registry], which is asked about rows in one store. Remove one "
                "of them"
            )
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
