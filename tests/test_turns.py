"""Turns of tenants that wait for a store: pure, in threads, and in an event loop. No test waits for time to pass."""

from __future__ import annotations

import asyncio
import linecache
import random
import sys
import threading
from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectoracl
from vectoracl import BusyError, Chunk, StoreError, testing
from vectoracl.engine.core_ports import Sleep
from vectoracl.engine.fair_queue import AsyncFairPort, AsyncGate, FairPort, FairQueue, Gate, Quota
from vectoracl.engine.pipeline import retried
from vectoracl.errors import VectorACLError

TENANTS = "abcd"
WAIT = 30.0
VECTOR = [1.0, 0.0, 0.0]


# --- the queue


@settings(max_examples=300, deadline=None)
@given(
    slots=st.none() | st.integers(1, 4),
    per_tenant=st.none() | st.integers(1, 3),
    steps=st.lists(st.tuples(st.integers(0, 9), st.sampled_from(TENANTS), st.integers(0, 99)), max_size=120),
)
def test_whatever_happens_slots_are_bounded_used_and_given_in_turn(slots, per_tenant, steps):
    woken: list[int] = []
    queue: FairQueue[int] = FairQueue(slots, per_tenant, woken.append)
    holders: list[tuple[str, int]] = []
    waiting: dict[str, deque[int]] = {tenant: deque() for tenant in TENANTS}
    passed: dict[int, Counter[str]] = {}  # of each first waiter that could go: what others were given since

    def full(tenant):
        return per_tenant is not None and sum(one == tenant for one, _ in holders) >= per_tenant

    def given(tenant, number):
        holders.append((tenant, number))
        passed.pop(number, None)
        for other, line in waiting.items():
            if line and other != tenant and not full(other):
                counts = passed.setdefault(line[0], Counter())
                counts[tenant] += 1
                # One request of each other tenant, and one more if that came to its turn before this one waited.
                assert counts[tenant] <= 2

    def follow():
        for following in woken:
            (owner,) = [one for one, line in waiting.items() if following in line]
            assert waiting[owner].popleft() == following  # first come, first served within a tenant
            given(owner, following)
        woken.clear()

    for number, (kind, tenant, pick) in enumerate(steps):
        if kind < 5:
            if queue.enter(tenant, number):
                assert not waiting[tenant] or full(tenant) is False
                given(tenant, number)
            else:
                waiting[tenant].append(number)
            assert not woken
        elif kind < 9 and holders:
            left, token = holders.pop(pick % len(holders))
            queue.leave(left, token)
            follow()
            queue.leave(left, token)  # a second time
            assert not woken
        elif waiting[tenant]:
            gone = waiting[tenant][pick % len(waiting[tenant])]
            waiting[tenant].remove(gone)
            passed.pop(gone, None)
            queue.leave(tenant, gone)
            assert not woken
        assert slots is None or len(holders) <= slots
        assert per_tenant is None or all(count <= per_tenant for count in Counter(one for one, _ in holders).values())
        for one, line in waiting.items():  # no request waits that could have a slot
            assert not line or full(one) or (slots is not None and len(holders) >= slots)
    while holders:
        queue.leave(*holders.pop())
        follow()
    assert not any(waiting.values())
    assert not queue._holders
    assert not queue._turns


