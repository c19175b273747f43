"""The routes of tenants that were switched to another store: a folder that every process reads at each call.

`routes.json` names the store of each tenant that was switched, and the switch that is under way; it is replaced
atomically. Every other tenant has the store of the configuration. A call holds a shared lock (`flock`) on a file of the
folder from before it is sent until it has ended, so that a switch can wait for calls, and hold back new ones:

- Writes of a tenant with an entry hold `write-*.lock`, which they take while they hold `gate-*.lock`. A switch takes
  the gate first, so that no new write begins, then the other lock, so that none is in flight (`frozen`).
- Reads of such a tenant hold a lock of the tenant and the store. Rows are removed from the former store only when the
  last call that reads them there has ended (`unread`).
- Calls of tenants without an entry share the lock of the present *epoch*. The first step of a switch (`begin`) writes
  the entry and the next epoch at once, then waits for the calls of the last epoch; no new call waits for it.

After it took a lock, a call reads the routes again: what it found before may have been overtaken. The kernel releases
the locks of a process that ends, however it ends. So a switch that is killed holds nothing back, and before the new
route is written (the last step, while the writes are held back) the former one is in force.

Whoever cannot read the folder is refused (`ConfigError`), and so is a process whose configuration names no folder or
another one: the former store is marked with the id of the routes. Several machines need a file system that all of
them mount and whose locks all of them see.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson

from vectoracl._util.private_files import replace_atomically, take_folder
from vectoracl.adapter_api.contract import Flow
from vectoracl.engine.core_ports import Sleep
from vectoracl.errors import BusyError, ConfigError, RefusedError, StoreError, VectorACLError, without_context
from vectoracl.model.identifiers import check_tenant

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows has no lock that is shared and ends with its process
    fcntl = None

T = TypeVar("T")
FILE = "routes.json"
MARK = "routes:"
"""The beginning of the mark in a store from which tenants were switched; the id of the routes follows."""
WAIT = 30.0
"""The most seconds for which a write waits while its tenant is switched."""
_PAUSE = 0.01
_ATTEMPTS = 5  # to read a file that other threads see replaced
_SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NAME = re.compile(r"\.?(routes\.json|switch\.lock|(epoch|gate|write|read)-[0-9a-f-]+\.lock)(-\w+\.new)?")


class ReroutedError(RefusedError):
    """The store of a partition is another one than that of the call; nothing was sent, and the handle asks again."""


class InFlightError(StoreError):
    """Calls for which a step of a switch waits have not ended in time; nothing was done."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="busy", sent="no", retryable=True)


@dataclass(frozen=True, slots=True)
class Route:
    """The entry of a tenant: its store, the one it is being switched `to`, and the `former` one that may hold rows."""

    store: str
    to: str | None = None
    former: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """The content of `routes.json`."""

    id: str
    epoch: int = 0
    tenants: Mapping[str, Route] = field(default_factory=dict)

    def data(self) -> bytes:
        """Return the content of the file."""
        tenants = {
            name: {"store": one.store, "to": one.to, "former": one.former} for name, one in sorted(self.tenants.items())
        }
        return orjson.dumps({"vectoracl_routes": 1, "id": self.id, "epoch": self.epoch, "tenants": tenants})


class Lock:
    """A lock that this process holds, on an open *file*."""

    __slots__ = ("_file", "_process")

    def __init__(self, file: int) -> None:
        self._file = file
        self._process = os.getpid()

    def release(self) -> None:
        """Release the lock and close the file.

        A process that was forked in between has the file open too, so closing it here does not release the lock; and
        what that process drops does not release it either.
        """
        try:
            if self._process == os.getpid():
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            os.close(self._file)


class Hold:
    """The locks of one call."""

    __slots__ = ("_locks",)

    def __init__(self, locks: list[Lock]) -> None:
        self._locks = locks

    def release(self) -> None:
        """Release the locks, if that was not done before."""
        while self._locks:
            self._locks.pop().release()


