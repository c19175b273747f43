"""Stores of a harness, for a process that does not run the harness: the harness is the author's code.

`serve` is the harness's side, `StoreService` the other one. A request is a line of JSON, and so is its answer; what it
holds is pickled, and read with the list of the few permitted classes.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vectoracl.model.records import Record
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.context.oracle import Key, key
from vectoracl_conformance.harness import Harness, HarnessError, Needs, Store
from vectoracl_conformance.isolated.changed_rows import changed_rows
from vectoracl_conformance.isolated.child import changed_since
from vectoracl_conformance.isolated.process import PoisonError, safe_loads

_CALLS = frozenset({"settle", "parts", "admit", "close"})
Exchange = Callable[[str], str]
"""Sends one line and returns the line that answers it."""


class StoreService:
    """The stores of a harness, with its `metrics` and `thousands`. It is used like a `Harness`."""

    def __init__(self, exchange: Exchange, metrics: Sequence[str] = ("cosine",), *, thousands: bool = True) -> None:
        self._exchange = exchange
        self.thousands = thousands
        self.metrics = tuple(one for one in metrics if one in ("cosine", "inner", "l2")) or ("cosine",)

    def ask(self, number: int, what: str, *args: Any) -> Any:
        """Ask for one call of store *number*. Raises: HarnessError; Abstain for what is not an answer."""
        answer = self._exchange(json.dumps([number, what, *args]))
        try:
            word, value = safe_loads(base64.b64decode(answer))
        except PoisonError as error:
            raise Abstain(f"the harness did not answer, but {error}") from None
        except Exception as error:  # noqa: BLE001 - a broken answer raises anything
            raise Abstain(f"the harness answered with what cannot be read ({type(error).__name__})") from None
        if word != "ok":
            raise HarnessError(f"{what} of the harness's store: {value}")
        return value

    def fresh(self, needs: Needs) -> RemoteStore:
        """Make an empty store. Raises: HarnessError."""
        number, config, single, secrets, source = self.ask(
            0, "fresh", {"dimension": needs.dimension, "metric": needs.metric, "metadata": dict(needs.metadata)}
        )
        if not isinstance(config, Mapping) or not all(isinstance(one, str) for one in secrets):
            raise HarnessError("The harness's store has no configuration.")
        return RemoteStore(
            self, int(number), dict(config), None if single is None else dict(single), tuple(secrets), str(source)
        )


class RemoteStore(Store):
    """One store of the harness, used like any other."""

    def __init__(
        self,
        service: StoreService,
        number: int,
        config: Mapping[str, Any],
        single: Mapping[str, Any] | None,
        secrets: Sequence[str],
        census_source: str,
    ) -> None:
        self._service = service
        self._number = number
        self.config = config
        self.single = single
        self.secrets = secrets
        self.census_source = census_source
        self._mark = ""
        self._rows: dict[Key, Record] = {}

    def _ask(self, what: str, *args: Any) -> Any:
        return self._service.ask(self._number, what, *args)

    def census(self) -> Sequence[Record]:
        """Read every row, in the harness's process. Raises: Abstain where the store lives in the adapter's.

        The process sends what changed since the last census; a row that did not change is the same object again.
        """
        if self.census_source:
            raise Abstain("the store lives in the adapter's process, where its census has to be read")
        self._mark, gone, rows = changed_rows(self._ask("census", self._mark))
        if gone is None:
            self._rows = {key(row): row for row in rows}
            return rows
        for place in gone:
            self._rows.pop(place, None)
        self._rows |= {key(row): row for row in rows}
        return list(self._rows.values())

    def parts(self) -> frozenset[str] | None:
        """Name what the store keeps per tenant."""
        parts = self._ask("parts")
        return None if parts is None else frozenset(str(one) for one in parts)

    def settle(self) -> None:
        """Wait until everything written is visible."""
        self._ask("settle")

    def admit(self, tenant: str) -> None:
        """Register *tenant*."""
        self._ask("admit", tenant)

    def close(self) -> None:
        """Remove the store."""
        self._ask("close")


def serve(harness: Harness, lines: Iterable[str], answer: Callable[[str], None]) -> None:
    """Answer the requests of *lines*, until there are no more or one is not a request."""
    stores: dict[int, Store] = {}
    states: dict[int, list[Any]] = {}
    made = 0
    try:
        for line in lines:
            request = json.loads(line)
            if not isinstance(request, list):
                return
            number, what, *args = request
            try:
                if what == "fresh":
                    made += 1
                    store = stores[made] = _made(harness, Needs(**args[0]))
                    states[made] = ["", None]
                    single = None if store.single is None else dict(store.single)
                    value: Any = (made, dict(store.config), single, tuple(store.secrets), store.census_source)
                elif what == "census":
                    value = changed_since(list(stores[number].census()), args[0], states[number])
                else:
                    value = _performed(stores[number], what, args)
                    if what == "close":
                        del stores[number]
                data = pickle.dumps(("ok", value), 5)
            except Exception as error:  # noqa: BLE001 - reported to who asked
                data = pickle.dumps(("error", f"{type(error).__name__}: {error}"), 5)
            answer(base64.b64encode(data).decode("ascii"))
    finally:
        for store in stores.values():
            store.close()


def _made(harness: Harness, needs: Needs) -> Store:
    store = harness.fresh(needs)
    if not isinstance(store, Store):
        raise HarnessError(f"fresh() returned {type(store).__name__}, not a Store")
    return store


def _performed(store: Store, what: str, args: Sequence[Any]) -> Any:
    if what not in _CALLS:
        raise HarnessError(f"a store has no {what}")
    return getattr(store, what)(*args)
