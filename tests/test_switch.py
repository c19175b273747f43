"""A tenant that is switched to another store loses nothing, doubles nothing, and is never answered by two stores."""

import asyncio
import json
import os
import signal
import threading
import time
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import vectoracl as v
from tests.switch_world import ANN, REASON, interleaved, rows
from vectoracl import Chunk, hazmat, testing
from vectoracl.access.policy import Decision
from vectoracl.access.scope import Grant, Scope
from vectoracl.audit.sinks import MemorySink
from vectoracl.cli.app import app
from vectoracl.copying import mirror, switch
from vectoracl.copying.switch import Switch
from vectoracl.engine import routes as routing
from vectoracl.engine.routes import Routes
from vectoracl.errors import BusyError, ConfigError, InvalidInputError, PostureError, RefusedError, StoreError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.records import Record

DRAWN = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


def config(tmp_path, names, **more):
    stores = {
        one: {"adapter": "memory", "name": names[one], "dimension": 2, "metadata": {"year": "number"}} for one in names
    }
    tenants = {"routes": str(tmp_path / "routes"), **more.pop("tenants", {})}
    return {"version": 1, "default_store": "old", "stores": stores, "tenants": tenants, **more}


@pytest.fixture
def names():
    return {"old": uuid.uuid4().hex, "new": uuid.uuid4().hex}


@pytest.fixture
def made(tmp_path, names):
    return config(tmp_path, names)


@pytest.fixture
def acl(made):
    with v.VectorACL(made) as acl:
        acl.routes.create()
        yield acl


def chunks(count, document="d", word="text"):
    return [Chunk(f"c{n}", f"{document}{n % 5}", f"{word} {n}", [1.0, n], n, {"year": 2000 + n}) for n in range(count)]


def test_a_tenant_is_switched_and_every_process_follows(acl, made):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(30))
    before = rows(acl, "old")
    with v.VectorACL(made) as other:
        theirs = other.scoped(ANN)
        assert theirs.count() == 30
        result = Switch(acl, "acme", "new", reason=REASON).run()
        assert (result.written, result.deleted, result.comparison.same) == (30, 0, True)
        assert rows(acl, "new") == rows(acl, "old") == before
        # A handle that was made before follows, in this process and in others.
        for one in (handle, theirs):
            one.upsert([Chunk("more", f"by {id(one)}", "text", [1.0, 1.0])])
        assert handle.count() == theirs.count() == 32
        assert rows(acl, "old") == before
        assert [acl.store_of("acme"), acl.store_of("globex")] == ["new", "old"]
    # Nothing is removed from the former store before that is asked for.
    assert Switch(acl, "acme", "new", reason=REASON).run().comparison is None
    assert rows(acl, "old") == before
    Switch(acl, "acme", "new", reason=REASON).remove_former()
    assert rows(acl, "old") == []
    assert handle.count() == 32


def test_back_and_forth(acl):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(8))
    for number, to in enumerate(["new", "old", "new"]):
        Switch(acl, "acme", to, reason=REASON).run()
        handle.upsert([Chunk("late", f"d{number}", "late", [1.0, 0.0])])
        handle.delete(ids=[("d0", "c0")])
        assert (acl.store_of("acme"), handle.count()) == (to, 8 + number)


def test_a_plan_writes_nothing(acl, names):
    acl.scoped(ANN).upsert(chunks(7))
    planned = Switch(acl, "acme", "new", reason=REASON).plan()
    assert (planned.former, planned.to, planned.rows, planned.step) == ("old", "new", 7, "new")
    assert rows(acl, "new") == []
    assert acl.routes.state().tenants == {}
    with v.VectorACL(config_of_one(names["old"])) as unaware:
        assert unaware.scoped(ANN).count() == 7  # not marked yet


def config_of_one(name):
    return {"version": 1, "stores": {"main": {"adapter": "memory", "name": name, "dimension": 2}}}


