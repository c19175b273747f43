"""What is sent over HTTP, for every shape of an operation and both kinds of index: pinned as JSON.

The requests are the official client's, as a recording stub on loopback got them; it refuses a body that the client's
own request models do not accept, and every namespace that is not a tenant's. A change shows as a diff of tests/golden;
`pytest --rewrite-golden` writes them anew.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from vectoracl.adapter_api.operations import Upsert
from vectoracl.engine.drivers import arun, run
from vectoracl.filters.predicate import ALWAYS
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.compile import PineconeCompiler
from vectoracl_pinecone.ports import AsyncPineconePort, PineconePort
from vectoracl_pinecone.requests import Record

from pinecone_support.shapes import FIELDS, TENANT, config, flows, records, worded
from pinecone_support.stub import Asked, stub

KINDS = ["vector", "document", "vector-words", "document-words"]
GOLDEN = Path(__file__).parent / "golden"


def _plain(one: Asked) -> dict[str, Any]:
    found = {"method": one.method, "path": one.path}
    if one.body is not None:
        found["body"] = one.body
    if one.params:
        found["params"] = one.params
    return found


def _settings(kind: str, **more: Any) -> dict[str, Any]:
    """What a kind of index is configured by; "vector-words" and "document-words" keep words."""
    index, _, words = kind.partition("-")
    return {"kind": index, **({"lexical": True, "metric": "inner"} if words else {}), **more}


def _fresh(server: Any, kind: str) -> None:
    """The same two tenants' records before each shape."""
    compiler = PineconeCompiler(config(**_settings(kind)), FIELDS)
    server.spaces.clear()
    for tenant in (TENANT, "beta"):
        made = compiler.records_of(records(3, tenant), "")
        server.spaces[compiler.namespace(tenant)] = {
            one.id: {"id": one.id, "values": one.values, "metadata": dict(one.metadata), "sparse": _sparse(one)}
            for one in made
        }
    server.asked.clear()


def _sparse(one: Record) -> Any:
    return None if one.words is None else one.words._asdict()


def _shapes(kind: str, adapter: PineconeAdapter) -> Any:
    return worded(adapter) if kind.endswith("-words") else flows(adapter)


def _sync(server: Any, kind: str) -> dict[str, list[dict[str, Any]]]:
    settings = config(**_settings(kind, host=server.host, parallel=1))
    adapter = PineconeAdapter(settings, FIELDS)
    port = PineconePort(settings, Path(), debug=True)
    found = {}
    for name, flow in _shapes(kind, adapter):
        _fresh(server, kind)
        run(flow, {"store": port})
        found[name] = [_plain(one) for one in server.asked]
    port.close()
    return found


async def _async(server: Any, kind: str) -> dict[str, list[dict[str, Any]]]:
    settings = config(**_settings(kind, host=server.host, parallel=1))
    adapter = PineconeAdapter(settings, FIELDS)
    port = AsyncPineconePort(settings, Path(), debug=True)
    found = {}
    for name, flow in _shapes(kind, adapter):
        _fresh(server, kind)
        await arun(flow, {"store": port})
        found[name] = [_plain(one) for one in server.asked]
    await port.close()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_is_what_was_pinned(request: pytest.FixtureRequest, kind: str) -> None:
    index, _, words = kind.partition("-")
    field = "words" if kind == "document-words" else None
    metric = "dotproduct" if words else "cosine"
    with stub(kind=index, dimension=2, metric=metric, words=field) as server:
        got = _sync(server, kind)
        assert asyncio.run(_async(server, kind)) == got
    file = GOLDEN / f"requests-{kind}.json"
    if request.config.getoption("--rewrite-golden"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(got, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    assert got == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_request_is_of_the_tenants_namespace(kind: str) -> None:
    """Of the pinned ones, which are what is sent: in the body or the address, or in the path of a document index."""
    pinned = json.loads((GOLDEN / f"requests-{kind}.json").read_text(encoding="utf-8"))
    for name, some in pinned.items():
        assert some or name.endswith("never") or name == "search by no words"
        for one in some:
            if kind.startswith("document"):
                assert one["path"].startswith("/namespaces/vectoracl-t-acme/documents/")
            else:
                assert {**one.get("params", {}), **one.get("body", {})}["namespace"] == "vectoracl-t-acme"
            assert "deleteAll" not in one.get("body", {})
            assert "delete_all" not in one.get("body", {})


def test_no_filter_is_empty_and_scope_and_filter_are_operands_of_their_own() -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for clause in ("$and", "$or", "$in", "$nin"):
                assert value.get(clause) != []
            assert value.get("filter", True) != {}
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    pinned = json.loads((GOLDEN / "requests-vector.json").read_text(encoding="utf-8"))
    walk(pinned)
    scoped, where = pinned["search in a scope"][0]["body"]["filter"]["$and"]
    assert list(scoped) == ["$or"]
    assert where == {"field_num_year": {"$gt": 1}}


def test_requests_are_plain_data() -> None:
    adapter = PineconeAdapter(config(), FIELDS)
    one, two = (next(adapter.upsert(Upsert(TENANT, ALWAYS, records(2)))) for _ in range(2))
    assert one == two
