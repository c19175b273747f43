"""The stores that the harness makes: a collection each, with and without a key for each tenant.

The census reads REST by itself, tenant by tenant, and shares nothing with the adapter but the default names of the
properties.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from vectoracl.adapter_api.local_servers.start import Running
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.evidence import Tap, Taps, Wire
from vectoracl_conformance.harness import HarnessError, Needs, Shards, Store, Weakening
from vectoracl_weaviate import tenant_keys
from vectoracl_weaviate.conformance.create_tenant_first import TenantCreation
from vectoracl_weaviate.conformance.wire_decoding import DECODE, WeaviateShards, answered, judge_of
from vectoracl_weaviate.requests import Drop, Find, Groups, Merge, Put, State, Tally

_PAGE = 1000
_READERS = 4
_TEXTS = ("tenant", "document", "chunk_id", "label", "producer", "path")


class WeaviateStore(Store):
    """One collection, dropped at the end."""

    def __init__(self, needs: Needs, running: Running, http: httpx.Client) -> None:
        self._needs = needs
        self._running = running
        self._http = http
        self.collection = f"Handbook{secrets.token_hex(6)}"
        self._seen: dict[bytes, list[Record]] = {}
        self.config = {
            "adapter": "weaviate",
            "url": running.url,
            "grpc_port": running.ports.get("grpc", 50_051),
            "collection": self.collection,
            "dimension": needs.dimension,
            "metric": needs.metric,
            **({"api_key": running.key} if running.key else {}),
        }
        self._provision(self.config)
        self.config = {**self.config, **self._more()}
        self.single = {**self.config, "parallel": 1}

    def _root(self) -> Mapping[str, Any]:
        """Return what the operator's configuration has besides."""
        return {}

    def _more(self) -> Mapping[str, Any]:
        """Return what else the configuration needs, once the collection is there."""
        return {}

    def _provision(self, own: Mapping[str, Any]) -> None:
        from vectoracl import VectorACL

        config = {"version": 1, "stores": {"kit": {**own, **self._root(), "metadata": dict(self._needs.metadata)}}}
        with VectorACL(config) as acl:
            operator = acl.operator()
            operator.provision()
            operator.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call over REST. Raises: HarnessError."""
        answer = self._http.request(method, path, json=body)
        if answer.status_code >= 300:
            raise HarnessError(f"The kit's own {method} {path} was answered with {answer.status_code}.")
        return answer.json() if answer.content else None

    def parts(self) -> frozenset[str]:
        """Name the tenants, as Weaviate does."""
        return frozenset(one["name"] for one in self.ask("GET", f"/v1/schema/{self.collection}/tenants"))

    def census(self) -> Sequence[Record]:
        """Read every object of every tenant."""
        tenants = sorted(self.parts())
        with ThreadPoolExecutor(_READERS) as pool:
            answers = list(pool.map(self._answers, tenants))
        # The census is read repeatedly and most tenants are unchanged: only changed answers are decoded again.
        self._seen = {one: self._seen.get(one) or self._decoded(one) for some in answers for one in some}
        return [record for some in answers for one in some for record in self._seen[one]]

    def _answers(self, tenant: str) -> list[bytes]:
        """Return the server's answers that list all objects of *tenant*."""
        answers: list[bytes] = []
        after = ""
        while True:
            query = {"class": self.collection, "tenant": tenant, "limit": str(_PAGE), "include": "vector"}
            answer = self._http.get("/v1/objects", params={**query, "after": after})
            if answer.status_code >= 300:
                raise HarnessError(f"The kit's own listing was answered with {answer.status_code}.")
            answers.append(answer.content)
            some = json.loads(answer.content)["objects"] if answer.content.count(b'"id":') >= _PAGE else []
            if len(some) < _PAGE:
                return answers
            after = some[-1]["id"]

    def _decoded(self, answer: bytes) -> list[Record]:
        return [self._record(one) for one in json.loads(answer)["objects"]]

    def _record(self, one: Mapping[str, Any]) -> Record:
        held = one["properties"]
        texts = {name: held[name][1:-1] for name in _TEXTS}
        metadata = json.loads(held["metadata"])
        for name, kind in self._needs.metadata.items():
            if kind == "datetime" and name in metadata:
                metadata[name] = datetime.fromisoformat(metadata[name])
        tag = Tag(
            texts["tenant"], texts["document"], texts["chunk_id"], int(held["generation"]), texts["label"],
            int(held["rev"]), float(held["expires"]), texts["producer"], texts["path"], float(held["written_at"]),
            int(held["position"]),
        )  # fmt: skip
        return Record(tag, held["content"], np.array(one["vectors"]["default"], np.float32), metadata)

    def carries(self, request: Any, tenant: str) -> bool | None:
        """Demand the tenant's name in the message itself: there is no other place that could widen it."""
        name = f"t_{tenant}"
        match request:
            case Find() | Tally() | Groups() | Drop():
                return bool(request.message.tenant == name)
            case Put(message=message):
                return all(one.tenant == name for one in message.objects)
            case Merge() | State():
                return request.tenant == name
        return False

    def weakenings(self) -> Sequence[Weakening]:
        """Return what an operator may get wrong."""

        def tenancy(**settings: bool) -> Callable[[], None]:
            def work() -> None:
                definition = self.ask("GET", f"/v1/schema/{self.collection}")
                definition["multiTenancyConfig"] = {**definition["multiTenancyConfig"], **settings}
                self.ask("PUT", f"/v1/schema/{self.collection}", definition)

            return work

        return (
            Weakening(
                "tenants created by a write", tenancy(autoTenantCreation=True), tenancy(autoTenantCreation=False)
            ),
            Weakening(
                "tenants woken by a request", tenancy(autoTenantActivation=True), tenancy(autoTenantActivation=False)
            ),
        )

    def wire(self) -> Wire | None:
        """Describe both ports: rows go over gRPC, marks and configuration over REST."""
        ports = self._running.ports
        if not self._running.started_here or "metrics" not in ports:
            return None  # a server that others may use counts their requests too, and one without metrics none
        return Wire(
            recorder=lambda: Taps(Tap.tcp("127.0.0.1", ports["http"]), Tap.tcp("127.0.0.1", ports["grpc"])),
            config=lambda host, http, grpc_port: {
                **self.config,
                "parallel": 1,
                "url": f"http://{host}:{http}",
                "grpc_port": grpc_port,
            },
            decode=DECODE,
            judge=judge_of(self.collection),
            answered=lambda: answered(ports["metrics"]),
        )

    def engine(self) -> Shards | None:
        """Return what the server's log and its metrics say of each tenant's shard."""
        running = self._running
        if running.log is None or "metrics" not in running.ports:
            return None  # the log of a server that was not started here cannot be read
        return WeaviateShards(self.collection, running.log, running.ports["metrics"], self.ask)

    def close(self) -> None:
        """Drop the collection."""
        self.ask("DELETE", f"/v1/schema/{self.collection}")