def test_a_process_without_the_routes_is_refused(acl, names, tmp_path):
    acl.scoped(ANN).upsert(chunks(3))
    Switch(acl, "acme", "new", reason=REASON).run()
    with v.VectorACL(config_of_one(names["old"])) as unaware, pytest.raises(PostureError, match=r"\[tenants\] routes"):
        unaware.scoped(ANN).search([1.0, 0.0])
    with v.VectorACL(config(tmp_path / "elsewhere", names)) as astray:
        with pytest.raises(ConfigError, match="cannot be read"):
            astray.scoped(ANN)
        astray.routes.create()
        with pytest.raises(PostureError, match=r"\[tenants\] routes"):
            astray.scoped(ANN).search([1.0, 0.0])


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"vectoracl_routes":1,"id":"a","epoch":0,"tenants":{"a":1}}', None]
)
def test_lost_routes_refuse_everything(acl, content):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(3))
    path = acl.routes.folder / "routes.json"
    path.unlink() if content is None else path.write_bytes(content)
    for call in (handle.count, lambda: handle.upsert(chunks(1)), lambda: acl.scoped(ANN), lambda: acl.store_of("acme")):
        with pytest.raises(ConfigError, match="nothing was done"):
            call()


def test_other_routes_in_the_place_of_the_lost_ones_are_refused(acl, made):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(3))
    path = acl.routes.folder / "routes.json"
    before = path.read_bytes()
    Switch(acl, "acme", "new", reason=REASON).run()
    switched = path.read_bytes()
    path.unlink()
    with v.VectorACL(made) as late:
        late.routes.create()  # as `provision` does
        with pytest.raises(ConfigError, match="read before"):
            handle.count()  # this process would be led back to the former store
        with pytest.raises(PostureError, match="out of date"):
            late.scoped(ANN).count()
    path.write_bytes(before)
    with pytest.raises(ConfigError, match="older copy"):
        handle.count()
    path.write_bytes(switched)
    assert handle.count() == 3


def test_the_rows_of_the_former_store_are_removed_before_another_switch(tmp_path, names):
    made = config(tmp_path, {**names, "third": uuid.uuid4().hex})
    with v.VectorACL(made) as acl:
        acl.routes.create()
        acl.scoped(ANN).upsert(chunks(3))
        Switch(acl, "acme", "new", reason=REASON).run()
        with pytest.raises(RefusedError, match="--to new --remove-former"):
            Switch(acl, "acme", "third", reason=REASON).run()
        Switch(acl, "acme", "new", reason=REASON).remove_former()
        Switch(acl, "acme", "third", reason=REASON).run()
        assert acl.scoped(ANN).count() == 3
        assert [len(rows(acl, one)) for one in ("old", "new", "third")] == [0, 3, 3]


@pytest.mark.parametrize(("name", "mode"), [("routes.json", 0o666), (".", 0o777)])
def test_routes_that_others_can_write_are_refused(acl, name, mode):
    (acl.routes.folder / name).chmod(mode)
    with pytest.raises(ConfigError, match="others can write"):
        acl.scoped(ANN)


# Interruptions


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("place", ["begin", "flip", "update", "compared", "mark", "settle"])
def test_after_any_interruption_the_same_call_continues(acl, monkeypatch, place, after):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(40))
    homes = {"update": mirror.Mirror, "compared": switch.Planner}
    home = homes.get(place, Routes)
    if place in ("mark", "settle"):
        home, place = Switch, {"mark": "_mark", "settle": "_copy"}[place]
    method = getattr(home, place)

    def interrupted(self, *args, **given):
        if after:
            method(self, *args, **given)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(home, place, interrupted)
        with pytest.raises(Killed):
            Switch(acl, "acme", "new", reason=REASON, batch=7).run()
    flipped = (place, after) == ("flip", True)
    assert acl.store_of("acme") == ("new" if flipped else "old")
    # It is served and written to, as if nothing had been begun.
    assert handle.count() == 40
    handle.upsert([Chunk("late", "d1", "late", [1.0, 0.0])])
    handle.delete(ids=[("d0", "c0")])
    Switch(acl, "acme", "new", reason=REASON).run()
    assert acl.store_of("acme") == "new"
    assert handle.count() == 40
    assert len(handle.fetch([("d1", "late")])) == 1
    if not flipped:
        assert rows(acl, "new") == rows(acl, "old")


