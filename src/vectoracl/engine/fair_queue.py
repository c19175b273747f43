"""Turns of tenants: who of those that wait for a slot of a store gets the next one.

A store performs a bounded number of requests at a time, for example one on each connection of its pool. Without turns a
tenant that sends many slow requests fills the queue in front of it, and everyone else waits behind them. `FairQueue`
gives a slot that becomes free to the waiting tenants in turn, one request each, and bounds how many slots one tenant
holds. It is pure: the two gates hold it, one under a lock and one in its event loop, and the ports that they wrap are
called with a slot taken.

Invariant: no waiter could have a slot. Every slot that becomes free is handed over at once, so a request that finds a
free slot takes it without overtaking anyone.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any, Generic, TypeVar

from vectoracl.adapter_api.contract import AsyncPort, Port
from vectoracl.errors import BusyError, StoreError

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of one store: requests in flight, of all tenants and of each, and the longest wait in seconds."""

    store: str
    slots: int | None
    per_tenant: int | None
    wait: float | None

    def limit(self, timeout: float | None) -> float | None:
        """Return how long a request with *timeout* may wait."""
        return min((one for one in (self.wait, timeout) if one is not None), default=None)

    def busy(self, tenant: str, *, own: bool, waited: float) -> BusyError:
        """Return the error of a request of *tenant* that waited too long; *own*: for its own limit."""
        if own:
            text = (
                f"This tenant already has {self.per_tenant} requests in flight on the store {self.store!r}, and none "
                f"ended within {waited:.3g} s. Nothing was sent: repeat the call later, make fewer calls concurrently, "
                "or raise in_flight_per_tenant in the configuration."
            )
        else:
            text = (
                f"All {self.slots} requests that the store {self.store!r} performs at a time were in flight for "
                f"{waited:.3g} s. Nothing was sent: repeat the call later, or raise the store's own limit (on pgvector "
                "pool_max) and, if it is set, in_flight; in_flight_per_tenant keeps one tenant from using all of them."
            )
        error = BusyError(text, code="busy", sent="no", retryable=True)
        error.tenant = tenant
        return error


class FairQueue(Generic[W]):
    """Who has a slot, and who waits, by tenant in the order of the turns.

    Each request has a token, by which it enters and leaves. Leaving twice does nothing, and every step can be repeated:
    an interruption (Ctrl-C) may end any of them in the middle, and the next one completes it.
    """

    def __init__(self, slots: int | None, per_tenant: int | None, wake: Callable[[W], object]) -> None:
        self._slots = slots
        self._per_tenant = per_tenant
        self._wake = wake
        self._holders: dict[W, str] = {}
        self._turns: OrderedDict[str, deque[W]] = OrderedDict()

    def enter(self, tenant: str, token: W) -> bool:
        """Take a slot for *token* if one is free, else put it in line; return whether it has one."""
        if (self._slots is None or len(self._holders) < self._slots) and not self.full(tenant):
            self._holders[token] = tenant
            return True
        self._turns.setdefault(tenant, deque()).append(token)
        return False

    def leave(self, tenant: str, token: W) -> None:
        """Free the slot of *token*, or its place in line, and wake those who have a slot now."""
        self._holders.pop(token, None)
        line = self._turns.get(tenant)
        if line is not None and token in line:
            line.remove(token)
        if not line:
            self._turns.pop(tenant, None)
        self._give()

    def full(self, tenant: str) -> bool:
        """Return whether *tenant* has as many slots as one tenant may have."""
        if self._per_tenant is None:
            return False
        return sum(one == tenant for one in self._holders.values()) >= self._per_tenant

    def _give(self) -> None:
        """Give free slots to those who wait. A tenant that gets one is the last in turn then."""
        while self._turns and (self._slots is None or len(self._holders) < self._slots):
            counts = Counter(self._holders.values()) if self._per_tenant is not None else Counter()
            most = self._per_tenant
            tenant = next((one for one in self._turns if most is None or counts[one] < most), None)
            if tenant is None:
                return
            line = self._turns[tenant]
            if line:
                self._wake(line[0])  # first: whoever had a slot and was not woken would wait in vain
                self._holders[line[0]] = tenant
                line.popleft()
            if line:
                self._turns.move_to_end(tenant)
            else:
                del self._turns[tenant]


def _remaining(timeout: float | None, began: float) -> float | None:
    """Return the rest of *timeout* after a wait since *began*. Raises: StoreError with the code "timeout"."""
    if timeout is None:
        return None
    left = timeout - (time.monotonic() - began)
    if left <= 0:
        raise StoreError("The time limit was reached before the request was sent.", code="timeout", sent="no")
    return left


_NOT_REACHED = frozenset({"unavailable", "unreachable", "pool_timeout"})


