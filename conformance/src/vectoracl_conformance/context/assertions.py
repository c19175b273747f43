"""The object that every check gets: its context, and the assertion methods.

Each check must reach at least one attack and at least one positive control (the owner does see the chunk); otherwise it
counts as not run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from vectoracl.errors import RefusedError, ScopeViolationError
from vectoracl_conformance.context.check_context import CheckContext


class Breach(Exception):  # noqa: N818 - it is a finding, not a mistake of a program
    """The attack succeeded."""

    def __init__(self, attacked: str, back: str, why: str) -> None:
        super().__init__(f"{attacked}: {back}; {why}")
        self.attacked = attacked
        self.back = back
        self.why = why


class Abstain(Exception):  # noqa: N818 - likewise
    """The kit cannot tell: its own control failed."""


class Unsupported(Exception):  # noqa: N818 - likewise
    """The capability is not declared, and it was seen that it refuses."""


class Assertions:
    """The tools that a check is given: the context, and the steps that it has to take."""

    def __init__(self, context: CheckContext) -> None:
        self.context = context
        self.controls = 0
        self.attacks = 0

    def positive_control(self, ok: bool, what: str, back: object = "") -> None:  # noqa: FBT001 - an assertion
        """Positive control: what is permitted has to work, so that an adapter that answers nothing fails."""
        self.controls += 1
        if not ok:
            raise Breach(f"control: {what}", str(back) or "it did not", "what is permitted has to work")

    def kit_control(self, ok: bool, what: str) -> None:  # noqa: FBT001 - an assertion
        """The kit's own control: if it fails, there is no verdict."""
        if not ok:
            raise Abstain(what)

    def assert_safe(self, safe: bool, attacked: str, back: object, why: str) -> None:  # noqa: FBT001 - an assertion
        """Judge an attack: *safe* is whether it failed."""
        self.attacks += 1
        if not safe:
            raise Breach(attacked, str(back), why)

    def assert_equal(self, right: object, got: object, attacked: str, why: str) -> None:
        """Judge an attack by equality; of two mappings the report shows what differs."""
        shown_got, shown_right = got, right
        if isinstance(right, Mapping) and isinstance(got, Mapping):
            differs = [key for key in {**right, **got} if key not in right or key not in got or right[key] != got[key]]
            shown_got = {key: got[key] for key in differs if key in got}
            shown_right = {key: right[key] for key in differs if key in right}
        self.assert_safe(right == got, attacked, f"{short(shown_got)} instead of {short(shown_right)}", why)

    async def refused(
        self,
        work: Awaitable[Any] | Any,
        *kinds: type[BaseException],
        attacked: str,
        silent: bool = True,
    ) -> BaseException:
        """Demand that *work* is refused with one of *kinds* (none given: RefusedError), *silent*: before any I/O."""
        mark = len(self.context.recorder)
        expected = kinds or (RefusedError,)
        try:
            back = await work
        except ScopeViolationError:
            raise
        except expected as error:
            requests = len(self.context.recorder) - mark
            self.assert_safe(
                not silent or requests == 0, attacked, f"{requests} requests were sent before it was refused", _BEFORE
            )
            return error
        except Exception as error:
            raise Breach(
                attacked,
                f"{type(error).__name__}: {short(error)}",
                f"it has to be {_names(expected)}, distinguished by type",
            ) from error
        self.attacks += 1
        raise Breach(attacked, f"it was accepted and returned {short(back)}", "it has to be refused")

    async def outcome(self, work: Awaitable[Any]) -> tuple[str, Any]:
        """Return ("ok", answer) or ("error", type name, code): for calls that have to answer alike."""
        try:
            return ("ok", await work)
        except ScopeViolationError:
            raise
        except Exception as error:  # noqa: BLE001 - two answers are compared, errors among them
            return (type(error).__name__, getattr(error, "code", ""))


_BEFORE = "a refusal comes before any I/O"


def _names(kinds: tuple[type[BaseException], ...]) -> str:
    return " or ".join(one.__name__ for one in kinds)


def short(value: object, limit: int = 300) -> str:
    """Return *value* as text of at most *limit* characters."""
    text = str(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
