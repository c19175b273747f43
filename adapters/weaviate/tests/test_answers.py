"""What a server says of a refusal is said in true words, and tells what may be tried again."""

from __future__ import annotations

import grpc
import httpx
import numpy as np
import pytest
from weaviate.proto.v1 import batch_pb2

import vectoracl as v
from vectoracl import Chunk, F
from vectoracl.errors import StoreError
from vectoracl.testing import principal
from vectoracl_weaviate import answers
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.failures import mapped, rpc_at
from vectoracl_weaviate.operator import WeaviateOperator
from vectoracl_weaviate.ports import _done, _written
from vectoracl_weaviate.requests import Find, Tally

AT = rpc_at("127.0.0.1:50051")
E = np.eye(8, dtype=np.float32)
WHO = principal("u", "acme")
# As the server 1.39 said them: of a node that was lost, of one that had just come back, and of one that is alone.
UNSETTLED = [
    '{"error":[{"message":"deadline exceeded for waiting for update: version got=150  want=199"}]}',
    '{"allowed":null,"error":[{"message":"rpc error: code = Canceled desc = grpc: the client connection is closing"}]}',
    '{"error":[{"message":"rpc error: code = Internal desc = leader not found"}]}',
    '{"error":[{"message":"updating schema: node is not the leader"}]}',
    '{"error":[{"message":"leadership lost while committing log"}]}',
]
TOO_FEW = "init sharding state: could not find enough weaviate nodes for replication: 1 available, 3 requested"
KNOWN = [
    *[(said, "unavailable", "do not agree yet") for said in UNSETTLED],
    (TOO_FEW, "unavailable", "replication_factor"),
    ("cannot achieve consistency level \"QUORUM\": cannot reach enough replicas", "unavailable", "consistency"),
    ("explorer: list class: search: could not find class Nope in schema", "not_provisioned", "provision"),
    ('{"allowed":null,"error":[{"message":"class \\"Nope\\": not found"}]}', "not_provisioned", "provision"),
    ("updating schema: TYPE_ADD_TENANT: class not found", "not_provisioned", "provision"),
    ("rpc error: code = Internal desc = class name Test already exists", "conflict", "in the meantime"),
    ('conflict for property "m_num_year": already in use or provided multiple times', "conflict", "in the meantime"),
    ("distance between entrypoint and query node: 8 vs 4: vector lengths don't match", "rejected", "dimension"),
    ("new node has a vector with length 4. Existing nodes have vectors with length 8", "rejected", "dimension"),
    ("class Test does not have named vector other configured", "rejected", "configured name"),
    ("no such prop with name 'm_num_lang' found in class 'Test' in the schema", "rejected", "property"),
    ("tenant not found: \"t_nobody\"", "rejected", "tenant"),
    ("store is read-only", "unavailable", "disk"),
    ("cannot process batch: not enough memory", "unavailable", "memory"),
    ('multi-tenancy is not enabled for class "Nomt"', "rejected", "multi-tenant"),
    ("the dynamic index can only be created when async indexing is enabled", "no_async_indexing", "ASYNC_INDEXING"),
    ("canary of something new", "rejected", "does not recognise"),
]  # fmt: skip


def over_http(said: str, status: int = 422) -> StoreError:
    answer = httpx.Response(status, text=said, request=httpx.Request("POST", "http://127.0.0.1/v1/schema"))
    with pytest.raises(StoreError) as caught:
        _done(answer, write=True)
    return mapped(caught.value, write=True, debug=False, at=AT)  # type: ignore[return-value]


