"""`tenants remove` on Pinecone: a tenant's namespace goes, with what a writer left in the middle, and no other one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectoracl.adapter_api.operations import Count, Upsert
from vectoracl.engine.drivers import run
from vectoracl.errors import InvalidTenantError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Record, Tag
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.operator import PineconeOperator
from vectoracl_pinecone.ports import PineconePort

from pinecone_support.shapes import FIELDS, config
from pinecone_support.stub import Stub, stub

TENANTS = ("acme", "Große Kunden", "x" * 200)  # names that are readable, in hex, and a digest


def write(server: Stub, made: Any, tenant: str, number: int) -> int:
    """Write *number* chunks of two generations; return how many are there."""
    adapter, port = PineconeAdapter(made, FIELDS), PineconePort(made, Path(), debug=True)
    records = tuple(
        Record(
            Tag(tenant, "d", f"c{place}", generation=place % 2, producer="alice", path="upsert", time=1.0),
            "text",
            np.array([1.0, float(place)], np.float32),
            {},
        )
        for place in range(number)
    )
    try:
        if records:
            run(adapter.upsert(Upsert(tenant, ALWAYS, records, verbatim=True)), {"store": port})
        return run(adapter.count(Count(tenant, ALWAYS, ALWAYS)), {"store": port})
    finally:
        port.close()


@pytest.mark.parametrize("kind", ["vector", "document"])
@pytest.mark.parametrize("offered", [True, False], ids=["namespaces can be deleted", "and cannot"])
@pytest.mark.parametrize("tenant", TENANTS, ids=["readable", "hex", "digest"])
def test_a_removed_tenant_leaves_nothing(kind: str, tenant: str, offered: bool) -> None:
    offers = {"fetch_by_metadata", "not", *(("namespaces",) if offered else ())}
    with stub(kind=kind, dimension=2, offers=offers) as server:
        made = config(host=server.host, kind=kind)
        for one in (tenant, "other"):
            assert write(server, made, one, 250) == 250
        operator = PineconeOperator(made, FIELDS, Path(), lambda: PineconePort(made, Path(), debug=True))
        assert operator.remove("nemo") == []
        (line,) = operator.remove(tenant)
        assert tenant in line
        assert operator.remove(tenant) == []
        assert [(one.tenant, one.rows) for one in operator.tenants()] == [("other", 250)]
        assert {name for name, some in server.spaces.items() if some} == {"vectoracl-t-other"}
        assert write(server, made, tenant, 1) == 1, "a later write makes it again"
        with pytest.raises(InvalidTenantError):
            operator.remove("*")
        operator.close()


@pytest.mark.parametrize("tenant", ["gone\u3164", "a*b", "ü*" * 90], ids=["hex", "also hex", "digest"])
def test_a_tenant_whose_id_is_refused_now_is_listed_and_removed(monkeypatch: pytest.MonkeyPatch, tenant: str) -> None:
    """A former version took it. It is neither read nor written any more, and nothing else is done to it."""
    with stub(kind="vector", dimension=2) as server:
        made = config(host=server.host, kind="vector")
        with monkeypatch.context() as patch:
            patch.setattr("vectoracl.model.identifiers._strict_problem", lambda *_: None)
            assert write(server, made, tenant, 3) == 3
        assert write(server, made, "other", 2) == 2
        operator = PineconeOperator(made, FIELDS, Path(), lambda: PineconePort(made, Path(), debug=True))
        assert {one.tenant: one.rows for one in operator.tenants()} == {tenant: 3, "other": 2}
        with pytest.raises(InvalidTenantError):
            operator.remove("never*was")
        assert tenant in operator.remove(tenant)[0]
        assert [(one.tenant, one.rows) for one in operator.tenants()] == [("other", 2)]
        with pytest.raises(InvalidTenantError):
            operator.remove(tenant)  # it is there no more
        operator.close()