class Routes:
    """The routes in *folder*; *configured* returns the store of a tenant without an entry.

    Raises: ConfigError on a system without shared locks.
    """

    def __init__(self, folder: Path, configured: Callable[[str], str]) -> None:
        if fcntl is None:
            raise ConfigError("[tenants] routes needs locks that this system does not have (flock). Remove the key.")
        self.folder = folder
        self._path = str(folder / FILE)
        self._prefix = str(folder / "_")[:-1]
        self._configured = configured
        self._read: tuple[tuple[int, ...], State] | None = None

    def __repr__(self) -> str:
        return f"<Routes in {str(self.folder)!r}>"

    # Reading

    def state(self) -> State:
        """Return the present state. Raises: ConfigError if it cannot be read, or may be another user's."""
        for _ in range(_ATTEMPTS):
            state = self._present()
            known = self._read
            if known is None or (known[1].id == state.id and known[1].epoch <= state.epoch):
                return state
            # Another thread may have read a newer file since this one was opened; opened again, it is not older.
        raise self._unfit("they are not those that this process has read before, or an older copy of them")

    @without_context
    def _present(self) -> State:
        try:
            file = os.open(self._path, os.O_RDONLY | _SAFE)
        except OSError as error:
            raise self._unfit(error.strerror or type(error).__name__) from None
        try:
            status = os.fstat(file)
            seen = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            known = self._read
            if known is not None and known[0] == seen:
                return known[1]
            if not stat.S_ISREG(status.st_mode) or not (_ours(status) and _ours(self.folder.stat())):
                raise self._unfit("others can write to it")
            with os.fdopen(os.dup(file), "rb") as opened:
                state = self._parsed(opened.read())
        finally:
            os.close(file)
        if known is None or (known[1].id == state.id and known[1].epoch <= state.epoch):
            self._read = seen, state
        return state

    @without_context
    def _parsed(self, content: bytes) -> State:
        try:
            data = orjson.loads(content)
            if data["vectoracl_routes"] != 1:
                raise ValueError("another version")
            tenants = {check_tenant(name): _route(one) for name, one in data["tenants"].items()}
            return State(_of(str, data["id"]), _of(int, data["epoch"]), tenants)
        except (ValueError, KeyError, TypeError, AttributeError, VectorACLError):
            raise self._unfit("it is not a file of routes of this version") from None

    def _unfit(self, why: str) -> ConfigError:
        return ConfigError(
            f"The routes {str(self.folder / FILE)!r} cannot be read: {why}. Without them the store of a tenant is "
            "unknown, so nothing was done. `vectoracl provision` creates them; if they are lost, restore the file."
        )

    def store_of(self, tenant: str) -> str:
        """Return the name of the store of *tenant*. Raises: ConfigError."""
        entry = self.state().tenants.get(tenant)
        return self._configured(tenant) if entry is None else entry.store

    @property
    def mark(self) -> str:
        """The mark in the stores from which tenants were switched. Raises: ConfigError."""
        return MARK + self.state().id

    # Calls

    def enter(self, tenant: str, store: str, *, write: bool) -> Hold | None:
        """Take the locks of a call of *tenant* on *store*; None while its writes are held back.

        Raises: ReroutedError if *store* is not the tenant's; ConfigError.
        """
        while True:
            state = self.state()
            entry = state.tenants.get(tenant)
            if (self._configured(tenant) if entry is None else entry.store) != store:
                raise ReroutedError(
                    f"The tenant {tenant!a} has another store than {store!r}: its scope spans two stores, or it was "
                    "switched in this moment. Tenants that are read together must have the same store.",
                    field="tenant",
                )
            hold = self._locked(tenant, store, entry, state.epoch, write=write)
            if hold is None:
                return None
            again = self.state()
            if again.tenants.get(tenant) == entry and (entry is not None or again.epoch == state.epoch):
                return hold
            hold.release()

    def _locked(self, tenant: str, store: str, entry: Route | None, epoch: int, *, write: bool) -> Hold | None:
        if entry is None:
            names = [_epoch(epoch)]
        elif write:
            names = [_gate(tenant), _write(tenant)]
        else:
            names = [_reading(tenant, store)]
        locks: list[Lock] = []
        for name in names:
            lock = self._lock(name, fcntl.LOCK_SH)
            if lock is None:
                Hold(locks).release()
                return None
            locks.append(lock)
        if len(locks) > 1:
            locks.pop(0).release()  # the gate is only held while the other lock is taken
        return Hold(locks)

    @without_context
    def _lock(self, name: str, kind: int) -> Lock | None:
        """Return the lock *name*, held; None if another process or call is in its way."""
        try:
            # Two of these for each call: `create` made the folder private, so the file needs no further look.
            file = os.open(self._prefix + name, os.O_RDWR | os.O_CREAT | _SAFE, 0o600)
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return None
            except BaseException:
                os.close(file)
                raise
        except OSError as error:
            raise self._unfit(f"its locks fail ({error.strerror or type(error).__name__})") from None
        return Lock(file)

    # The steps of a switch

    @without_context
    def create(self) -> bool:
        """Create the folder and the file, if they do not exist; return whether they are new. Raises: ConfigError."""
        try:
            take_folder(self.folder, lambda name: _NAME.fullmatch(name) is not None)
            if (self.folder / FILE).exists():
                self.state()
                return False
            self._save(State(os.urandom(16).hex()))
        except OSError as error:
            raise self._unfit(error.strerror or type(error).__name__) from None
        return True

    @without_context
    def _save(self, state: State) -> None:
        try:
            replace_atomically(self.folder / FILE, state.data())
            with suppress(OSError):  # the name survives a crash of the machine too, where folders can be synced
                file = os.open(self.folder, os.O_RDONLY)
                try:
                    os.fsync(file)
                finally:
                    os.close(file)
        except OSError as error:
            raise self._unfit(f"it cannot be written ({error.strerror or type(error).__name__})") from None

    @contextmanager
    def switching(self) -> Iterator[None]:
        """Hold the lock of the switches: one at a time. Raises: RefusedError if another one is running."""
        lock = self._lock("switch.lock", fcntl.LOCK_EX)
        if lock is None:
            raise RefusedError(
                f"Another switch is running ({str(self.folder)!r}). Wait until it ends; nothing was done.",
                field="tenant",
            )
        try:
            yield
        finally:
            lock.release()

    def begin(self, tenant: str, to: str, *, wait: float) -> None:
        """Note that *tenant* is being switched to *to*, then wait for the calls that began before; can be repeated.

        Raises: InFlightError if calls take longer than *wait* seconds; a repetition continues.
        """
        state = self.state()
        entry = state.tenants.get(tenant) or Route(self._configured(tenant))
        following = state.epoch + 1
        self._drained(_epoch(following), wait)  # calls of the epoch before the last one, if a switch was killed here
        self._save(State(state.id, following, {**state.tenants, tenant: replace(entry, to=to)}))
        self._drained(_epoch(state.epoch), wait)

    def _drained(self, name: str, wait: float) -> None:
        late = (
            "Calls that began before the switch have not ended yet, so it stopped; the tenant is served as before. Run "
            "the same command again when they have ended; it continues."
        )
        self._exclusive(name, time.monotonic() + wait, late).release()

    def _exclusive(self, name: str, until: float, late: str) -> Lock:
        """Return the lock *name*, held alone. Raises: InFlightError with the text *late* if it is not free in time."""
        while (lock := self._lock(name, fcntl.LOCK_EX)) is None:
            if time.monotonic() > until:
                raise InFlightError(late)
            time.sleep(_PAUSE)
        return lock

    @contextmanager
    def frozen(self, tenant: str, until: float) -> Iterator[None]:
        """Hold the writes of *tenant* back; those in flight have ended when the block begins.

        Raises: InFlightError if they have not by the monotonic time *until*.
        """
        late = "Writes of the tenant that are in flight have not ended yet. Allow more time (--stall), or try again."
        gate = self._exclusive(_gate(tenant), until, late)
        try:
            writes = self._exclusive(_write(tenant), until, late)
            try:
                yield
            finally:
                writes.release()
        finally:
            gate.release()

    def flip(self, tenant: str) -> None:
        """Make the store to which *tenant* is being switched its store; inside `frozen`."""
        state = self.state()
        entry = state.tenants[tenant]
        assert entry.to is not None
        self._save(replace(state, tenants={**state.tenants, tenant: Route(entry.to, former=entry.store)}))

    def settle(self, tenant: str, *, former: bool) -> None:
        """Note that the switch of *tenant* was given up, or with *former* that its former store holds no rows now."""
        state = self.state()
        entry = state.tenants[tenant]
        kept = replace(entry, former=None) if former else replace(entry, to=None)
        self._save(replace(state, tenants={**state.tenants, tenant: kept}))

    @contextmanager
    def unread(self, tenant: str, store: str, until: float) -> Iterator[None]:
        """Wait until no call of *tenant* reads *store*, which is not its store any more. Raises: as `frozen`."""
        late = (
            f"Calls that read the former store {store!r} have not ended yet, so nothing was removed. Run the same "
            "command again when they have ended."
        )
        lock = self._exclusive(_reading(tenant, store), until, late)
        try:
            yield
        finally:
            lock.release()


