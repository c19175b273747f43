"""The errors of vectoracl, grouped by who has to act.

    VectorACLError
    ├─ DeniedError               the policy denied it; a normal outcome that reveals nothing about the rows
    ├─ RefusedError              this cannot be done safely, or the input is wrong; nothing was sent
    │  ├─ InvalidInputError      an argument has the wrong form: fix the call
    │  │  ├─ InvalidTenantError
    │  │  ├─ InvalidPrincipalError
    │  │  └─ TooLargeError       one call does not fit one request of the store: write fewer chunks per call
    │  ├─ UntaggedWriteError     a write without a tag, or with a tag of another tenant
    │  ├─ ReservedFieldError     a name that only the framework may write or filter by
    │  ├─ UnsupportedPredicateError  the store has no exact form of this filter or query
    │  ├─ ConfigError            the configuration is wrong: fix the file
    │  │  └─ AdapterNotFoundError    .install is the command to run
    │  ├─ HeldError              the document is under a hold: it cannot be changed or deleted
    │  ├─ StoppedTenantError     a backup was restored: run `vectoracl registry verify`
    │  ├─ SourceRefusedError     the handle names no pipeline that `[ingest] sources` lists
    │  ├─ ContentRefusedError    a validator of `[ingest] validators` does not accept what was to be written
    │  ├─ PostureError           the store's configuration does not reach the required grade
    │  └─ ClosedError            the handle or the VectorACL was closed
    ├─ StoreError                the store failed: .code, .sent ("no" | "unknown"), .written
    │  └─ BusyError              the request waited too long for its turn; nothing was sent
    └─ ScopeViolationError       the store returned rows outside the scope: an incident

Errors carry data, but never another tenant's content and never a secret; the id of another tenant's chunk reads exactly
like one that does not exist. Messages of client libraries quote rows, filters and connection strings, so a client's
exception becomes the `__cause__` only if the configuration sets `debug_errors = true`.
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
    """The policy denied the action. It reveals nothing about the content of the store.

    Attributes:
        action: The denied action.
        decision_id: The id of the decision's audit record.
        reasons: The policy's reasons.
    """

    code = "denied"

    def __init__(self, message: str, *, action: str, decision_id: str = "", reasons: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.action = action
        self.decision_id = decision_id
        self.reasons = reasons


class RefusedError(VectorACLError):
    """The call was refused before anything was sent to a store. `.field` names the argument or setting, if known."""

    code = "refused"
    field: str | None = None


class InvalidInputError(RefusedError):
    """An argument has the wrong form. `.field` names it; a value that may be a secret is never quoted."""

    code = "invalid_input"


class InvalidTenantError(InvalidInputError):
    """A tenant id is empty, blank, too long, not in NFC, or has a character that is not allowed."""

    code = "invalid_tenant"


class InvalidPrincipalError(InvalidInputError):
    """A principal cannot be used: it has the wrong type or an empty id, or was not created in an allowed way."""

    code = "invalid_principal"


class TooLargeError(InvalidInputError):
    """The chunks of one call do not fit one request of the store, which alone is atomic; write fewer per call."""

    code = "too_large"


class UntaggedWriteError(RefusedError):
    """A record without a tag, or with the tag of another tenant, was about to be written. Nothing was written."""

    code = "untagged_write"


class ReservedFieldError(RefusedError):
    """A metadata key or a filter uses a name that is reserved for the framework."""

    code = "reserved_field"


class UnsupportedPredicateError(RefusedError):
    """The store has no exact form of a filter, query or operation; it is refused instead of approximated."""

    code = "unsupported"


class ConfigError(RefusedError):
    """The configuration is wrong. The message names the key and never quotes a value."""

    code = "config"


class AdapterNotFoundError(ConfigError):
    """No installed distribution provides the adapter, or two claim it.

    Attributes:
        install: The command that installs it, or "" if that is not known.
        adapter: The adapter's name.
    """

    code = "adapter_not_found"
    install: str = ""
    adapter: str = ""


class HeldError(RefusedError):
    """A document is under a hold: it can be neither changed nor deleted before every matter is released.

    Attributes:
        document: The document's id.
    """

    code = "held"
    document: str = ""


class StoppedTenantError(RefusedError):
    """The tenant's store or its registry was restored from a backup, and nothing is answered before they agree.

    Attributes:
        tenant: The tenant.
    """

    code = "stopped"
    tenant: str | None = None


class SourceRefusedError(RefusedError):
    """`[ingest] sources` lists the pipelines that may write, and the handle names none of them. Nothing was sent.

    Attributes:
        source: The pipeline that the handle names; None if it names none.
    """

    code = "source_refused"
    source: str | None = None


class ContentRefusedError(RefusedError):
    """A validator did not accept a document that was to be written, or failed. Nothing of the call was sent.

    Attributes:
        validator: The validator's name.
        document: The document's id.
        reason: The validator's reason.
        decision_id: The id of the decision's audit record, whose outcome lists all verdicts.
    """

    code = "content_refused"
    validator: str = ""
    document: str = ""
    reason: str = ""
    decision_id: str = ""


class PostureError(RefusedError):
    """The store's actual configuration does not reach the required grade. `.findings` lists the reasons."""

    code = "posture"
    findings: tuple[object, ...] = ()


