"""Every error of vectoracl, by who has to act.

    VectorACLError
    ├─ DeniedError               the policy said no; a normal outcome that says nothing about the rows
    ├─ RefusedError              this cannot be done safely, or the input is wrong; nothing was sent
    │  ├─ InvalidInputError      an argument has the wrong form: fix the call
    │  │  ├─ InvalidTenantError
    │  │  ├─ InvalidPrincipalError
    │  │  └─ TooLargeError       one call does not fit one request of the store: write fewer chunks a call
    │  ├─ UntaggedWriteError     a write without a tag, or with a tag of another tenant
    │  ├─ ReservedFieldError     a name that only the framework may write or filter by
    │  ├─ UnsupportedPredicateError  the store has no exact form of this filter or query
    │  ├─ ConfigError            the configuration is wrong: fix the file
    │  │  └─ AdapterNotFoundError    carries the line to type
    │  ├─ PostureError           the store is not configured as the demanded grade needs
    │  └─ ClosedError            the handle or the VectorACL was closed
    ├─ StoreError                the store failed: .code, .sent ("no" | "unknown"), .written
    └─ ScopeViolationError       the store answered outside the scope: page someone

Errors carry data, never another tenant's content and never a secret; the id of another tenant's chunk reads
exactly like one that does not exist. What a client library says quotes rows, filters and connection strings, so
its exception is attached as `__cause__` only where the configuration says `debug_errors = true`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, TypeVar, cast


class VectorACLError(Exception):
    """The root of all errors of vectoracl; `code` is stable and safe to log and to match on."""

    code: str = "error"

    def __init__(self, message: str, **data: object) -> None:
        super().__init__(message)
        self.message = message
        for name, value in data.items():
            setattr(self, name, value)


class DeniedError(VectorACLError):
    """The policy denied the action. Says nothing about what the store holds."""

    code = "denied"

    def __init__(self, message: str, *, action: str, decision_id: str = "", reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.action = action
        self.decision_id = decision_id
        self.reasons = reasons


class RefusedError(VectorACLError):
    """The call was refused before anything was sent to a store."""

    code = "refused"
    field: str | None = None


class InvalidInputError(RefusedError):
    """An argument has the wrong form. `.field` names it; its value is never quoted if it may be a secret."""

    code = "invalid_input"


class InvalidTenantError(InvalidInputError):
    """A tenant id that is empty, blank, too long, not in NFC, or has a character that is never allowed."""

    code = "invalid_tenant"


class InvalidPrincipalError(InvalidInputError):
    """A principal that cannot be used: wrong type, empty id, or one that was not made by an allowed way."""

    code = "invalid_principal"


class TooLargeError(InvalidInputError):
    """One call does not fit one request of the store, and only one request is all or nothing; fewer chunks may fit."""

    code = "too_large"


class UntaggedWriteError(RefusedError):
    """A record without a tag, or with the tag of another tenant, was about to be written. Nothing was."""

    code = "untagged_write"


class ReservedFieldError(RefusedError):
    """A metadata key or a filter uses a name that belongs to the framework."""

    code = "reserved_field"


class UnsupportedPredicateError(RefusedError):
    """The store cannot say this exactly, so it is refused instead of approximated."""

    code = "unsupported"


class ConfigError(RefusedError):
    """The configuration is wrong. The message names the key and never quotes a value."""

    code = "config"


class AdapterNotFoundError(ConfigError):
    """No installed distribution provides the adapter, or two claim it; `.install` is the line, if one is known."""

    code = "adapter_not_found"
    install: str = ""
    adapter: str = ""


class PostureError(RefusedError):
    """The store's real configuration does not reach what is demanded. `.findings` lists why."""

    code = "posture"
    findings: tuple[object, ...] = ()


class ClosedError(RefusedError):
    """The handle, or the VectorACL behind it, was closed."""

    code = "closed"


class StoreError(VectorACLError):
    """The store, or another port of the request's path, failed.

    `sent` is "no" when it is certain that nothing was applied (it did not reach the store, or the store rolled it
    back) and "unknown" otherwise: a write that was cancelled or lost its connection may have been applied.
    `written` counts the chunks that certainly were. `field` names a metadata field where it is about one.
    `undone` is set by an adapter whose flow wrote and took all of it back, without anybody having seen it: then `sent`
    stays "no", where a failure after a write is otherwise "unknown".
    `retry_after` is how many seconds the store itself asks to wait for before the next try, where it does.
    """

    field: str | None = None
    undone = False

    def __init__(
        self,
        message: str,
        *,
        code: str = "store",
        adapter: str = "",
        sent: Literal["no", "unknown"] = "unknown",
        written: int = 0,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.adapter = adapter
        self.sent: Literal["no", "unknown"] = sent
        self.written = written
        self.retryable = retryable
        self.retry_after = retry_after


class ScopeViolationError(VectorACLError):
    """A reply held a row that the scope does not permit. The whole reply was dropped; this is an incident."""

    code = "scope_violation"

    def __init__(self, message: str, *, adapter: str = "", decision_id: str = "", rows: int = 0) -> None:
        super().__init__(message)
        self.adapter = adapter
        self.decision_id = decision_id
        self.rows = rows


E = TypeVar("E", bound=VectorACLError)


def caused(made: E, error: BaseException, *, debug: bool) -> E:
    """Return *made*, of which the client's *error* is the cause only with *debug*: its text quotes rows and addresses.

    Raise it after the `except` block, not in it: there Python would attach *error* as its `__context__`.
    """
    made.__cause__ = error if debug else None
    made.__suppress_context__ = True
    return made


def unchained(error: E, *, debug: bool = False) -> E:
    """Return *error* without its cause and context, which quote rows, files and addresses; with *debug* as it is.

    `raise … from None` only keeps Python from printing it: what collects errors walks `__context__` all the same.
    Raise it after the `except` block, as with `caused`.
    """
    if not debug:
        error.__cause__ = error.__context__ = None
        error.__suppress_context__ = True
    return error


P = ParamSpec("P")
R = TypeVar("R")


def without_context(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate *function* so that its errors of vectoracl carry no `__context__`; a cause that was given stays.

    For functions that turn an error into one of ours in an `except` block, and for those that call such a generator: a
    generator's error gets the one that it handles as its context whatever it does. Works on coroutine functions too.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def acall(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return await function(*args, **kwargs)
            except VectorACLError as error:
                failed = error
            _forget(failed)
            raise failed

        return cast("Callable[P, R]", acall)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except VectorACLError as error:
            failed = error
        _forget(failed)
        raise failed

    return call


def _forget(error: VectorACLError) -> None:
    if error.__cause__ is None:
        error.__context__ = None