@given(
    slots=st.integers(1, 4),
    arrivals=st.lists(st.sampled_from(TENANTS), min_size=1, max_size=40),
    slow=st.integers(0, 40),
)
def test_a_tenant_with_many_waiting_requests_gets_one_per_turn(slots, arrivals, slow):
    """All slots are taken by "slow", which has more requests waiting; then others come."""
    order: list[str] = []
    queue: FairQueue[str] = FairQueue(slots, None, order.append)
    running = [f"slow first {number}" for number in range(slots)]
    assert all(queue.enter("slow", token) for token in running)
    assert not any(queue.enter("slow", f"slow {number}") for number in range(slow))
    assert not any(queue.enter(tenant, f"{tenant} {number}") for number, tenant in enumerate(arrivals))
    for number in range(slots + slow + len(arrivals)):
        token = [*running, *order][number]
        queue.leave(token.split()[0], token)
    names = [one.split()[0] for one in order]
    tenants = [*(["slow"] if slow else []), *dict.fromkeys(arrivals)]
    assert names[: len(tenants)] == tenants  # the first turn has everyone once
    lines = {tenant: [one for one in order if one.split()[0] == tenant] for tenant in tenants}
    expected = []
    while any(lines.values()):
        expected += [line.pop(0) for line in lines.values() if line]
    assert order == expected


# --- the gates


class Held:
    """A port of the memory store whose requests of some tenants wait until they are let go."""

    def __init__(self, api, port, slow):
        self.api, self.port, self.slow = api, port, slow
        self.began: list[str] = []
        self.changed = threading.Condition()
        self.free = False
        port.answer = self.answer_async if api.is_async else self.answer

    def answer(self, request, go):
        with self.changed:
            self.began.append(request.partition)
            self.changed.notify_all()
            if request.partition in self.slow:
                assert self.changed.wait_for(lambda: self.free, WAIT)
        return go()

    async def answer_async(self, request, go):
        self.began.append(request.partition)
        while request.partition in self.slow and not self.free:
            await asyncio.sleep(0)
        return go()

    def let_go(self):
        with self.changed:
            self.free = True
            self.changed.notify_all()


def config(**quota):
    store = {"adapter": "memory", "dimension": 3, "timeout": 60.0, **quota}
    return {"version": 1, "stores": {"main": store}}


@pytest.fixture
def world(make_api, request):
    made = []

    def make(kind, slow=("slow",), **quota):
        api = make_api(kind)
        acl = api.connect(config(**quota))
        made.append(api)
        handles = {tenant: acl.scoped(testing.principal("ann", tenant)).real for tenant in ("slow", "quick", "third")}
        return Held(api, acl.tap(), slow), handles, acl.real

    yield make
    for api in made:
        api.close()


def waiters(queue):
    return sum(map(len, queue._turns.values()))


def in_threads(calls):
    results: list[object] = [None] * len(calls)

    def run(index, call):
        try:
            results[index] = call()
        except VectorACLError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(calls)]
    return threads, results


def arrivals_at(gate):
    """Return a semaphore that counts the requests that begin to wait in *gate*."""
    arrived, enter = threading.Semaphore(0), gate._queue.enter

    def counted(tenant, token):
        entered = enter(tenant, token)
        if not entered:
            arrived.release()
        return entered

    gate._queue.enter = counted
    return arrived


def test_in_threads_another_tenant_is_next_behind_a_slow_one(world):
    port, handles, acl = world("sync", in_flight=2)
    gate = acl._stores["main"].gate
    arrived = arrivals_at(gate)
    turns: list[str] = []

    class Noting(dict):
        def __setitem__(self, token, tenant):
            turns.append(tenant)
            super().__setitem__(token, tenant)

    gate._queue._holders = Noting()
    threads, results = in_threads([lambda: handles["slow"].count()] * 12)
    others, counts = in_threads([handles["quick"].count, handles["third"].count])
    for number, thread in enumerate((*threads, *others)):
        thread.start()
        if number < 2:
            with port.changed:
                assert port.changed.wait_for(lambda number=number: len(port.began) > number, WAIT)
        else:
            assert arrived.acquire(timeout=WAIT)
    assert port.began == ["slow", "slow"]
    port.let_go()
    for thread in (*threads, *others):
        thread.join(WAIT)
    assert turns == ["slow", "slow", "slow", "quick", "third", *["slow"] * 9]
    assert (results, counts) == ([0] * 12, [0, 0])
    assert gate._queue._holders == {}