def test_a_switch_is_given_up(acl, monkeypatch):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(10))
    work = Switch(acl, "acme", "new", reason=REASON)
    with pytest.raises(RefusedError, match=r"No switch.*--dry-run"):
        work.abort()
    with monkeypatch.context() as patch:
        patch.setattr(Routes, "flip", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            work.run()
    assert len(rows(acl, "new")) == 10
    with pytest.raises(RefusedError, match=r"no former store.*--dry-run"):
        work.remove_former()
    assert work.abort() == 10
    assert (rows(acl, "new"), acl.store_of("acme"), handle.count()) == ([], "old", 10)
    assert work.run().comparison.same


# Refusals


def test_a_switch_that_cannot_be_exact_is_refused(acl, tmp_path, names):
    acl.scoped(ANN).upsert(chunks(3))
    with pytest.raises(ConfigError, match="no store 'else'"):
        Switch(acl, "acme", "else", reason=REASON)
    for stall in (0, 26, float("nan")):
        with pytest.raises(InvalidInputError, match="stall"):
            Switch(acl, "acme", "new", reason=REASON, stall=stall)
    hazmat.operate(acl, store="new", reason=REASON).write("acme", [])
    with v.VectorACL(config(tmp_path, {**names, "old": names["new"], "new": names["old"]})) as swapped:
        swapped.scoped(testing.principal("bob", "acme")).upsert(chunks(2, "other"))
    with pytest.raises(RefusedError, match=r"holds rows of 'acme' already.*tenants remove acme --store new"):
        Switch(acl, "acme", "new", reason=REASON).run()
    assert acl.routes.state().tenants == {}
    shared = config(tmp_path, names, tenants={"shared": ["public"]})
    with v.VectorACL(shared) as shared, pytest.raises(RefusedError, match="shared tenants"):
        Switch(shared, "globex", "new", reason=REASON).run()
    with v.VectorACL(config_of_one(names["old"])) as without, pytest.raises(RefusedError, match="names no routes"):
        Switch(without, "acme", "main", reason=REASON)
    with pytest.raises(ConfigError, match=r"not possible with .*Remove one of them"):
        v.VectorACL(config(tmp_path, names, registry={"default_label": "all"}))


def test_one_switch_at_a_time(acl):
    acl.scoped(ANN).upsert(chunks(3))
    with acl.routes.switching(), pytest.raises(RefusedError, match="Another switch is running"):
        Switch(acl, "acme", "new", reason=REASON).run()


def test_a_handle_inside_a_transaction_is_refused(acl):
    with pytest.raises(RefusedError, match="routes"):
        acl.scoped(ANN).with_driver(object())


def test_a_target_that_changes_rows_is_never_routed_to(acl, monkeypatch):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(9))
    write = hazmat.Operated.write

    def without_one(self, tenant, records, **given):
        return write(self, tenant, [one for one in records if one.tag.chunk != "c3"], **given)

    monkeypatch.setattr(hazmat.Operated, "write", without_one)
    with pytest.raises(StoreError, match="d3 / c3: missing") as caught:
        Switch(acl, "acme", "new", reason=REASON).run()
    assert caught.value.code == "differs"
    assert (acl.store_of("acme"), handle.count()) == ("old", 9)


# Time