def admitted(routes: Routes, tenant: str, store: str, held: list[Hold], *, write: bool) -> Flow[None]:
    """Append the locks of a call of *tenant* on *store* to *held*; wait while its writes are held back.

    Raises: ReroutedError; BusyError after `WAIT` seconds; ConfigError. Nothing was sent.
    """
    until = time.monotonic() + WAIT
    while (hold := routes.enter(tenant, store, write=write)) is None:
        if time.monotonic() > until:
            error = BusyError(
                "The tenant is being switched to another store, and this write waited too long. Nothing was sent; call "
                "again.",
                code="busy",
                sent="no",
                retryable=True,
            )
            error.tenant = tenant
            raise error
        yield Sleep(_PAUSE)
    held.append(hold)


def held_open(routes: Routes | None, tenant: str, store: str, flow: Flow[T]) -> Flow[T]:
    """Run *flow*, a write past the pipeline, under the locks of a write where *store* is that of *tenant* by now.

    A store from which or to which the tenant is switched needs none: no call writes there.
    """
    held: list[Hold] = []
    try:
        if routes is not None and routes.store_of(tenant) == store:
            yield from admitted(routes, tenant, store, held, write=True)
        return (yield from flow)
    finally:
        for one in held:
            one.release()


def _ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _route(data: Any) -> Route:
    to, former = data["to"], data["former"]
    return Route(
        _of(str, data["store"]), None if to is None else _of(str, to), None if former is None else _of(str, former)
    )


def _of(kind: type[Any], value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(kind.__name__)
    return value


def _key(*parts: str) -> str:
    text = "".join(f"{len(one)}:{one}" for one in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _epoch(number: int) -> str:
    return f"epoch-{number % 2}.lock"


def _gate(tenant: str) -> str:
    return f"gate-{_key(tenant)}.lock"


def _write(tenant: str) -> str:
    return f"write-{_key(tenant)}.lock"


def _reading(tenant: str, store: str) -> str:
    return f"read-{_key(tenant, store)}.lock"