@pytest.mark.parametrize("quota", [{"in_flight": 2}, {"in_flight": 3, "in_flight_per_tenant": 2}])
def test_in_a_loop_another_tenant_is_next_behind_a_slow_one(world, quota):
    port, handles, acl = world("async", **quota)

    async def work():
        slow = [asyncio.create_task(handles["slow"].count()) for _ in range(12)]
        for _ in range(50):
            await asyncio.sleep(0)
        others = [asyncio.create_task(handles[name].count()) for name in ("quick", "third")]
        for _ in range(50):
            await asyncio.sleep(0)
        if "in_flight_per_tenant" in quota:  # a slot is left that the slow tenant may not take
            assert all(one.done() for one in others)
            assert port.began == ["slow", "slow", "quick", "third"]
        else:
            assert port.began == ["slow", "slow"]
        port.let_go()
        return await asyncio.gather(*slow, *others)

    assert port.api.wait(work()) == [0] * 14
    assert port.began.index("quick") <= 4
    assert port.began.index("third") <= 5
    assert acl._stores["main"].agate._queue._holders == {}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("quota", "tenant", "says"),
    [
        ({"in_flight": 1}, "quick", "if it is set, in_flight;"),
        ({"in_flight_per_tenant": 1}, "slow", "raise in_flight_per_tenant"),
        ({"in_flight": 5, "in_flight_per_tenant": 1}, "slow", "raise in_flight_per_tenant"),
    ],
)
@pytest.mark.parametrize("way", ["in_flight_wait", "timeout"])
def test_a_wait_that_is_over_is_an_error_that_says_what_to_do(world, kind, quota, tenant, says, way):
    limit = {"in_flight_wait": 0.02} if way == "in_flight_wait" else {}
    call = {} if way == "in_flight_wait" else {"timeout": 0.02}
    port, handles, acl = world(kind, **quota, **limit)
    if kind == "sync":
        (thread,), (_,) = in_threads([handles["slow"].count])
        thread.start()
        with port.changed:
            assert port.changed.wait_for(lambda: port.began, WAIT)
        with pytest.raises(BusyError) as caught:
            handles[tenant].count(**call)
        port.let_go()
        thread.join(WAIT)
        queue = acl._stores["main"].gate._queue
    else:

        async def work():
            slow = asyncio.create_task(handles["slow"].count())
            while not port.began:
                await asyncio.sleep(0)
            with pytest.raises(BusyError) as caught:
                await handles[tenant].count(**call)
            port.let_go()
            await slow
            return caught

        caught = port.api.wait(work())
        queue = acl._stores["main"].agate._queue
    error = caught.value
    assert says in str(error)
    assert (error.code, error.sent, error.retryable, error.tenant) == ("busy", "no", True, tenant)
    assert port.began == ["slow"]  # nothing was sent, and not tried again
    assert queue._holders == {}
    assert waiters(queue) == 0


def test_a_busy_request_is_not_repeated_by_the_core():
    calls = []

    def flow():
        calls.append(1)
        raise BusyError("busy", code="busy", sent="no", retryable=True)
        yield Sleep(0.0)

    with pytest.raises(BusyError):
        list(retried(flow))
    assert calls == [1]


@settings(max_examples=60, deadline=None)
@given(
    slots=st.none() | st.integers(1, 3),
    per_tenant=st.integers(1, 2),
    calls=st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(0, 6), st.none() | st.integers(0, 9)), max_size=25),
)
def test_cancelled_at_any_moment_no_slot_is_lost(slots, per_tenant, calls):
    quota = Quota("main", slots, per_tenant, None)
    active: Counter[str] = Counter()

    async def work():
        gate = AsyncGate(quota)

        async def call(tenant, turns):
            token = asyncio.get_running_loop().create_future()
            try:
                await gate.enter(tenant, token, None)
            except BaseException:
                gate.leave(tenant, token)
                raise
            try:
                active[tenant] += 1
                assert active[tenant] <= per_tenant
                assert slots is None or active.total() <= slots
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                active[tenant] -= 1
                gate.leave(tenant, token)

        tasks = [(asyncio.create_task(call(tenant, turns)), stop) for tenant, turns, stop in calls]
        for moment in range(10):
            for task, stop in tasks:
                if stop == moment:
                    task.cancel()
            await asyncio.sleep(0)
        done = await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert all(one is None or isinstance(one, asyncio.CancelledError) for one in done)
        assert gate._queue._holders == {}
        assert waiters(gate._queue) == 0

    asyncio.run(work())


