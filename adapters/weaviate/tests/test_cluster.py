"""A cluster of three nodes: replicas, consistency, and a node that is down."""

from __future__ import annotations

import asyncio
import os
import time

import numpy as np
import pytest

import vectoracl as v
from vectoracl import Chunk, F
from vectoracl.adapter_api.local_servers import start
from vectoracl.errors import StoreError
from vectoracl.testing import principal

from weaviate_support.cluster import cluster

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("VECTORACL_CLUSTER") != "1", reason="not run: nox -s cluster starts three nodes"),
]
E = np.eye(4, dtype=np.float32)
WHO = principal("u", "acme")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    try:
        with cluster(tmp_path_factory.mktemp("cluster")) as running:
            yield running
    except start.MissingServerError as error:
        start.missing(error, pytest.skip, pytest.fail)
        raise


def config(nodes, name, **more):
    settings = nodes.settings(collection=name, replication_factor=3, metadata={"lang": "keyword"}, **more)
    return {"version": 1, "stores": {"main": settings}}


def provisioned(made):
    with v.VectorACL(made) as acl:
        operator = acl.operator()
        soon(operator.provision)
        operator.close()
    return made


def soon(ask):
    """Ask until the nodes that are left have chosen a leader; meanwhile each answer is one that says to ask again."""
    end = time.monotonic() + 120
    while True:
        try:
            return ask()
        except StoreError as error:
            if error.code not in ("unreachable", "unavailable", "timeout") or time.monotonic() > end:
                raise


def until(ask, wanted):
    """Ask until the replica that answers has all that was written; it may lack some of it, and has never more."""
    end = time.monotonic() + 60
    while (found := soon(ask)) != wanted:
        assert found < wanted
        assert time.monotonic() < end, f"{found} of {wanted}"
        time.sleep(0.1)


def chunks(count, name="c"):
    return [Chunk(f"{name}{i}", "d", "word", E[i % 4], metadata={"lang": ("en", "fr")[i % 2]}) for i in range(count)]


@pytest.mark.parametrize("consistency", ["one", "quorum", "all"])
def test_a_result_is_not_complete_where_that_cannot_be_known(nodes, consistency):
    made = provisioned(config(nodes, f"Complete{consistency.capitalize()}", consistency=consistency))
    with v.connect(made) as acl:
        docs = acl.scoped(WHO)
        soon(lambda: docs.upsert(chunks(8)))
        until(lambda: len(docs.search(E[0], 20, where=F.lang != "fr")), 4)
        found = soon(lambda: docs.search(E[0], 20, where=F.lang != "fr"))
        assert not found.complete
        assert "replica" in found.shortfall
        assert {one.rule.id for one in acl.check()["main"].findings}.isdisjoint({"WV017"})
    unsaid = {**made["stores"]["main"]}
    unsaid.pop("replication_factor")
    with v.connect({"version": 1, "stores": {"main": unsaid}}) as acl:
        assert "WV017" in {one.rule.id for one in acl.check()["main"].findings}
        assert acl.scoped(WHO).search(E[0], 20).complete is False, "learnt from the collection"


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_a_node_that_is_down_is_unavailable_or_gone_around(nodes, killed):
    quorum = provisioned(config(nodes, f"DownQuorum{killed}", consistency="quorum"))
    every = provisioned(config(nodes, f"DownAll{killed}", consistency="all"))
    for made in (quorum, every):
        with v.connect(made) as acl:
            soon(lambda acl=acl: acl.scoped(WHO).upsert(chunks(8)))
            soon(lambda acl=acl: acl.scoped(principal("u", "beta")).upsert(chunks(8, "foreign")))
    alone = {**quorum, "stores": {"main": {**quorum["stores"]["main"], "nodes": []}}}
    with v.connect(quorum) as known, v.connect(every) as strict, v.connect(alone) as lone:
        for acl in (known, strict, lone):
            until(acl.scoped(WHO).count, 8)
        nodes.end(0, killed=killed)  # the first address of all three
        try:
            with pytest.raises(StoreError) as caught:
                for _ in range(1000):  # one that is asked to stop still answers for a while
                    lone.scoped(WHO).search(E[0], 3)
                    time.sleep(0.05)
            assert (caught.value.code, caught.value.retryable) == ("unavailable", True)
            docs = known.scoped(WHO)
            until(lambda: len(docs.search(E[0], 20, timeout=10)), 8)
            until(lambda: docs.count(F.lang == "en"), 4)
            assert soon(lambda: docs.upsert(chunks(4, "more"))).count == 4
            until(lambda: asyncio.run(asked(quorum)), 12)
            # "all" are the nodes that are known to be up: this is refused only until the others have noticed.
            assert soon(lambda: strict.scoped(WHO).upsert(chunks(4, "more"))).count == 4
        finally:
            nodes.begin(0)
        # The node that was down lacks what was written meanwhile until it has caught up, and says that it may.
        known = {one.id for one in (*chunks(8), *chunks(4, "more"))}
        caught_up(lone.scoped(WHO), v.Lexical("word"), known)
        # Weaviate 1.39 does not keep all of its vector index when it is killed, and says nothing of it: we do.
        caught_up(lone.scoped(WHO), E[0], known, at_least=0 if killed else 8)


def caught_up(docs, query, known, at_least=8):
    """Ask until *at_least* hits come; every answer says that it may lack some, and holds only what is *known*."""
    end = time.monotonic() + 120
    while True:
        found = soon(lambda: docs.search(query, 20))
        assert not found.complete
        assert found.shortfall
        assert {hit.id for hit in found} <= known
        assert {hit.tag.tenant for hit in found} <= {"acme"}
        if len(found) >= at_least:
            return
        assert time.monotonic() < end, f"{len(found)} hits"
        time.sleep(0.2)


async def asked(made):
    async with v.aconnect(made) as acl:
        return len(await acl.scoped(WHO).search(E[0], 20))