class KeyedStore(WeaviateStore):
    """The same with a key for each tenant; the process's own key may read the collection's configuration alone."""

    def __init__(self, needs: Needs, running: Running, http: httpx.Client) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="keys-")
        self._keys = Path(self._folder.name) / "tenant-keys.json"
        super().__init__(needs, running, http)

    def _root(self) -> Mapping[str, Any]:
        return {"operator_key": self._running.key}

    def _more(self) -> Mapping[str, Any]:
        user = f"reader_{self.collection.lower()}"
        rights = [{"action": "read_collections", "collections": {"collection": self.collection}}]
        self.ask("POST", "/v1/authz/roles", {"name": user, "permissions": rights})
        key = self.ask("POST", f"/v1/users/db/{user}", {})["apikey"]
        self.ask("POST", f"/v1/authz/users/{user}/assign", {"roles": [user], "userType": "db"})
        self._own = str(key)
        return {"api_key": self._own, "operator_key": self._running.key, "tenant_keys": str(self._keys)}

    @property
    def secrets(self) -> Sequence[str]:  # type: ignore[override]  # they are made while it is used
        """The keys that must never be shown."""
        return (self._own, self._running.key, *tenant_keys.read(self._keys).values())

    def admit(self, tenant: str) -> None:
        """Make a tenant with its key, as an operator does: no key of the adapter's process could."""
        self._sign_up(tenant)

    @cached_property
    def _sign_up(self) -> TenantCreation:
        return TenantCreation(self._whole())

    def _whole(self) -> dict[str, Any]:
        return {**self.config, "metadata": dict(self._needs.metadata)}

    def weakenings(self) -> Sequence[Weakening]:
        """Return also what rights may be wrong."""
        user = f"reader_{self.collection.lower()}"
        held = {"permissions": [{"action": "read_data", "data": {"collection": self.collection, "tenant": "*"}}]}

        def right(verb: str) -> Callable[[], None]:
            return lambda: self.ask("POST", f"/v1/authz/roles/{user}/{verb}-permissions", held)

        return (
            *super().weakenings(),
            Weakening("an own key that reads every tenant", right("add"), right("remove")),
        )

    def close(self) -> None:
        """Drop the collection and every role and user that was made for it."""
        for name in tenant_keys.read(self._keys):  # also those that another process signed up
            self._sign_up.operator.remove(name[2:])
        self._sign_up.close()
        user = f"reader_{self.collection.lower()}"
        self.ask("DELETE", f"/v1/users/db/{user}")
        self.ask("DELETE", f"/v1/authz/roles/{user}")
        super().close()
        self._folder.cleanup()
