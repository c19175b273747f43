"""`vectoracl tenants switch` between real stores, also killed with SIGKILL while it holds writes back."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import vectoracl as v
from tests.switch_world import ANN, REASON, interleaved, rows
from vectoracl import Chunk, testing
from vectoracl.copying.switch import Switch
from vectoracl.errors import PostureError

pytest.importorskip("vectoracl_conformance")

from vectoracl.adapter_api.local_servers.start import MissingServerError
from vectoracl_conformance.harness import HarnessError, Needs, load_harness

DIMENSION = 8
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def fresh(stack, name):
    try:
        store = load_harness(name).fresh(Needs(DIMENSION, {"year": "number"}))
    except (HarnessError, MissingServerError) as error:
        fail = pytest.fail if os.environ.get("VECTORACL_REQUIRE_SERVERS") == "1" else pytest.skip
        fail(f"not run: {error}")
    stack.append(store)
    return {**store.config, "metadata": {"year": "number"}}


@pytest.fixture(params=["pgvector", "qdrant"])
def made(request, tmp_path):
    """A configuration with the stores old, of pgvector, and new."""
    stack = []
    stores = {"old": fresh(stack, "pgvector"), "new": fresh(stack, request.param)}
    yield {"version": 1, "default_store": "old", "stores": stores, "tenants": {"routes": str(tmp_path / "routes")}}
    for store in stack:
        store.close()


def some(count, document="d"):
    return [
        Chunk(f"c{n}", f"{document}{n % 5}", f"text {n}", [1.0, n, *[0.5] * (DIMENSION - 2)], n) for n in range(count)
    ]


@pytest.fixture
def acl(made):
    with v.VectorACL(made) as acl:
        acl.routes.create()
        yield acl


def test_no_write_is_lost_or_doubled(acl, made):
    interleaved(acl, made, 7, ["new"], workers=3, beside=1.0, dimension=DIMENSION)


def test_a_tenant_is_switched(acl, made):
    handle, globex = acl.scoped(ANN), acl.scoped(testing.principal("bob", "globex"))
    handle.upsert(some(40))
    globex.upsert(some(5))
    for _ in range(2):
        handle.replace("d1", [Chunk("c1", "d1", "again", [1.0] * DIMENSION)])
    before = rows(acl, "old")
    result = Switch(acl, "acme", "new", reason=REASON, batch=7).run()
    assert result.comparison.same
    assert result.held < 10
    assert [one[:2] for one in rows(acl, "new")] == [one[:2] for one in before]
    handle.replace("d1", [Chunk("c9", "d1", "once more", [1.0] * DIMENSION)])
    assert [hit.text for hit in handle.scan() if hit.document == "d1"] == ["once more"]
    without = {**made, "tenants": {}}
    with v.VectorACL(without) as unaware, pytest.raises(PostureError, match=r"\[tenants\] routes"):
        unaware.scoped(ANN).search([1.0] * DIMENSION)
    Switch(acl, "acme", "new", reason=REASON).remove_former()
    assert (rows(acl, "old"), globex.count()) == ([], 5)


WORKER = """
import json, sys, time
import vectoracl as v
from vectoracl.copying import planning, switch
made, place = json.loads(sys.argv[1]), sys.argv[2]

def stuck(*_, **__):
    print("stuck", flush=True)
    time.sleep(600)

if place == "comparing":
    planning.Planner.compared = stuck
elif place == "copying":
    update = switch.Mirror.update
    switch.Mirror.update = lambda self, seen: update(self, lambda rows: stuck() if rows > 20 else seen(rows))
else:
    flip = switch.Routes.flip
    switch.Routes.flip = lambda self, tenant: (flip(self, tenant), stuck())
with v.VectorACL(made) as acl:
    switch.Switch(acl, "acme", "new", reason="a test of switches", batch=7, stall=20).run()
"""


@pytest.mark.parametrize("place", ["copying", "comparing", "flipped"])
def test_a_killed_switch_holds_nothing_back_and_continues(acl, made, place):
    if place == "flipped" and not acl.keeps("new"):
        pytest.skip("the rows of a store in memory end with the process that wrote them")
    handle = acl.scoped(ANN)
    handle.upsert(some(60))
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, json.dumps(made), place], stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout.readline() == "stuck\n"
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    began = time.monotonic()
    handle.upsert([Chunk("late", "d1", "late", [1.0] * DIMENSION)])
    handle.delete(ids=[("d0", "c0")])
    assert time.monotonic() - began < 20
    assert acl.store_of("acme") == ("new" if place == "flipped" else "old")
    result = Switch(acl, "acme", "new", reason=REASON).run()
    assert (result.comparison is None) == (place == "flipped")
    assert acl.store_of("acme") == "new"
    found = [(hit.document, hit.id) for hit in handle.scan()]
    assert len(found) == len(set(found)) == 60
    assert ("d1", "late") in found