def test_writes_wait_and_reads_do_not(acl, monkeypatch):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(5))
    acl.routes.begin("acme", "new", wait=5)
    done = []
    with acl.routes.frozen("acme", time.monotonic() + 5):
        writer = threading.Thread(target=lambda: done.append(handle.upsert([Chunk("w", "d", "t", [1.0, 0.0])])))
        writer.start()
        time.sleep(0.2)
        assert not done
        assert handle.count() == 5
        acl.scoped(testing.principal("bob", "globex")).upsert(chunks(2))  # other tenants write
        monkeypatch.setattr(routing, "WAIT", 0.05)
        with pytest.raises(BusyError, match="being switched") as caught:
            handle.delete(document="d0")
        assert (caught.value.sent, caught.value.tenant) == ("no", "acme")
        assert not done
    writer.join(10)
    assert done[0].count == 1
    assert handle.count() == 6


def test_writes_of_the_operator_wait_too(made, monkeypatch):
    for store in made["stores"].values():
        store["expiring"] = True
    with v.VectorACL(made) as acl:
        acl.routes.create()
        acl.scoped(ANN).upsert(chunks(5))
        acl.routes.begin("acme", "new", wait=5)
        operated = hazmat.operate(acl, store="old", reason=REASON)
        found = operated.read("acme", 1).hits[0]
        writes = (
            lambda: operated.clear("acme"),
            lambda: operated.sweep("acme"),
            lambda: operated.delete("acme", "d0"),
            lambda: operated.write("acme", [Record(found.tag, found.text, found.vector, found.metadata)]),
        )
        monkeypatch.setattr(routing, "WAIT", 0.05)
        with acl.routes.frozen("acme", time.monotonic() + 5):
            for write in writes:
                with pytest.raises(BusyError, match="being switched"):
                    write()
            assert operated.count("acme") == 5
            hazmat.operate(acl, store="new", reason=REASON).clear("acme")  # as the switch does
        for write in writes[1:]:
            write()
        assert operated.clear("acme") == 5
        with acl.routes.frozen("acme", time.monotonic() + 0.1):  # the locks are free again
            pass


def test_a_write_in_flight_holds_the_switch_up_and_not_the_others(acl, monkeypatch):
    acl.scoped(ANN).upsert(chunks(5))
    acl.routes.begin("acme", "new", wait=5)
    hold = acl.routes.enter("acme", "old", write=True)
    with pytest.raises(StoreError, match="--stall"), acl.routes.frozen("acme", time.monotonic() + 0.05):
        pass
    acl.scoped(ANN).upsert(chunks(6))
    hold.release()
    with acl.routes.frozen("acme", time.monotonic() + 5):
        assert acl.routes.enter("acme", "old", write=True) is None
    # Calls that began before the switch are waited for, too, and new ones are not held back by that.
    monkeypatch.setattr(switch, "_WAIT", 0.05)
    early = acl.routes.enter("globex", "old", write=False)
    acl.scoped(testing.principal("bob", "globex")).upsert(chunks(5))
    with pytest.raises(StoreError, match="have not ended yet"):
        Switch(acl, "globex", "new", reason=REASON).run()
    assert acl.scoped(testing.principal("bob", "globex")).count() == 5
    early.release()
    Switch(acl, "globex", "new", reason=REASON).run()
    assert acl.store_of("globex") == "new"


def test_a_write_that_does_not_end_is_tried_three_times(acl, monkeypatch):
    acl.scoped(ANN).upsert(chunks(5))
    acl.routes.begin("acme", "new", wait=5)
    hold = acl.routes.enter("acme", "old", write=True)
    tried = []
    frozen = Routes.frozen
    monkeypatch.setattr(Routes, "frozen", lambda *given: tried.append(given) or frozen(*given))
    with pytest.raises(StoreError, match="more time") as caught:
        Switch(acl, "acme", "new", reason=REASON, stall=0.05).run()
    assert (caught.value.code, len(tried), acl.store_of("acme")) == ("stall", 3, "old")
    hold.release()
    assert Switch(acl, "acme", "new", reason=REASON).run().comparison.same


