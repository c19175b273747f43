"""What the configuration accepts is in the audit log: at `connect` and at `check`, sync and async."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest

import vectoracl as v
from vectoracl import testing
from vectoracl.audit.sinks import MemorySink
from vectoracl.errors import StoreError

pytestmark = pytest.mark.server
ACME = testing.principal("ann", "acme")
SAID = ["PG130 public.countries: codes, the same for all"]


class Full(MemorySink):
    """Keeps nothing."""

    def write(self, record: Any) -> None:
        raise OSError(28, "no room")


@pytest.fixture
def config(provisioned: Any) -> dict[str, Any]:
    store = provisioned()
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute("CREATE TABLE public.countries (code text); GRANT SELECT ON public.countries TO vectoracl_runtime")
    accept = [{"rule": "PG130", "object": "public.countries", "reason": "codes, the same for all"}]
    found: dict[str, Any] = store.changed(accept=accept)
    return found


def records(sink: MemorySink) -> list[tuple[str, list[str], str]]:
    return [(one["action"], one["reasons"], one["store"]) for one in sink.records]


def test_connect_and_check_record_what_is_accepted(config: dict[str, Any]) -> None:
    sink = MemorySink()
    with v.connect(config, sink=sink) as acl:
        assert records(sink) == [("connect.accepted", SAID, "main")]
        acl.scoped(ACME).count()
        assert acl.check()["main"].grade == "engine"
        assert records(sink)[-1] == ("check.accepted", SAID, "main")
    assert [one["returned"] for one in sink.outcomes if one["returned"]] == [1, 1]


def test_async_records_it_too(config: dict[str, Any]) -> None:
    sink = MemorySink()

    async def main() -> None:
        async with v.aconnect(config, sink=sink) as acl:
            await acl.open()
            await acl.check()

    asyncio.run(main())
    assert records(sink) == [("connect.accepted", SAID, "main"), ("check.accepted", SAID, "main")]


def test_what_cannot_be_recorded_is_not_served(config: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="recorded") as caught:
        v.connect(config, sink=Full())
    assert caught.value.code == "audit"

    async def main() -> None:
        async with v.aconnect(config, sink=Full()) as acl:
            await acl.open()

    with pytest.raises(StoreError, match="recorded"):
        asyncio.run(main())


def test_nothing_is_recorded_where_nothing_is_accepted(provisioned: Any) -> None:
    sink = MemorySink()
    with v.connect(provisioned().config, sink=sink) as acl:
        acl.check()
    assert records(sink) == []