class _Outage:
    """Whether the last request did not reach the store: more slots would not help those in line.

    Only its code is kept: the request may be another tenant's.
    """

    def __init__(self) -> None:
        self._code = ""

    def note(self, error: Exception | None) -> None:
        """Note how a request ended."""
        self._code = ""
        if isinstance(error, StoreError) and error.sent == "no" and error.code in _NOT_REACHED:
            self._code = error.code

    def instead_of(self, busy: BusyError, store: str) -> StoreError:
        """Return the reason why a request did not get its turn: *busy*, or that *store* cannot be reached."""
        if not self._code:
            return busy
        text = (
            f"The store {store!r} could not be reached by the last request, and this one did not get its turn. Nothing "
            "was sent: repeat the call later, and see that the server is there (`vectoracl check`)."
        )
        return StoreError(text, code=self._code, sent="no", retryable=True)


class Gate:
    """The turns of one store, for threads."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._queue: FairQueue[Event] = FairQueue(quota.slots, quota.per_tenant, Event.set)
        self._lock = Lock()
        self.outage = _Outage()

    def enter(self, tenant: str, token: Event, timeout: float | None) -> float | None:
        """Take a slot, after a wait if necessary; return the rest of *timeout*. *token* has to leave in any case.

        Raises: BusyError, or a StoreError if the last request could not reach the store.
        """
        with self._lock:
            if self._queue.enter(tenant, token):
                return timeout
        began, limit = time.monotonic(), self._quota.limit(timeout)
        if token.wait(limit):
            return _remaining(timeout, began)
        with self._lock:
            own = self._queue.full(tenant)
        busy = self._quota.busy(tenant, own=own, waited=limit or 0.0)
        raise busy if own else self.outage.instead_of(busy, self._quota.store)

    def leave(self, tenant: str, token: Event) -> None:
        """Free the slot of *token*, or its place in line, if it has one."""
        with self._lock:
            self._queue.leave(tenant, token)


class FairPort:
    """The store's port for one tenant: each request takes a slot of the gate."""

    __slots__ = ("_gate", "_ports", "_tenant", "parallel")

    def __init__(self, gate: Gate, ports: Mapping[str, Port], tenant: str) -> None:
        self._gate = gate
        self._ports = ports
        self._tenant = tenant
        self.parallel = ports["store"].parallel

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* as soon as there is a slot. Raises: BusyError, and what the port raises."""
        token = Event()
        try:
            left = self._gate.enter(self._tenant, token, timeout)
            return self._performed(request, left)
        finally:
            try:
                self._gate.leave(self._tenant, token)
            except BaseException:  # an interruption in the middle of it
                self._gate.leave(self._tenant, token)
                raise

    def _performed(self, request: Any, timeout: float | None) -> Any:
        try:
            answer = self._ports["store"].execute(request, timeout)
        except Exception as error:
            self._gate.outage.note(error)
            raise
        self._gate.outage.note(None)
        return answer

    def close(self) -> None:
        """Close the store's port."""
        self._ports["store"].close()


def _woken(token: asyncio.Future[None]) -> None:
    if not token.done():  # else its task was cancelled, and leaves when it runs
        token.set_result(None)


class AsyncGate:
    """The turns of one store, for the tasks of one event loop."""

    def __init__(self, quota: Quota) -> None:
        self._quota = quota
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(quota.slots, quota.per_tenant, _woken)
        self.outage = _Outage()

    async def enter(self, tenant: str, token: asyncio.Future[None], timeout: float | None) -> float | None:
        """Take a slot; see `Gate.enter`."""
        if self._queue.enter(tenant, token):
            return timeout
        began, limit = time.monotonic(), self._quota.limit(timeout)
        try:
            async with asyncio.timeout(limit):
                await token
        except TimeoutError:
            own = self._queue.full(tenant)
            busy = self._quota.busy(tenant, own=own, waited=limit or 0.0)
            failed = busy if own else self.outage.instead_of(busy, self._quota.store)
        else:
            return _remaining(timeout, began)
        raise failed

    def leave(self, tenant: str, token: asyncio.Future[None]) -> None:
        """Free the slot of *token*, or its place in line, if it has one."""
        self._queue.leave(tenant, token)


class AsyncFairPort:
    """`FairPort` for asyncio."""

    __slots__ = ("_gate", "_ports", "_tenant", "parallel")

    def __init__(self, gate: AsyncGate, ports: Mapping[str, AsyncPort], tenant: str) -> None:
        self._gate = gate
        self._ports = ports
        self._tenant = tenant
        self.parallel = ports["store"].parallel

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* as soon as there is a slot. Raises: BusyError, and what the port raises."""
        token: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            left = await self._gate.enter(self._tenant, token, timeout)
            return await self._performed(request, left)
        finally:
            self._gate.leave(self._tenant, token)

    async def _performed(self, request: Any, timeout: float | None) -> Any:
        try:
            answer = await self._ports["store"].execute(request, timeout)
        except Exception as error:
            self._gate.outage.note(error)
            raise
        self._gate.outage.note(None)
        return answer

    async def close(self) -> None:
        """Close the store's port."""
        await self._ports["store"].close()