def test_the_steps_of_a_switch_are_recorded(made, monkeypatch):
    sink = MemorySink()
    with v.VectorACL(made, sink=sink) as acl:
        acl.routes.create()
        acl.scoped(ANN).upsert(chunks(5))
        with monkeypatch.context() as patch:
            patch.setattr(Routes, "flip", lambda *_: (_ for _ in ()).throw(Killed))
            with pytest.raises(Killed):
                Switch(acl, "acme", "new", reason=REASON).run()
        Switch(acl, "acme", "new", reason=REASON).abort()
        Switch(acl, "acme", "new", reason=REASON).run()
        begin, end = "hazmat.tenants.switch.begin", "hazmat.tenants.switch.flip"
        steps = [one for one in sink.records if one["action"].startswith("hazmat.tenants.switch.")]
        assert [one["action"] for one in steps] == [begin, end, "hazmat.tenants.switch.abort", begin, end]
        assert {(*one["partitions"], one["store"], *one["reasons"]) for one in steps} == {("acme", "new", REASON)}
        outcomes = {one["decision"]: one["outcome"] for one in sink.outcomes}
        assert [outcomes[one["id"]] for one in steps] == ["ok", "cancelled", "ok", "ok", "ok"]

        def failing(record):
            if record["action"] == end:
                raise OSError

        monkeypatch.setattr(sink, "write", failing)
        with pytest.raises(StoreError) as caught:  # what cannot be recorded is not done
            Switch(acl, "acme", "old", reason=REASON).run()
        assert (caught.value.code, acl.store_of("acme")) == ("audit", "new")


def test_a_catch_up_that_takes_too_long_lets_the_writes_continue(acl, monkeypatch):
    handle = acl.scoped(ANN)
    handle.upsert(chunks(200))
    read = hazmat.Operated.read

    def slow(self, *args):
        time.sleep(0.02)
        return read(self, *args)

    monkeypatch.setattr(hazmat.Operated, "read", slow)
    with pytest.raises(StoreError, match="more time") as caught:
        Switch(acl, "acme", "new", reason=REASON, stall=0.1, batch=20).run()
    assert (caught.value.code, caught.value.retryable, acl.store_of("acme")) == ("stall", True, "old")
    handle.upsert([Chunk("late", "d1", "late", [1.0, 0.0])])
    assert Switch(acl, "acme", "new", reason=REASON, batch=20).run().comparison.source_rows == 201


def test_rows_of_the_former_store_are_kept_while_a_call_reads_them(acl, monkeypatch):
    acl.scoped(ANN).upsert(chunks(5))
    acl.routes.begin("acme", "new", wait=5)
    reading = acl.routes.enter("acme", "old", write=False)
    work = Switch(acl, "acme", "new", reason=REASON)
    work.run()
    monkeypatch.setattr(switch, "_WAIT", 0.05)
    with pytest.raises(StoreError, match="have not ended yet"):
        work.remove_former()
    assert len(rows(acl, "old")) == 5
    reading.release()
    work.remove_former()
    assert rows(acl, "old") == []


@pytest.mark.parametrize("release", ["parent", "child"])
def test_a_forked_process_neither_keeps_a_lock_nor_releases_it(acl, release):
    acl.routes.begin("acme", "new", wait=5)
    hold = acl.routes.enter("acme", "old", write=True)
    ready, written = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if release == "child":
                hold.release()
            os.write(written, b"x")
            time.sleep(60)
        finally:
            os._exit(0)
    try:
        os.read(ready, 1)
        if release == "parent":
            hold.release()
            with acl.routes.frozen("acme", time.monotonic() + 0.1):
                pass
        else:
            with pytest.raises(StoreError, match="have not ended"), acl.routes.frozen("acme", time.monotonic() + 0.1):
                pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(written)
    hold.release()


# Interleavings


class Neighbour:
    """A policy by which globex also writes to acme."""

    version = "1"

    def decide(self, principal, action):
        partition = "acme" if principal.id == "neighbour" else principal.tenant
        return Decision(permit=True, scope=Scope((Grant(partition, ALWAYS),)), reasons=("a test",), policy_version="1")


