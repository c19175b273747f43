"""What is sent, for every shape of an operation: pinned as JSON, and the tenant in each message.

A change of a request shows as a diff of tests/golden/requests.json; `pytest --rewrite-golden` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from vectoracl.adapter_api.operations import Replace, Upsert
from vectoracl.errors import RefusedError, StoreError, UntaggedWriteError
from vectoracl.filters.boolean_compiler import ALL_ROWS, NO_ROWS
from vectoracl.filters.predicate import ALWAYS
from vectoracl_weaviate.compile import _name
from vectoracl_weaviate.conformance.store import WeaviateStore
from vectoracl_weaviate.conformance.wire_decoding import _message_carries
from vectoracl_weaviate.ports import Call, compiled
from vectoracl_weaviate.requests import Dropped

from weaviate_support.shapes import ADAPTER, COMPILER, CONFIG, TENANT, VECTOR, flows, records, sent

GOLDEN = Path(__file__).parent / "golden" / "requests.json"
SHAPES = {name: sent(flow) for name, flow in flows()}


def plain(request: Any) -> dict[str, Any]:
    call = compiled(CONFIG, request)
    if isinstance(call, Call):
        return {"grpc": call.method, "message": MessageToDict(call.message, preserving_proto_field_name=True)}
    return {"rest": f"{call.method} {call.path}", "body": call.body}


def test_what_is_sent_is_what_was_pinned(request: pytest.FixtureRequest) -> None:
    got = json.loads(json.dumps({name: [plain(one) for one in requests] for name, requests in SHAPES.items()}))
    if request.config.getoption("--rewrite-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(got, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    assert got == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SHAPES)
def test_the_tenant_is_in_every_message(name: str) -> None:
    for request in SHAPES[name]:
        assert request.partition == TENANT
        assert WeaviateStore.carries(None, request, TENANT)  # type: ignore[arg-type]  # it needs nothing of a store
        assert not WeaviateStore.carries(None, request, "beta")  # type: ignore[arg-type]
        call = compiled(CONFIG, request)  # type: ignore[arg-type]
        if isinstance(call, Call):
            assert _message_carries(call.message, CONFIG.collection, "t_acme")
            assert not _message_carries(call.message, CONFIG.collection, "t_beta")
        else:
            assert call.body["tenant"] == "t_acme"
    assert SHAPES[name] or name == "search never"


def test_no_flow_can_make_a_message_without_a_tenant_or_for_everything() -> None:
    with pytest.raises(RefusedError):
        _name("")
    for make in (
        lambda: COMPILER.near("", ALL_ROWS, VECTOR, 1, frozenset()),
        lambda: COMPILER.tally("", ALL_ROWS),
        lambda: COMPILER.put("", [(records(1)[0], "")]),
        lambda: COMPILER.drop("", COMPILER.whole()),
        lambda: COMPILER.state(""),
        lambda: COMPILER.drop(TENANT, ALL_ROWS),
        lambda: COMPILER.drop(TENANT, NO_ROWS),
        lambda: COMPILER.near(TENANT, NO_ROWS, VECTOR, 1, frozenset()),
        lambda: COMPILER.tally(TENANT, NO_ROWS),
        lambda: COMPILER.groups("", ALL_ROWS, "lang", 3),
        lambda: COMPILER.groups(TENANT, NO_ROWS, "lang", 3),
    ):
        with pytest.raises(RefusedError):
            make()


def test_the_write_gate_is_passed_before_a_request_is_made() -> None:
    for bad in (records(1, "beta"), (records(1)[0]._replace(tag=None),)):
        with pytest.raises(UntaggedWriteError):
            next(ADAPTER.upsert(Upsert(TENANT, ALWAYS, (*records(1), *bad))))  # type: ignore[arg-type]
        with pytest.raises(UntaggedWriteError):
            next(ADAPTER.replace(Replace(TENANT, ALWAYS, "d", (*records(1), *bad))))  # type: ignore[arg-type]


def test_a_delete_goes_on_until_nothing_matches_and_says_what_stayed() -> None:
    """The server deletes a limited number of objects in a call."""
    where = COMPILER.documents(["d"])
    flow, sent_ = ADAPTER._drop(TENANT, where), []
    request = next(flow)
    for reply in (Dropped(10_000, 10_000, 0), Dropped(7, 7, 0)):
        sent_.append(request)
        request = flow.send(reply)
    assert sent_ == [request, request] == [COMPILER.drop(TENANT, where)] * 2
    with pytest.raises(StopIteration) as done:
        flow.send(Dropped(0, 0, 0))
    assert done.value.value == 10_007
    flow = ADAPTER._drop(TENANT, where)
    next(flow)
    with pytest.raises(StoreError) as caught:
        flow.send(Dropped(3, 1, 2))
    assert caught.value.code == "incomplete"


def test_messages_compare_equal_and_are_data() -> None:
    again = {name: sent(flow) for name, flow in flows()}
    assert again == SHAPES
