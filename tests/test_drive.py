"""The one order of everything, and what the drivers make of errors, cancellation, deadlines and tuples."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vectoracl
from vectoracl import DeniedError, RefusedError, ScopeViolationError, StoreError, VectorACLError
from vectoracl.access.policy import TenantPolicy
from vectoracl.adapter_api.contract import Request, Threaded, together
from vectoracl.adapter_api.operations import Found
from vectoracl.audit.sinks import MemorySink
from vectoracl.engine.core_ports import Sleep
from vectoracl.engine.drivers import arun, confined, run, side_by_side
from vectoracl.engine.pipeline import LONGEST_PAUSE, retried
from vectoracl.model.records import NEVER_EXPIRES, Hit, Tag

V = [1.0, 0.0, 0.0]


@dataclass(frozen=True, slots=True)
class Ask(Request[Any]):
    partition: str | None
    what: Any


@dataclass(frozen=True, slots=True)
class Elsewhere(Request[Any]):
    port: ClassVar[str] = "audit"
    partition: str | None


class Port:
    """Answers by a function; keeps what it was asked and within which time."""

    def __init__(self, answer=lambda request: request.what, parallel=1):
        self.answer = answer
        self.parallel = parallel
        self.asked: list[Any] = []
        self.timeouts: list[float | None] = []

    def execute(self, request, timeout):
        self.asked.append(request)
        self.timeouts.append(timeout)
        return self.answer(request)

    def close(self):
        pass


class AsyncPort(Port):
    async def execute(self, request, timeout):
        await asyncio.sleep(0)
        return Port.execute(self, request, timeout)

    async def close(self):
        pass


@pytest.fixture(params=["sync", "async"])
def drive(request):
    """Drive a flow both ways: drive(flow, answer, parallel=…, timeout=…) -> (result, port)."""

    def both(flow, answer=lambda request: request.what, *, parallel=1, timeout=None, ports=None):
        if request.param == "sync":
            port = Port(answer, parallel)
            both.port = port
            return run(flow, {"store": port, **(ports or {})}, timeout=timeout)
        port = AsyncPort(answer, parallel)
        both.port = port
        return asyncio.run(arun(flow, {"store": port, **(ports or {})}, timeout=timeout))

    both.sync = request.param == "sync"
    return both


def failing(error):
    def answer(request):
        raise error

    return answer


def test_replies_come_back_and_the_flow_returns(drive):
    def flow():
        a = yield from Ask("p", 1)
        b = yield from Ask("p", 2)
        return a + b

    assert drive(flow()) == 3
    assert [one.what for one in drive.port.asked] == [1, 2]


def test_an_error_of_the_port_is_the_flows_to_handle(drive):
    def flow():
        try:
            yield from Ask("p", 1)
        except LookupError:
            return "handled"

    assert drive(flow(), failing(LookupError())) == "handled"

    def careless():
        yield from Ask("p", 1)

    with pytest.raises(LookupError):
        drive(careless(), failing(LookupError()))


@pytest.mark.parametrize("bare", [False, True])
def test_stop_iteration_of_a_port_is_an_error_not_the_result(bare):
    def flow():
        if bare:
            yield Ask("p", 1)
        else:
            yield from Ask("p", 1)
        return "sent"

    for wrap in (lambda one: one, lambda one: confined(one, "p"), lambda one: side_by_side([one, flow()])):
        with pytest.raises(RuntimeError):
            run(wrap(flow()), {"store": Port(failing(StopIteration("rows of another tenant")))})


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: confined(one, "p"), lambda one: retried(lambda: one)])
def test_an_interrupt_closes_the_flow(kind, wrap):
    seen = []

    def flow():
        try:
            yield from Ask("p", 1)
        except Exception:
            seen.append("handled")
        finally:
            seen.append("closed")

    with pytest.raises(kind):
        run(wrap(flow()), {"store": Port(failing(kind()))})
    assert seen == ["closed"]


def test_a_flow_that_yields_while_it_is_closed_does_not_hide_the_interrupt():
    def rude():
        try:
            yield from Ask("p", 1)
        finally:
            yield from Ask("p", 2)

    for wrap in (lambda one: one, lambda one: confined(one, "p"), lambda one: side_by_side([one, rude()])):
        port = Port(failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(wrap(rude()), {"store": port})
        assert [one.what for one in port.asked] == [1]


@pytest.mark.parametrize("parallel", [1, 2, 3, 50])
def test_no_more_requests_of_a_step_are_performed_at_once_than_the_port_allows(parallel):
    class Counting:
        now = most = 0

        async def execute(self, request, timeout):
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.001 * (request.what % 3))
            self.now -= 1
            return request.what

    port = Counting()
    port.parallel = parallel
    flow = together(*(Ask("p", n) for n in range(40)))
    assert asyncio.run(arun(flow, {"store": port})) == tuple(range(40))
    assert port.most == min(parallel, 40)


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_tuples_replies_are_values_and_all_legs_finish(drive, parallel):
    done = []

    def answer(request):
        done.append(request.what)
        if request.what in (1, 3):
            raise LookupError(request.what)
        return request.what

    def flow():
        return (yield tuple(Ask("p", n) for n in range(5)))

    replies = drive(flow(), answer, parallel=parallel)
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert [str(one) if isinstance(one, Exception) else one for one in replies] == [0, "1", 2, "3", 4]

    with pytest.raises(LookupError, match="1"):
        drive(together(*(Ask("p", n) for n in range(5))), answer, parallel=parallel)
    assert drive(together(Ask("p", 0), Ask("p", 2)), answer, parallel=parallel) == (0, 2)
    assert drive(together(), answer) == ()


def test_a_leg_that_is_interrupted_interrupts_all():
    closed = []

    def flow():
        try:
            yield tuple(Ask("p", n) for n in range(3))
        finally:
            closed.append(1)

    def answer(request):
        if request.what == 1:
            raise KeyboardInterrupt
        return request.what

    for parallel in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            run(flow(), {"store": Port(answer, parallel)})
    assert closed == [1, 1]


def test_the_deadline_is_for_the_whole_flow(drive, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("vectoracl.engine.drivers.time.monotonic", lambda: now[0])

    def answer(request):
        now[0] += request.what
        return request.what

    def flow():
        for spent in (1, 2, 3):
            yield from Ask("p", spent)
        return "done"

    assert drive(flow(), answer, timeout=10) == "done"
    assert drive.port.timeouts == [10, 9, 7]
    assert drive(flow(), answer) == "done"
    assert drive.port.timeouts == [None, None, None]
    with pytest.raises(StoreError) as caught:
        drive(flow(), answer, timeout=3)
    assert (caught.value.code, caught.value.sent, len(drive.port.asked)) == ("timeout", "no", 2)


@pytest.mark.parametrize(
    "bad", [Ask("q", 1), Ask(None, 1), (Ask("p", 1), Ask("q", 2)), Elsewhere("p"), (Elsewhere("p"),)]
)
@pytest.mark.parametrize("swallow", [False, True])
def test_confinement(drive, bad, swallow):
    seen = []

    def flow():
        yield from Ask("p", 0)
        try:
            seen.append((yield bad))
        except Exception:
            if not swallow:
                raise
        seen.append((yield Ask("p", 2)))
        return "all"

    with pytest.raises(RefusedError) as caught:
        drive(confined(flow(), "p"))
    assert caught.value.code == "confinement"
    assert [one.what for one in drive.port.asked] == [0]
    assert seen == []


def test_confinement_of_a_flow_that_swallows_even_its_end(drive):
    def flow():
        while True:
            try:
                yield Ask("q", 1)
            except GeneratorExit:
                yield Ask("q", 2)

    with pytest.raises(RefusedError) as caught:
        drive(confined(flow(), "p"))
    assert caught.value.code == "confinement"
    assert drive.port.asked == []


class Wrote(Ask):
    writes = True


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("applied", [True, False])
def test_what_fails_after_a_write_may_have_been_applied(drive, together, applied):
    writes = Wrote("p", "write")

    def flow():
        replies = yield ((writes, Ask("p", "beside")) if together else writes)
        if together and isinstance(replies[0], Exception):
            raise replies[0]
        yield Ask("p", "look")

    def answer(request):
        if request.what == ("look" if applied else "write"):
            raise StoreError("gone", code="unavailable", sent="no", retryable=True)

    clock = Port(lambda request: None) if drive.sync else AsyncPort(lambda request: None)
    with pytest.raises(StoreError) as caught:
        drive(retried(lambda: confined(flow(), "p"), write=True), answer, ports={"clock": clock})
    assert caught.value.sent == ("unknown" if applied else "no")
    # What was certainly not applied is sent again; what may have been is not.
    assert sum(one.what == "write" for one in drive.port.asked) == (1 if applied else 3)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("first", "sent"),
    [
        (StoreError("cut", sent="unknown"), "unknown"),
        (StoreError("full", sent="no"), "no"),
        (DeniedError("outside", action="upsert"), "no"),
        (ValueError("a client's"), "unknown"),
    ],
)
def test_a_write_that_may_have_been_applied_makes_a_later_failure_unknown(drive, grouped, first, sent):
    def flow():
        write, read = Wrote("p", "write"), Ask("p", "look")
        try:
            replies = yield (write, write) if grouped else write
            if isinstance(replies[0], Exception):
                raise replies[0]
        except Exception:
            yield read

    def answer(request):
        raise first if request.what == "write" else StoreError("the time is over", code="timeout", sent="no")

    with pytest.raises(StoreError) as caught:
        drive(confined(flow(), "p"), answer)
    assert caught.value.sent == sent


def test_confinement_passes_on_what_is_inside(drive):
    def flow():
        one = yield Ask("p", 1)
        pair = yield (Ask("p", 2), Ask("p", 3))
        return one, pair

    assert drive(confined(flow(), "p")) == (1, (2, 3))


# A random flow: a list of steps; each is a request, a tuple of requests, or a failure that is handled or not.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("one"), st.integers(0, 9)),
        st.tuples(st.just("many"), st.lists(st.integers(0, 9), max_size=3)),
        st.tuples(st.just("fails"), st.booleans()),
        st.tuples(st.just("raises"), st.just(0)),
    ),
    max_size=4,
)


def made(index, plan):
    trace = []
    for kind, value in plan:
        if kind == "one":
            trace.append((yield from Ask("p", (index, value))))
        elif kind == "many":
            trace.append((yield tuple(Ask("p", (index, one)) for one in value)))
        elif kind == "fails":
            try:
                yield from Ask("p", (index, "fail"))
            except LookupError as error:
                if not value:
                    raise
                trace.append(str(error))
        else:
            raise ValueError(index)
    return trace


def echo(request):
    if request.what[1] == "fail":
        raise LookupError(str(request.what))
    return request.what


@given(st.lists(steps, max_size=4), st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_side_by_side_is_as_one_after_the_other(plans, parallel):
    def one_after_the_other():
        results, errors = [], []
        for index, plan in enumerate(plans):
            try:
                results.append((yield from made(index, plan)))
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return results

    def outcome(call):
        try:
            return call()
        except Exception as error:
            return repr(error)

    def flows():
        return [made(index, plan) for index, plan in enumerate(plans)]

    ports = [Port(echo), Port(echo, parallel), AsyncPort(echo, parallel)]
    wanted = outcome(lambda: run(one_after_the_other(), {"store": ports[0]}))
    assert outcome(lambda: run(side_by_side(flows()), {"store": ports[1]})) == wanted
    assert outcome(lambda: asyncio.run(arun(side_by_side(flows()), {"store": ports[2]}))) == wanted
    assert outcome(lambda: run(side_by_side([confined(one, "p") for one in flows()]), {"store": Port(echo)})) == wanted
    # The same is asked, whatever the order.
    if not isinstance(wanted, str):
        assert (
            sorted(map(repr, ports[0].asked)) == sorted(map(repr, ports[1].asked)) == sorted(map(repr, ports[2].asked))
        )


def test_retry_waits_by_the_clocks_port():
    tries = []

    def flow():
        tries.append(1)
        return (yield from Ask("p", len(tries)))

    def answer(request):
        if request.what < 3:
            raise StoreError("busy", retryable=True)
        return request.what

    clock = Port(lambda request: None)
    assert run(retried(flow), {"store": Port(answer), "clock": clock}) == 3
    assert clock.asked == [Sleep(0.05), Sleep(0.1)]
    tries.clear()
    waiting = AsyncPort(lambda request: None)
    assert asyncio.run(arun(retried(flow), {"store": AsyncPort(answer), "clock": waiting})) == 3
    assert waiting.asked == clock.asked


def test_a_pause_that_the_store_asks_for_is_kept_unless_it_is_long():
    for asked, pauses in ((2.5, [Sleep(2.5)] * 2), (0.07, [Sleep(0.07), Sleep(0.1)]), (-3, [Sleep(0.05), Sleep(0.1)])):
        clock = Port(lambda request: None)
        with pytest.raises(StoreError):
            run(
                retried(iter_ask),
                {"store": Port(failing(StoreError("busy", retryable=True, retry_after=asked))), "clock": clock},
            )
        assert clock.asked == pauses
    long = Port(failing(StoreError("busy", retryable=True, retry_after=LONGEST_PAUSE + 0.1)))
    with pytest.raises(StoreError):
        run(retried(iter_ask), {"store": long, "clock": Port(lambda request: None)})
    assert len(long.asked) == 1


def test_retry_is_for_what_may_be_retried_and_ends():
    for error, expected in ((StoreError("busy", retryable=True), 3), (StoreError("broken"), 1), (LookupError(), 1)):
        port, clock = Port(failing(error)), Port(lambda request: None)
        with pytest.raises(type(error)):
            run(retried(iter_ask), {"store": port, "clock": clock})
        assert len(port.asked) == expected
        assert len(clock.asked) == expected - 1


def iter_ask():
    return (yield from Ask("p", 1))


# --- the order, by what each port was asked ---


class Recorder(MemorySink):
    def __init__(self, trace, broken=None):
        super().__init__()
        self.trace, self.broken = trace, broken

    def write(self, record):
        self.trace.append(f"record {record['action']}")
        if self.broken == "write":
            raise OSError("disk full: canary")
        super().write(record)

    def note(self, outcome):
        self.trace.append(f"outcome {outcome['outcome']}")
        if self.broken == "note":
            raise OSError("disk full: canary")
        super().note(outcome)


class TapePolicy(TenantPolicy):
    def __init__(self, trace):
        super().__init__()
        self.trace = trace

    def decide(self, principal, action):
        self.trace.append(f"decide {action}")
        return super().decide(principal, action)


class TapeEmbedder:
    name = "recorder"
    dimension = 3

    def __init__(self, trace):
        self.trace = trace

    def embed_documents(self, texts):
        self.trace.append(f"embed {len(texts)}")
        return [V for _ in texts]

    embed_queries = embed_documents


def taped(api, trace, broken=None, answer=None):
    acl = api.connect(sink=Recorder(trace, broken), policy=TapePolicy(trace), embedder=TapeEmbedder(trace))
    port = acl.tap()

    def answered(request, go):
        trace.append(f"store {type(request.operation).__name__}")
        return answer(request, go) if answer else go()

    port.answer = answered
    return acl


def test_the_order(api, who, chunk):
    trace: list[str] = []
    docs = taped(api, trace).scoped(who())
    docs.upsert([chunk("c1", vector=None)])
    docs.search("words")
    docs.search_many(["a", "b"])
    docs.count()
    assert trace == [
        "decide upsert", "record upsert", "embed 1", "store Upsert", "outcome ok",
        "decide search", "record search", "embed 1", "store Search", "outcome ok",
        "record search", "embed 2", "store Search", "store Search", "outcome ok",
        "decide count", "record count", "store Count", "outcome ok",
    ]  # fmt: skip


@pytest.mark.parametrize("operation", ["search", "fetch", "count", "page", "upsert", "replace", "delete"])
def test_nothing_is_sent_if_the_record_cannot_be_kept(api, who, chunk, operation):
    trace: list[str] = []
    docs = taped(api, trace, "write").scoped(who())
    calls = {
        "search": lambda: docs.search("words"),
        "fetch": lambda: docs.fetch(["c1"]),
        "count": docs.count,
        "page": docs.page,
        "upsert": lambda: docs.upsert([chunk(vector=None)]),
        "replace": lambda: docs.replace("doc", [chunk(vector=None)]),
        "delete": lambda: docs.delete(document="doc"),
    }
    with pytest.raises(StoreError) as caught:
        calls[operation]()
    assert (caught.value.code, caught.value.sent) == ("audit", "no")
    assert "canary" not in str(caught.value)
    assert [one.split()[0] for one in trace] == ["decide", "record"]


def test_a_sink_that_cannot_note_hides_neither_results_nor_errors(api, who, chunk):
    trace: list[str] = []
    docs = taped(api, trace, "note").scoped(who())
    assert docs.upsert([chunk()]).count == 1
    assert len(docs.search(V)) == 1
    with pytest.raises(DeniedError):
        docs.narrow(actions=["count"]).search(V)


def foreign(**changes):
    tag = Tag("acme", "doc", "c9", 0, "default", 0, NEVER_EXPIRES)._replace(**changes)
    return Hit(tag.chunk, tag.document, 0.5, tag.tenant, 0, "foreign canary", {}, None, tag)


@pytest.mark.parametrize(
    ("error", "outcome", "seen"),
    [
        (None, "ok", None),
        (StoreError("down", code="down"), "error:down", StoreError),
        (DeniedError("no", action="search"), "denied", DeniedError),
        (ValueError("row canary of globex"), "error:internal", StoreError),
        (StopIteration("canary"), "error:internal", StoreError),
        (RecursionError("canary"), "error:internal", StoreError),
        (asyncio.CancelledError(), "cancelled", asyncio.CancelledError),
        ("violation", "violation", ScopeViolationError),
    ],
)
def test_every_decision_has_an_outcome(api, who, chunk, error, outcome, seen):
    if api.is_async and isinstance(error, StopIteration):
        pytest.skip("a coroutine cannot raise StopIteration")
    trace: list[str] = []

    def answer(request, go):
        if isinstance(error, BaseException):
            raise error
        return Found([foreign(tenant="globex")]) if error else go()

    acl = taped(api, trace, answer=answer)
    docs = acl.scoped(who())
    if seen is None:
        docs.search(V)
    else:
        with pytest.raises(seen) as caught:
            docs.search(V)
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert trace[-1] == f"outcome {outcome}"
    assert [one["decision"] for one in acl.outcomes] == [one["id"] for one in acl.records]


def test_debug_errors_show_the_cause(api, who, config):
    acl = api.connect({**config, "debug_errors": True})
    port = acl.tap()

    def answer(request, go):
        raise ValueError("what the client said")

    port.answer = answer
    with pytest.raises(StoreError) as caught:
        acl.scoped(who()).search(V)
    assert "what the client said" not in str(caught.value)
    assert str(caught.value.__cause__) == "what the client said"


def test_an_interrupt_is_an_outcome_too(api, who):
    if api.is_async:
        pytest.skip("an event loop handles Ctrl-C itself")
    acl = api.connect()

    def answer(request, go):
        raise KeyboardInterrupt

    acl.tap().answer = answer
    with pytest.raises(KeyboardInterrupt):
        acl.scoped(who()).search(V)
    assert [one["outcome"] for one in acl.outcomes] == ["cancelled"]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_decisions_and_outcomes_are_equal_in_number_under_cancellation(turns, seed):
    random = Random(seed)

    async def scenario():
        sink = MemorySink()
        config = {
            "version": 1,
            "stores": {"main": {"adapter": "memory", "dimension": 3}},
            "tenants": {"shared": ["commons"]},
        }
        acl = await vectoracl.aconnect(config, sink=sink).open()
        named = acl._named("main")
        inner = named.aport

        class Slow:
            parallel = 4

            async def execute(self, request, timeout):
                for _ in range(random.randint(0, 5)):
                    await asyncio.sleep(0)
                return await inner.execute(request, timeout)

            async def close(self):
                await inner.close()

        named.aport = named.aports["store"] = Slow()
        docs = acl.scoped(vectoracl.Principal("ann", "acme", authenticated_by="test"))
        tasks = []
        for turn in turns:
            tasks.append(
                asyncio.ensure_future(docs.search(V) if turn % 2 else docs.upsert([vectoracl.Chunk("c", "d", "", V)]))
            )
            for _ in range(turn):
                await asyncio.sleep(0)
            tasks[random.randrange(len(tasks))].cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        await acl.close()
        assert all(not isinstance(one, Exception) or isinstance(one, VectorACLError) for one in done)
        assert sorted(one["id"] for one in sink.records) == sorted(one["decision"] for one in sink.outcomes)
        cancelled = sum(isinstance(one, asyncio.CancelledError) for one in done)
        assert sum(one["outcome"] == "cancelled" for one in sink.outcomes) <= cancelled

    asyncio.run(scenario())


def test_a_sync_port_serves_async_callers_from_threads_side_by_side():
    meeting = threading.Barrier(2, timeout=10)

    def meet(request):
        meeting.wait()
        return request.what, threading.current_thread() is threading.main_thread()

    port = Port(meet, parallel=2)
    replies = asyncio.run(arun(together(Ask("t", 1), Ask("t", 2)), {"store": Threaded(port)}, timeout=20))
    assert replies == ((1, False), (2, False))
    assert all(timeout <= 20 for timeout in port.timeouts)
    with pytest.raises(StoreError):
        asyncio.run(arun(iter_once(Ask("t", 3)), {"store": Threaded(Port(failing(StoreError("no"))))}))


def iter_once(request):
    return (yield from request)


def test_a_threaded_port_is_closed_when_its_cancelled_calls_have_ended():
    inside, leave, seen = threading.Event(), threading.Event(), []

    class Slow:
        parallel = 1

        def execute(self, request, timeout):
            inside.set()
            assert leave.wait(10)
            seen.append("ended")
            raise ValueError("nobody waits for this")

        def close(self):
            seen.append("closed")

    async def main():
        port = Threaded(Slow())
        call = asyncio.create_task(port.execute(None, None))
        await asyncio.to_thread(inside.wait, 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        closing = asyncio.create_task(port.close())
        await asyncio.sleep(0.05)
        assert seen == []
        leave.set()
        await closing

    asyncio.run(main())
    assert seen == ["ended", "closed"]
