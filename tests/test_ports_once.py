"""The ports of a store: made once, whoever asks, and all of them closed, whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import pytest

import vectoracl
from vectoracl import ClosedError, StoreError


def counted(acl, store="main", *, delay=0.1):
    """Count the ports that are made and closed; making one takes *delay* seconds, as opening a pool may."""
    made, closed = [], []
    opened = acl._named(store).opened

    def counting(make):
        def slow():
            time.sleep(delay)
            port = make()
            made.append(port)
            end = port.close

            def close():
                closed.append(port)
                return end()

            port.close = close
            return port

        return slow

    for kind in ("port", "aport"):
        object.__setattr__(opened, kind, counting(getattr(opened, kind)))
    return made, closed


def test_threads_that_check_at_once_make_one_port(config):
    acl = vectoracl.VectorACL(config)
    made, closed = counted(acl)
    together = threading.Barrier(6)
    found = []

    def use(number):
        together.wait()
        found.append(acl.check() if number % 2 else acl.open())

    threads = [threading.Thread(target=use, args=(number,)) for number in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    acl.close()
    assert (len(found), len(made), closed) == (6, 1, made)


def test_tasks_that_check_at_once_make_one_port(config):
    async def main():
        acl = vectoracl.AsyncVectorACL(config)
        made, closed = counted(acl)
        await asyncio.gather(*(acl.check() if number % 2 else acl.open() for number in range(6)))
        await acl.close()
        return made, closed

    made, closed = asyncio.run(main())
    assert len(made) == 1
    assert closed == made


def test_a_check_that_is_cancelled_leaves_no_port_behind(config):
    async def main():
        acl = vectoracl.AsyncVectorACL(config)
        made, closed = counted(acl)
        checking = asyncio.create_task(acl.check())
        await asyncio.sleep(0.02)
        checking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await checking
        await acl.close()
        return made, closed

    made, closed = asyncio.run(main())
    assert closed == made


def test_a_close_in_the_middle_of_a_check_leaves_no_port_behind(config):
    acl = vectoracl.VectorACL(config)
    made, closed = counted(acl)

    def check():
        with contextlib.suppress(ClosedError):
            acl.check()

    threads = [threading.Thread(target=check) for _ in range(2)]
    for one in threads:
        one.start()
    time.sleep(0.02)
    acl.close()
    for one in threads:
        one.join()
    assert closed == made
    with pytest.raises(ClosedError):
        acl.check()


@pytest.mark.parametrize("debug", [False, True])
def test_all_ports_are_closed_and_the_first_error_is_raised(api, who, config, debug):
    config["stores"] |= {name: dict(config["stores"]["main"]) for name in ("eu", "us")}
    config |= {"default_store": "main", "debug_errors": debug, "tenants": {"store": {"acme": "eu", "globex": "us"}}}
    acl = api.connect(config)
    for tenant in ("acme", "globex", "other"):
        acl.scoped(who(tenant)).count()
    tried = []

    def broken(name, error):
        def close():
            tried.append(name)
            if error is not None:
                raise error

        async def aclose():
            close()

        return aclose if api.is_async else close

    for name, error in (("main", None), ("eu", ValueError("canary")), ("us", StoreError("gone"))):
        named = acl.real._named(name)
        (named.aport if api.is_async else named.port).close = broken(name, error)
    ended = []
    acl.real.sink.close = lambda: ended.append(True)
    with pytest.raises(StoreError, match="'eu' could not be closed") as caught:
        acl.close()
    assert sorted(tried) == ["eu", "main", "us"]
    assert ended == [True]
    assert caught.value.code == "close"
    assert isinstance(caught.value.__cause__, ValueError) is debug
    assert any("gone" in note for note in caught.value.__notes__)
    assert "canary" not in f"{caught.value}{caught.value.__notes__}"
    acl.close()
    assert len(tried) == 3
