"""Access to one store or to every store, shared by `provision`, `check` and `tenants`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rich.text import Text

from vectoracl.adapter_api.contract import Operator
from vectoracl.cli.common import (
    error_object,
    exit_code,
    one_line,
    opened,
    out,
    plain,
    print_json,
    report,
)
from vectoracl.client.connect import VectorACL
from vectoracl.errors import InvalidInputError, VectorACLError

T = TypeVar("T")


@contextmanager
def operating(config: Path, store: str | None) -> Iterator[tuple[VectorACL, Operator]]:
    """Open a configuration with the operator's access to a store; its posture is not checked."""
    with opened(config, store, contact=False) as acl:
        operator = acl.operator(store)
        try:
            yield acl, operator
        finally:
            operator.close()


@dataclass(frozen=True, slots=True)
class Outcomes(Generic[T]):
    """The result of each store, or the error that it ended with, in the order of the configuration."""

    by_store: Mapping[str, T | VectorACLError]

    @property
    def results(self) -> dict[str, T]:
        """The results of the stores that did not fail."""
        return {name: one for name, one in self.by_store.items() if not isinstance(one, VectorACLError)}

    @property
    def errors(self) -> dict[str, VectorACLError]:
        """The errors of the other stores."""
        return {name: one for name, one in self.by_store.items() if isinstance(one, VectorACLError)}

    def failures(self) -> dict[str, object]:
        """Return the key "error" of the combined JSON object: the first error and its store; empty without errors."""
        for name, one in self.errors.items():
            return {"error": {**error_object(one), "store": plain(name)}}
        return {}

    def as_json(self, form: Callable[[T], object]) -> dict[str, object]:
        """Return the combined JSON object; *form* is that of one result."""
        stores = {
            plain(name): {"error": error_object(one)} if isinstance(one, VectorACLError) else form(one)
            for name, one in self.by_store.items()
        }
        return {"stores": stores, **self.failures()}

    def code(self, code: int) -> int:
        """Return the worst of the exit codes of all errors and *code*, that of the results."""
        return max([code, *map(exit_code, self.errors.values())])


def check_one_or_all(store: str | None, *, every: bool) -> None:
    """Raises: InvalidInputError if both a store and `--all` were passed."""
    if every and store is not None:
        raise InvalidInputError("Pass either --store or --all, not both.", field="all")


def on_every_store(acl: VectorACL, act: Callable[[str], T], *, as_json: bool) -> Outcomes[T]:
    """Call *act* with the name of each configured store in turn; the error of one store does not stop the next.

    Without *as_json* an error is printed with its store at once. An interruption gets a note with the finished stores.
    """
    outcomes: dict[str, T | VectorACLError] = {}
    for name in acl.config.stores:
        try:
            outcomes[name] = act(name)
        except VectorACLError as error:
            outcomes[name] = error
            if not as_json:
                report(error, as_json=False, store=name)
        except BaseException as stop:
            finished = ", ".join(map(plain, Outcomes(outcomes).results)) or "none"
            stop.add_note(f"Stores that were finished before: {finished}.")
            raise
    return Outcomes(outcomes)


@contextmanager
def operator_of(acl: VectorACL, store: str) -> Iterator[Operator]:
    """Return the operator of *store*, and close it at the end."""
    operator = acl.operator(store)
    try:
        yield operator
    finally:
        operator.close()


def heading(acl: VectorACL, store: str) -> None:
    """Print the name of *store* and its adapter above its part of the output."""
    out().print(Text(f"{one_line(store, 60)} ({acl.config.stores[store].adapter})", "bold"), soft_wrap=True)


def tell(lines: list[str], *, as_json: bool, stays: str = "") -> None:
    """Print *lines*, the steps that were done, and *stays*: the traces that the store's operator cannot remove."""
    if as_json:
        print_json({"done": lines, **({"stays": stays} if stays else {})})
        return
    console = out()
    for line in lines:
        console.print(Text.assemble(("✓ ", "green"), plain(line)), soft_wrap=True)
    if stays:
        console.print(Text(stays, "dim"), soft_wrap=True)