class ClosedError(RefusedError):
    """The handle, or the VectorACL behind it, was closed."""

    code = "closed"


class StoreError(VectorACLError):
    """The store, or another port of the request's path, failed.

    Attributes:
        code: A stable code for the kind of failure, safe to log and to match on.
        adapter: The adapter's name.
        sent: "no" if it is certain that nothing was applied (the request did not reach the store, or the store rolled
            it back), else "unknown": a write that was cancelled or lost its connection may have been applied.
        written: The number of chunks that were certainly written.
        retryable: Whether the same request may succeed later.
        retry_after: The number of seconds to wait before the next attempt, if the store asks for that.
        field: The metadata field concerned, if any.
        undone: Set by an adapter whose flow wrote and undid its writes before any reader saw them; then `sent` stays
            "no", while a failure after a write is otherwise "unknown".
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


class BusyError(StoreError):
    """A request waited longer than permitted for one of the store's slots; nothing was sent, and it may be repeated.

    Attributes:
        tenant: The tenant whose request waited.
    """

    tenant: str = ""


class ScopeViolationError(VectorACLError):
    """A reply held rows that the scope does not permit. The whole reply was dropped; this is an incident.

    Attributes:
        adapter: The adapter's name.
        decision_id: The id of the decision's audit record.
        rows: The number of such rows.
    """

    code = "scope_violation"

    def __init__(self, message: str, *, adapter: str = "", decision_id: str = "", rows: int = 0) -> None:
        super().__init__(message)
        self.adapter = adapter
        self.decision_id = decision_id
        self.rows = rows


E = TypeVar("E", bound=VectorACLError)


def caused(made: E, error: BaseException, *, debug: bool) -> E:
    """Return *made* with the client's *error* as its cause only with *debug*: its text quotes rows and addresses.

    Raise it after the `except` block: inside the block Python would attach *error* as its `__context__`.
    """
    made.__cause__ = error if debug else None
    made.__suppress_context__ = True
    return made


def unchained(error: E, *, debug: bool = False) -> E:
    """Return *error* without its cause and context, which may quote rows, files and addresses; unchanged with *debug*.

    `raise … from None` only keeps Python from printing the context; error collectors still read `__context__`. Raise
    the error after the `except` block, as with `caused`.
    """
    if not debug:
        error.__cause__ = error.__context__ = None
        error.__suppress_context__ = True
    return error


P = ParamSpec("P")
R = TypeVar("R")


def without_context(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate *function* so that its vectoracl errors carry no `__context__`; an explicit cause stays.

    It is for functions that map an exception in an `except` block, and for callers of such generators: an error that
    leaves a generator gets the exception that is being handled as its context. Coroutine functions work too.
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