def over_grpc(said: str) -> StoreError:
    class Refused(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNKNOWN

        def details(self):
            return said

    return mapped(Refused(), write=False, debug=False, at=AT)  # type: ignore[return-value]


def of_a_batch(said: str) -> StoreError:
    reply = batch_pb2.BatchObjectsReply()
    reply.errors.add(index=0, error=said)
    with pytest.raises(StoreError) as caught:
        _written(reply, 1)
    return mapped(caught.value, write=True, debug=False, at=AT)  # type: ignore[return-value]


@pytest.mark.parametrize(("said", "code", "words"), KNOWN)
def test_each_answer_has_its_words_whichever_way_it_comes(said, code, words):
    made = [over_http(said), over_http(said, 400), over_grpc(said), of_a_batch(said)]
    for one in made:
        assert words in one.message
        assert "Nope" not in one.message and "canary" not in one.message  # noqa: PT018
        assert (one.__cause__, one.__context__) == (None, None)
    assert {one.code for one in made[:3]} == {code}
    assert made[0].retryable is (code in ("unavailable", "conflict") or words == "tenant")
    if code == "unavailable":
        assert made[3].code == code
        assert over_http(said, 500).message == made[0].message
    if said in UNSETTLED:
        assert made[0].sent == "unknown", "the leader may have applied it"


def test_the_servers_own_words_are_the_cause_where_they_were_asked_for():
    answer = httpx.Response(422, text="its words", request=httpx.Request("POST", "http://127.0.0.1/v1/schema"))
    with pytest.raises(StoreError) as caught:
        _done(answer, write=True)
    assert str(mapped(caught.value, write=True, debug=True, at=AT).__cause__) == "its words"


def test_what_is_wrong_on_a_real_server_is_named(store):
    with v.connect(store.config) as acl:
        acl.scoped(WHO).upsert([Chunk("1", "d", "", E[0], metadata={"year": 1})])

    def refused(ask, **settings):
        config = {**store.with_(**settings), "minimum_grade": "none"}
        with v.connect(config) as acl, pytest.raises(StoreError) as caught:
            ask(acl.scoped(WHO))
        return caught.value.code, caught.value.message

    for ask in (lambda docs: docs.count(), lambda docs: docs.upsert([Chunk("2", "d", "", E[0])])):
        code, said = refused(ask, collection="Nope")
        assert (code, "provision" in said) == ("not_provisioned", True)
    small = np.eye(4, dtype=np.float32)[0]
    for ask in (lambda docs: docs.search(small, 2), lambda docs: docs.upsert([Chunk("2", "d", "", small)])):
        code, said = refused(ask, dimension=4)
        assert (code, "another dimension" in said) == ("rejected", True)
    code, said = refused(lambda docs: docs.search(E[0], 2), vector="other")
    assert (code, "configured name" in said) == ("rejected", True)
    code, said = refused(lambda docs: docs.count(F.lang > 3), metadata={"lang": "number"})
    assert (code, "A property" in said) == ("rejected", True)


class _Meeting:
    """An administrator in whose way another one is: the first answer is *said*, of something that was done."""

    def __init__(self, inner, said, *, does):
        self.inner, self.said, self.does = inner, said, does
        self.close = inner.close

    def ask(self, method, path, body=None, **more):
        if method == "POST" and self.said:
            said, self.said = self.said, ""
            if self.does:
                self.inner.ask(method, path, body)
            raise answers.error_of(answers.answer_for(said), write=True)
        return self.inner.ask(method, path, body, **more)


def operator_of(store, tmp_path, said, *, does):
    settings = {key: one for key, one in store.config["stores"]["main"].items() if key not in ("adapter", "metadata")}
    made = WeaviateOperator(WeaviateConfig.model_validate(settings), {}, tmp_path, debug=False)
    made._admin = _Meeting(made._admin, said, does=does)
    return made


def test_a_collection_that_is_made_twice_is_provisioned(stores, tmp_path):
    store = stores(provision=False)
    operator = operator_of(store, tmp_path, "class name Test already exists", does=True)
    operator.provision()
    assert operator.provision() == ["everything is in place"]
    operator.close()


def test_a_node_that_has_not_heard_of_the_collection_is_asked_again(store, tmp_path):
    operator = operator_of(store, tmp_path, "updating schema: TYPE_ADD_TENANT: class not found", does=False)
    with pytest.raises(StoreError) as caught:
        operator.create("acme")
    assert (caught.value.code, caught.value.retryable, caught.value.sent) == ("unavailable", True, "unknown")
    assert "caught up" in caught.value.message
    assert operator.create("acme") == ["created the tenant acme"]
    operator.close()


class _Behind:
    """A port to a node that does not know the collection; what the leader answers it passes on."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def execute(self, request, timeout):
        if isinstance(request, Find | Tally):
            raise answers.error_of(answers.answer_for("could not find class Test in schema"), write=False)
        return self.inner.execute(request, timeout)


def test_a_node_that_is_behind_its_leader_is_unavailable(store, monkeypatch):
    with v.connect(store.config) as acl:
        docs = acl.scoped(WHO)
        docs.upsert([Chunk("1", "d", "", E[0])])
        ports = acl._stores["main"].ports
        monkeypatch.setitem(ports, "store", _Behind(ports["store"]))
        for ask in (docs.count, lambda: docs.search(E[0]), lambda: docs.upsert([Chunk("2", "d", "", E[0])]),
                    lambda: docs.delete(ids=[("d", "1")])):  # fmt: skip
            with pytest.raises(StoreError) as caught:
                ask()
            assert (caught.value.code, caught.value.retryable, caught.value.sent) == ("unavailable", True, "no")
