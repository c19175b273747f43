"""Operators' commands: provision, import existing objects, and manage the tenant lifecycle. Blocking.

The lifecycle of a tenant: create, deactivate, offload, activate, remove. With `tenant_keys` each tenant has its own
user, with one role that names that tenant and this collection; the key is written to the file, and never printed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vectoracl.adapter_api import store_notes
from vectoracl.adapter_api.adoption import printable
from vectoracl.adapter_api.adoption_template import AdoptsInShares
from vectoracl.adapter_api.contract import Adopted, Progress, Request, TenantInfo
from vectoracl.engine.drivers import run
from vectoracl.errors import RefusedError, StoreError, without_context
from vectoracl.filters.boolean_compiler import ALL_ROWS
from vectoracl.filters.field_types import FieldType
from vectoracl.model.identifiers import check_tenant, stored_tenant
from vectoracl_weaviate import schema, tenant_keys
from vectoracl_weaviate.adapter import WeaviateAdapter
from vectoracl_weaviate.adopt import Adoption
from vectoracl_weaviate.answers import EXISTS, NO_ASYNC_INDEXING, NOT_PROVISIONED, UNSETTLED, error_of
from vectoracl_weaviate.backfill import backfill, compare
from vectoracl_weaviate.compile import WeaviateCompiler
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.decode import Decoder
from vectoracl_weaviate.names import readable, tenant_name
from vectoracl_weaviate.ports import Administrator, WeaviatePort
from vectoracl_weaviate.requests import About, Describe, State, Tenants, TenantState

_NO_TIERS = (
    "Every tenant of a Weaviate store already has its own shard. To stop serving one: vectoracl tenants deactivate."
)
_ATTEMPTS = 3
_WORDS = {"active": "HOT", "inactive": "COLD", "offloaded": "FROZEN"}


class WeaviateOperator(AdoptsInShares):
    """Operator's work on one configured store."""

    def __init__(
        self,
        config: WeaviateConfig,
        fields: Mapping[str, FieldType],
        base: Path,
        *,
        debug: bool,
        store: str = "",
        embedder: str | None = None,
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._config = config
        self._fields = fields
        self._base = base
        self._keys = None if config.tenant_keys is None else base / config.tenant_keys
        own = config.model_copy(update={"api_key": config.operator_key or config.api_key, "tenant_keys": None})
        self._port = WeaviatePort(own, base, debug=debug)
        self._admin = Administrator(config, base, debug=debug)
        self._compile = WeaviateCompiler(config, fields)
        self._decode = Decoder(config, fields)

    def _ask(self, request: Request[Any]) -> Any:
        return self._port.execute(request, None)

    def _steps(self) -> list[schema.Step]:
        collection = self._ask(Describe())
        if collection is None:
            self._ask(About())  # a server that is not Weaviate does not have the collection either
        if collection is not None and not (collection.get("multiTenancyConfig") or {}).get("enabled"):
            raise RefusedError(
                f"The collection {self._config.collection} is not multi-tenant, which cannot be changed. Configure "
                f"another name, and import it: vectoracl provision --adopt {self._config.collection}"
            )
        if collection is not None:
            other = schema.other_vectors(self._config, collection)
            if other is not None:
                raise RefusedError(
                    f"The collection {self._config.collection} differs from the configuration: {other}. Configure the "
                    "vectors that it holds, or name another collection and copy the chunks there (vectoracl copy, with "
                    "--reembed for another dimension).",
                    field="dimension",
                )
            self._check_properties(collection)
            store_notes.learned(self._store, store_notes.embedder_of(schema.kept(collection)), self._embedder)
        return list(schema.steps(self._config, self._fields, collection, self._embedder))

    def _check_properties(self, found: Mapping[str, Any]) -> None:
        """Refuse a collection with a property that differs from the required one. Raises: RefusedError."""
        there = {one["name"]: one for one in found.get("properties") or ()}
        for name, settings in schema.properties(self._config, self._fields).items():
            wrong = schema.misfit(settings, there[name]) if name in there else None
            if wrong is not None:
                raise RefusedError(
                    f"The property {name} of the collection {self._config.collection} is not as required: {wrong}. "
                    "Weaviate cannot change it: name another collection, provision it, and copy the chunks there "
                    "(vectoracl copy)."
                )

    def plan(self, *, adopt: str | None = None) -> str:
        """Return the HTTP requests that `provision` would make, and what `adopt` would import; changes nothing."""
        lines = [schema.text_of(step, self._config.collection) for step in self._steps()]
        lines += [f"# a role, a user and a key for the tenant {name}" for name in self._keyless()]
        text = "\n\n".join(lines or ["# Everything is in place."]) + "\n"
        if adopt is not None:
            text += "".join(f"# {printable(line)}\n" for line in self._adoption(adopt, None).plan())
        return text

    def provision(
        self, *, adopt: str | None = None, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> list[str]:
        """Create or update the collection, and keys if they are configured; does only what is missing.

        Args:
            adopt: The name of an existing collection whose objects are then imported; it is only read.
            progress: Called with the progress of each step.
            adopted: Called with the result of the import.

        Returns: One line for each step that was done.
        """
        lines = self._brought_about(progress)
        lines += self._repaired(progress)
        keyless = self._keyless()
        for number, name in enumerate(keyless):
            if progress is not None:
                progress("tenants' keys", number, len(keyless))
            lines += self._give_key(name)
        if adopt is not None:
            lines += self._adoption(adopt, progress).copy(adopted)
        return lines or ["everything is in place"]

    def settle(self) -> list[str]:
        """Leave one version of each document, without marks; see `settle`. Raises: RefusedError."""
        found = self._ask(Describe())
        if found is None:
            return []
        if schema.kept_registry(found) is not None:
            raise RefusedError(
                "The collection is under a registry, whose unpublished generations are not for this to judge. Run "
                "`vectoracl reconcile`.",
                field="registry",
            )
        resting = sum(state != "active" for state in self._ask(Tenants()).values())
        if resting:
            raise RefusedError(
                f"{resting} tenants are not active, so their documents cannot be registered. Activate them (vectoracl "
                "tenants activate), and provision again.",
                field="registry",
            )
        removed = unmarked = 0
        for info in self.tenants():
            one = run(WeaviateAdapter(self._config, self._fields).settled(info.tenant), {"store": self._port})
            removed, unmarked = removed + one.removed, unmarked + one.unmarked
        if not removed and not unmarked:
            return []
        return [f"removed what interrupted writes had left: {removed:,} chunks that no one saw, and {unmarked:,} marks"]

    def mark(self, registry: str | None) -> list[str]:
        """Note which registry governs the collection, in its description; None removes the note."""
        found = self._ask(Describe())
        if found is None:
            raise error_of(NOT_PROVISIONED, write=False)
        body = {**found, "description": store_notes.marked(found.get("description"), registry)}
        self._change_schema("PUT", f"/v1/schema/{self._config.collection}", body)
        name = self._config.collection
        return [f"{'marked' if registry else 'removed the mark of'} the collection {name} as governed by the registry"]

    def _brought_about(self, progress: Progress | None) -> list[str]:
        """Apply the missing steps, and read the collection again if another process did one of them in the meantime.

        A node of a cluster may also report "already exists" for its own step, which it repeated because the leader was
        lost.
        """
        lines: list[str] = []
        for attempt in range(_ATTEMPTS):
            try:
                steps = self._steps()
                self._compare([step.field for step in steps if isinstance(step, schema.AddProperty) and step.field])
                for number, step in enumerate(steps):
                    if progress is not None:
                        progress("provisioning", number, len(steps))
                    lines.append(self._apply(step))
                break
            except StoreError as error:
                if error.code != EXISTS.code or attempt == _ATTEMPTS - 1:
                    raise
        return lines

    def _compare(self, fields: list[str]) -> None:
        """Refuse *fields* whose values in existing objects have another type, before their properties are added.

        A property cannot be removed again, and once it exists the check no longer sees a difference. Raises:
        InvalidInputError.
        """
        for name, state in (self._ask(Tenants()) if fields else {}).items():
            if state == "active":
                flow = compare(self._compile, self._decode, self._config.page, name, sorted(fields))
                run(flow, {"store": self._port})

    @without_context
    def _apply(self, step: schema.Step) -> str:
        name = self._config.collection
        match step:
            case schema.CreateCollection(body=body):
                try:
                    self._admin.ask("POST", "/v1/schema", body)
                except StoreError as error:
                    if error.code == NO_ASYNC_INDEXING.code:
                        raise RefusedError(NO_ASYNC_INDEXING.text, field="index") from None
                    raise
            case schema.UpdateCollection(body=body):
                self._change_schema("PUT", f"/v1/schema/{name}", body)
            case schema.AddProperty(body=body):
                self._change_schema("POST", f"/v1/schema/{name}/properties", body)
        return schema.text_of(step, name).splitlines()[0]

    @without_context
    def _change_schema(self, method: str, path: str, body: Any) -> Any:
        """Change a collection that exists according to the leader of the cluster."""
        try:
            return self._admin.ask(method, path, body)
        except StoreError as error:
            if error.code != NOT_PROVISIONED.code:
                raise
            raise error_of(UNSETTLED, write=True) from error.__cause__

    def _repaired(self, progress: Progress | None) -> list[str]:
        """Repair the objects of processes that did not know a field as it is declared now.

        Such objects may have been written at any time, so this does not depend on whether a property was just added.
        Those of a tenant that is not active are not repaired; filters compare them one by one when it is served again.
        """
        count, resting = 0, 0
        fields = sorted(self._fields)
        for name, state in (self._ask(Tenants()) if fields else {}).items():
            if state != "active":
                resting += 1
                continue
            flow = backfill(self._compile, self._decode, self._config.page, name, fields, progress)
            count += run(flow, {"store": self._port})
        lines = [f"added the properties of the declared fields to {count} chunks"] if count else []
        if resting:
            lines.append(
                f"{resting} tenants are not active: filters on declared fields compare their older chunks one by one "
                "until the tenants are activated and `vectoracl provision` is run again"
            )
        return lines

    def _adoption(self, source: str, progress: Progress | None) -> Adoption:
        states: Mapping[str, TenantState] = {} if self._ask(Describe()) is None else self._ask(Tenants())
        known = [
            readable(name) or (self._named(name) if state == "active" else f"({name})")
            for name, state in states.items()
        ]
        return Adoption(
            self._config, self._fields, source, self._admin, self._port, known, states, self.create, progress
        )

    # Tenants

    def tenants(self, *, progress: Progress | None = None) -> list[TenantInfo]:
        """List the tenants with their rows; those that are not active cannot be counted."""
        states: Mapping[str, TenantState] = self._ask(Tenants())
        tenants = []
        for name, state in states.items():
            tenants.append(self._info(name, state))
            if progress is not None:
                progress("counting tenants", len(tenants), len(states))
        return sorted(tenants, key=lambda one: one.tenant)

    def _info(self, name: str, state: TenantState) -> TenantInfo:
        if state != "active":
            return TenantInfo(readable(name) or f"({name})", 0, "own", state=state)
        rows = self._ask(self._compile.tally_of(name, ALL_ROWS))
        return TenantInfo(readable(name) or self._named(name), rows, "own")

    def _named(self, name: str) -> str:
        """Return the id of a tenant whose name is a hash, from the tag of one of its objects."""
        objects = self._ask(self._compile.first_of(name))
        return self._decode.tag(objects[0]).tenant if objects else f"({name})"

    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        raise RefusedError(_NO_TIERS)

    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        raise RefusedError(_NO_TIERS)

    def create(self, tenant: str) -> list[str]:
        """Create *tenant*, and its key if keys are configured."""
        name = self._name(tenant)
        lines = []
        if self._state(name) is None:
            self._change_schema("POST", self._path, [{"name": name, "activityStatus": "HOT"}])
            lines.append(f"created the tenant {tenant}")
        lines += self._give_key(name)
        return lines or ["it already exists"]

    def activate(self, tenant: str) -> list[str]:
        """Serve *tenant* again."""
        return self._change(tenant, "active")

    def deactivate(self, tenant: str) -> list[str]:
        """Stop serving *tenant*; its objects stay on the server's disk."""
        return self._change(tenant, "inactive")

    def offload(self, tenant: str) -> list[str]:
        """Stop serving *tenant* and move its objects to the cloud storage of the server's offload module."""
        modules = (self._admin.ask("GET", "/v1/meta") or {}).get("modules") or {}
        if not any(name.startswith("offload-") for name in modules):
            raise RefusedError(
                "The server has no offload module (offload-s3), so the tenant cannot be offloaded. To keep it on the "
                "server's disk without serving it: vectoracl tenants deactivate."
            )
        return self._change(tenant, "offloaded")

    def remove(self, tenant: str) -> list[str]:
        """Delete *tenant* with all of its objects, its key, its user and its role; returns [] if there is nothing."""
        name = self._stored(tenant)
        lines = []
        if self._state(name) is not None:
            self._change_schema("DELETE", self._path, [name])
            lines.append(f"removed the tenant {tenant} with its chunks")
        lines += self._take_key(name)
        return lines

    @property
    def _path(self) -> str:
        return f"/v1/schema/{self._config.collection}/tenants"

    def _name(self, tenant: str) -> str:
        return tenant_name(check_tenant(tenant))

    def _stored(self, tenant: str) -> str:
        """Return the Weaviate name of a tenant to be removed, which is given by its id or as `tenants` lists it.

        If a name is a hash and the tenant holds no objects, its id is unknown; `tenants` lists the name in brackets.
        """
        tenant = stored_tenant(tenant, lambda: [one.tenant for one in self.tenants()])
        name, inner = tenant_name(tenant), tenant[1:-1]
        bare = tenant == f"({inner})" and readable(inner) is None and self._state(name) is None
        return inner if bare and inner in self._ask(Tenants()) else name

    def _state(self, name: str) -> TenantState | None:
        state: TenantState | None = self._ask(State(None, name))
        return state

    def _change(self, tenant: str, to: TenantState) -> list[str]:
        name = self._name(tenant)
        state = self._state(name)
        if state is None:
            raise RefusedError("There is no such tenant. To create it: vectoracl tenants create.", field="tenant")
        if state == to:
            return [f"it is already {to}"]
        self._change_schema("PUT", self._path, [{"name": name, "activityStatus": _WORDS[to]}])
        return [f"the tenant {tenant} is {to}"]

    # Keys

    def _keyless(self) -> list[str]:
        if self._keys is None or self._ask(Describe()) is None:
            return []
        known = tenant_keys.read(self._keys)
        return sorted(name for name in self._ask(Tenants()) if name not in known)

    def _user(self, name: str) -> str:
        """Return the name of the user, and of the role, of one tenant of this collection."""
        digest = hashlib.blake2b(f"{self._config.collection}/{name}".encode(), digest_size=20).hexdigest()
        return f"vectoracl_{digest}"

    def _give_key(self, name: str) -> list[str]:
        """Create a role that names one tenant and a user with only that role, and store its key.

        If the user exists but its key was lost, it gets a new one.
        """
        if self._keys is None:
            return []
        with tenant_keys.changing(self._keys) as keys:
            if name in keys:
                return []
            user = quote(self._user(name))
            if self._admin.ask("GET", f"/v1/authz/roles/{user}", absent=None) is None:
                self._admin.ask("POST", "/v1/authz/roles", {"name": user, "permissions": self._rights(name)})
            exists = self._admin.ask("GET", f"/v1/users/db/{user}", absent=None) is not None
            path = f"/v1/users/db/{user}/rotate-key" if exists else f"/v1/users/db/{user}"
            credentials = self._admin.ask("POST", path, {})
            self._admin.ask("POST", f"/v1/authz/users/{user}/assign", {"roles": [user], "userType": "db"})
            keys[name] = str(credentials["apikey"])
        return [f"created a role and a key for the tenant {readable(name) or name}"]

    def _rights(self, name: str) -> list[dict[str, Any]]:
        """Return the permissions of one tenant's key. Its name is not a pattern: only letters, digits, -, _."""
        collection = self._config.collection
        tenant = {"collection": collection, "tenant": name}
        return [
            *(
                {"action": f"{action}_data", "data": {**tenant, "object": "*"}}
                for action in ("create", "read", "update", "delete")
            ),
            {"action": "read_tenants", "tenants": tenant},
            {"action": "read_collections", "collections": {"collection": collection}},
        ]

    def _take_key(self, name: str) -> list[str]:
        if self._keys is None:
            return []
        with tenant_keys.changing(self._keys) as keys:
            user = quote(self._user(name))
            self._admin.ask("DELETE", f"/v1/users/db/{user}", absent=None)
            self._admin.ask("DELETE", f"/v1/authz/roles/{user}", absent=None)
            return ["removed its role and its key"] if keys.pop(name, None) is not None else []

    def close(self) -> None:
        """Close the connections."""
        self._port.close()
        self._admin.close()
