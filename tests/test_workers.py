"""Threads for what may wait: calls, limits, and an end of the process that waits for none of them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time

import pytest

from vectoracl._util import worker_threads
from vectoracl._util.worker_threads import LateError, Workers

HANGS = """
import threading, vectoracl
from vectoracl import testing

class Policy:
    version = None

    def decide(self, principal, action):
        threading.Event().wait()

acl = vectoracl.connect({"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 2}}}, policy=Policy())
try:
    acl.scoped(testing.principal("ann", "acme")).count(timeout=0.1)
except vectoracl.StoreError as error:
    print(error.code)
acl.close()
"""


def test_a_policy_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "timeout"), done.stderr


def test_calls_that_hang_leave_threads_for_others() -> None:
    made, go, hanging = Workers(), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        hanging.release()
        go.wait()

    def hangs() -> None:
        with pytest.raises(LateError):
            made.call(hang, 1.0)
        assert hanging.acquire(timeout=10)

    callers = [threading.Thread(target=hangs) for _ in range(worker_threads._MOST - 1)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    for number in range(50):
        assert made.call(lambda number=number: number, 10) == number
    hangs()
    run: list[str] = []
    with pytest.raises(LateError):
        made.call(lambda: run.append("late"), 0.01)  # no thread is left; it is not made up for later
    with pytest.raises(LateError):
        asyncio.run(made.acall(lambda: run.append("late"), 0.01))
    go.set()
    assert made.call(lambda: "again", 10) == "again"
    made.close()
    assert run == []


def test_what_a_call_raises_and_sees() -> None:
    made, variable = Workers(), contextvars.ContextVar("variable", default="none")
    variable.set("the caller's")
    assert made.call(variable.get, 10) == "the caller's"
    assert asyncio.run(made.acall(lambda: "asynchronous", None)) == "asynchronous"
    with pytest.raises(KeyError):
        made.call(lambda: {}["absent"], 10)
    with pytest.raises(SystemExit):
        made.call(sys.exit, 10)
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        made.call(time.time, 10)


def alive() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("vectoracl-few")]


def used_by_many() -> None:
    made = Workers("vectoracl-few")

    def called() -> None:
        for number in range(20):
            assert made.call(lambda number=number: number, 10) == number

    callers = [threading.Thread(target=called) for _ in range(40)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert 1 <= len(alive()) <= worker_threads._MOST
    assert all(one.daemon for one in alive())


def test_many_callers_use_few_threads_that_end_with_them() -> None:
    used_by_many()
    gc.collect()
    deadline = time.monotonic() + 10
    while alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive()