def test_a_principal_of_another_tenant_does_not_read_the_former_store(made):
    with v.VectorACL(made, policy=Neighbour()) as acl:
        acl.routes.create()
        acl.scoped(ANN).upsert(chunks(5))
        neighbour = acl.scoped(testing.principal("neighbour", "globex"))
        assert neighbour.count() == 5  # the decision is cached now
        Switch(acl, "acme", "new", reason=REASON).run()
        for call in (neighbour.count, lambda: neighbour.upsert(chunks(1)), lambda: neighbour.search([1.0, 0.0])):
            with pytest.raises(RefusedError, match="two stores"):
                call()


@DRAWN
@given(seed=st.integers(0, 10**6))
def test_no_write_is_lost_or_doubled_through_switches(tmp_path_factory, seed):
    made = config(tmp_path_factory.mktemp("routes"), {"old": uuid.uuid4().hex, "new": uuid.uuid4().hex})
    with v.VectorACL(made) as acl:
        acl.routes.create()
        acl.scoped(ANN).upsert([Chunk("first", "w0-0", "first", [1.0, 0.0])])
        acl.scoped(ANN).delete(document="w0-0")
        interleaved(acl, made, seed, ["new", "old", "new"], beside=0.03)


def test_async_handles_follow(acl, made):
    acl.scoped(ANN).upsert(chunks(10))

    async def work():
        async with v.AsyncVectorACL(made) as other:
            handle = other.scoped(ANN)
            assert await handle.count() == 10
            running = asyncio.to_thread(Switch(acl, "acme", "new", reason=REASON).run)
            switching = asyncio.ensure_future(running)
            number = 0
            while not switching.done():
                await handle.upsert(Chunk(f"a{number}", "async", "t", [1.0, 0.0]) for _ in range(1))
                number += 1
                assert await handle.count() == 10 + number
                await asyncio.sleep(0)
            await switching
            await handle.upsert([Chunk("after", "async", "t", [1.0, 0.0])])
            assert await handle.count() == 11 + number
            return number + 11

    assert asyncio.run(work()) == len(rows(acl, "new"))
    assert len(rows(acl, "old")) < len(rows(acl, "new"))


# The command


def command(*arguments, code=0):
    result = CliRunner().invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result.output


def test_the_command(tmp_path, names):
    path = tmp_path / "vectoracl.toml"
    stores = "".join(f'[stores.{n}]\nadapter = "memory"\nname = "{names[n]}"\ndimension = 2\n' for n in names)
    path.write_text(f'version = 1\ndefault_store = "old"\n{stores}[tenants]\nroutes = "routes"\n')
    line = ("tenants", "switch", "acme", "--to", "new", "-c", path)
    assert "vectoracl provision" in command(*line, code=2)
    assert "created the routes" in command("provision", "-c", path)
    assert "created the routes" not in command("provision", "-c", path)
    with v.VectorACL(path) as acl:
        acl.scoped(ANN).upsert([Chunk(f"c{n}", "d", "t", [1.0, n]) for n in range(4)])
        assert rows(acl, "new") == []  # opened here too, a memory store outlives the command
        assert "acme (4 rows) from old to new: copy, catch up, route" in command(*line, "--dry-run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(v.VectorACL, "keeps", lambda _, store: store == "old")
            assert "in the memory of this command" in command(*line, code=2)
        assert "acme is served by new now: 4 rows compared" in command(*line)
        assert "already" in command(*line)
        assert acl.scoped(ANN).count() == 4
        refused = command("tenants", "remove", "acme", "--store", "old", "-c", path, "--yes", code=2)
        assert "--remove-former" in refused
        command(*line, "--remove-former", code=2)  # no one was there to confirm it
        assert len(rows(acl, "old")) == 4
        command(*line, "--remove-former", "--yes")
        assert rows(acl, "old") == []
        body = json.loads(command(*line, "--dry-run", "--json"))
        assert (body["plan"]["step"], body["result"]) == ("switched", None)
        assert "Pass one of" in command(*line, "--abort", "--dry-run", code=2)