def test_many_threads_never_exceed_the_limits():
    gate = Gate(Quota("main", 3, 2, None))
    active: Counter[str] = Counter()
    lock, worst = threading.Lock(), []

    def work(tenant):
        for _ in range(50):
            token = threading.Event()
            gate.enter(tenant, token, WAIT)
            with lock:
                active[tenant] += 1
                worst.append((active.total(), max(active.values())))
            with lock:
                active[tenant] -= 1
            gate.leave(tenant, token)

    threads = [threading.Thread(target=work, args=(TENANTS[number % 4],), daemon=True) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert len(worst) == 600
    assert max(one for one, _ in worst) <= 3
    assert max(one for _, one in worst) <= 2
    assert gate._queue._holders == {}


def test_a_wait_uses_up_the_calls_own_time():
    gate = Gate(Quota("main", 1, None, None))
    first, second, third = (threading.Event() for _ in range(3))
    gate.enter("a", first, None)
    with pytest.raises(BusyError):
        gate.enter("b", second, 0.01)
    gate.leave("b", second)
    gate.leave("a", first)
    assert gate.enter("b", third, 5.0) == 5.0
    gate.leave("b", third)
    assert gate._queue._holders == {}


@pytest.mark.parametrize("seed", range(5))
def test_interrupted_at_any_moment_no_slot_is_lost(seed):
    """Ctrl-C at a random line, of the gate or of what it calls, in a request of which others wait for the slot."""
    rng = random.Random(seed)
    gate = Gate(Quota("main", 1, None, WAIT))

    waiting: list[tuple[str, threading.Event]] = []

    class Store:
        """While it performs a request, others come and wait for the slot."""

        parallel = 1

        def execute(self, request, timeout):
            if request == "request":
                tracing = sys.gettrace()
                sys.settrace(None)  # those who come to wait are not interrupted
                for tenant in rng.choices(TENANTS, k=rng.randrange(4)):
                    waiting.append((tenant, threading.Event()))
                    assert not gate._queue.enter(*waiting[-1])
                sys.settrace(tracing)
            return request

    def quiet(frame):
        """A line in which nothing is called before its block begins or, for a lock, after it ends: no signal there."""
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        return line == "try:" or line.startswith("with self._lock")

    ports = {"store": Store()}
    lost = handed = 0
    for _ in range(400):
        left = rng.randrange(1, 90)

        def interrupt(frame, event, _):
            nonlocal left
            if event == "line" and frame.f_code.co_filename.endswith("fair_queue.py") and not quiet(frame):
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return interrupt

        sys.settrace(interrupt)
        try:
            FairPort(gate, ports, "a").execute("request", None)
        except KeyboardInterrupt:
            lost += 1
        finally:
            sys.settrace(None)
        for number in range(len(waiting)):  # each gets the slot, and they get it one after the other
            awake = [one for one in waiting if one[1].is_set()]
            assert len(awake) == 1, number
            handed += 1
            waiting.remove(awake[0])
            gate.leave(*awake[0])
        assert waiting == []
        assert gate._queue._holders == {}
        assert not gate._queue._turns
        assert FairPort(gate, ports, "b").execute("next", 1.0) == "next"
    assert lost > 20
    assert handed > 100


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_in_an_outage_those_in_line_hear_of_the_outage(kind):
    quota = Quota("main", 1, None, 0.05)
    away = StoreError("Nothing listens there.", code="unavailable", adapter="some", sent="no", retryable=True)

    class Store:
        parallel = 1

        def execute(self, request, timeout):
            raise away

    class AsyncStore(Store):
        async def execute(self, request, timeout):
            raise away

    def of(error):
        return type(error), error.code, error.sent, error.retryable

    if kind == "sync":
        gate = Gate(quota)
        with pytest.raises(StoreError, match="Nothing listens"):
            FairPort(gate, {"store": Store()}, "a").execute(1, None)
        held = threading.Event()
        gate.enter("b", held, None)
        with pytest.raises(StoreError) as failed:
            FairPort(gate, {"store": Store()}, "a").execute(1, None)
        gate.leave("b", held)
        gate.outage.note(None)
        gate.enter("b", held, None)
        with pytest.raises(BusyError):
            FairPort(gate, {"store": Store()}, "a").execute(1, None)
    else:

        async def work():
            gate = AsyncGate(quota)
            with pytest.raises(StoreError, match="Nothing listens"):
                await AsyncFairPort(gate, {"store": AsyncStore()}, "a").execute(1, None)
            held = asyncio.get_running_loop().create_future()
            await gate.enter("b", held, None)
            with pytest.raises(StoreError) as failed:
                await AsyncFairPort(gate, {"store": AsyncStore()}, "a").execute(1, None)
            gate.outage.note(None)
            with pytest.raises(BusyError):
                await AsyncFairPort(gate, {"store": AsyncStore()}, "a").execute(1, None)
            return failed

        failed = asyncio.run(work())
    assert of(failed.value) == of(away)
    assert "could not be reached" in failed.value.message
    assert away.message not in repr(failed.value)  # it may be another tenant's


# --- what it is built into


def test_without_limits_no_port_is_wrapped(world):
    _, _, acl = world("sync")
    named = acl._stores["main"]
    assert named.gate is None
    assert named.ports_of("acme") is named.ports


def test_a_limit_of_the_adapter_is_the_default_and_the_configuration_overrides_it(world):
    _, _, acl = world("sync")
    named = acl._stores["main"]
    named.opened = vectoracl.adapter_api.Opened(
        named.opened.adapter, named.opened.port, named.opened.aport, in_flight=7, in_flight_wait=9.0
    )
    assert named.quota() == Quota("main", 7, None, 9.0)
    named.config = named.config.model_copy(update={"in_flight": 2, "in_flight_per_tenant": 1, "in_flight_wait": 3.0})
    assert named.quota() == Quota("main", 2, 1, 3.0)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_everything_works_with_one_slot(world, kind):
    port, handles, acl = world(kind, (), in_flight=1, in_flight_per_tenant=1)
    docs, wait = handles["quick"], port.api.wait
    wait(docs.load(Chunk(f"c{n}", "d", "text", VECTOR) for n in range(30)))
    assert len(wait(docs.search(VECTOR, 5))) == 5
    assert wait(docs.narrow().count()) == 30
    assert wait(docs.replace("d", [Chunk("c", "d", "text", VECTOR)])).count == 1
    assert wait(docs.delete(document="d")).count == 1
    assert wait(acl.explain(testing.principal("ann", "quick")))
    gate = acl._stores["main"].gate if kind == "sync" else acl._stores["main"].agate
    assert gate._queue._holders == {}


@pytest.mark.parametrize("bad", [0, -1, True, "2", 1.5])
@pytest.mark.parametrize("key", ["in_flight", "in_flight_per_tenant"])
def test_a_limit_is_a_positive_number(key, bad):
    with pytest.raises(vectoracl.ConfigError):
        vectoracl.VectorACL(config(**{key: bad}))


def test_the_error_is_a_store_error():
    assert issubclass(BusyError, StoreError)
