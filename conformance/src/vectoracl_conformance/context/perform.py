"""Performs one check in a context, and records its outcome. The judgement is in `verdict`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from vectoracl.errors import ScopeViolationError, VectorACLError
from vectoracl_conformance.context.assertions import Abstain, Assertions, Breach, Unsupported, short
from vectoracl_conformance.context.check_context import CheckContext, Mode
from vectoracl_conformance.context.corpus import DECOYS
from vectoracl_conformance.context.oracle import UnfitError
from vectoracl_conformance.context.registry import Check
from vectoracl_conformance.verdict import MODES, Noted, settled

LIMIT = 120.0


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a run: which checks (none: all), how many decoys, the seed, the harness as it was named.

    `limit` is how many seconds one async check may take. `python` is the interpreter of the process that is out of
    sight ("": this one). `elsewhere` are checks that another process performs. `calls` is
    whether the generated calls are performed without being named, and `size` is their plan's.
    `kept` takes the configurations of the stores that were left, where `keep` asks for it.
    """

    name: str = ""
    only: frozenset[str] = frozenset()
    decoys: int = DECOYS
    seed: int = 0
    modes: tuple[Mode, ...] = MODES
    keep: bool = False
    limit: float = LIMIT
    python: str = ""
    elsewhere: frozenset[str] = frozenset()
    calls: bool = False
    size: Literal["quick", "full"] = "full"
    known: dict[str, str] = field(default_factory=dict)
    kept: list[dict[str, Any]] = field(default_factory=list)

    def wants(self, id_: str) -> bool:
        """Tell whether *id_* is to be run."""
        return not self.only or id_ in self.only

    def line(self, id_: str) -> str:
        """Return the line that repeats one check."""
        return f"vectoracl conformance {self.name} --only {id_} --seed {self.seed} --decoys {self.decoys}"


async def perform(check: Check, context: CheckContext, options: Options) -> Noted:
    """Run one check and note what became of it."""
    assertions = Assertions(context)
    context.recorder.clear()
    note = Noted(check.id, context.mode, "not run", reproduce=options.line(check.id))
    started = time.perf_counter()
    try:
        await check.body(assertions)
        note.outcome = "passed"
    except Breach as breach:
        note.outcome, note.attacked, note.back, note.why = "failed", breach.attacked, breach.back, breach.why
    except (Abstain, UnfitError) as error:
        note.outcome, note.reason = "abstained", f"the kit's own control failed: {error}"
    except Unsupported as error:
        note.outcome, note.reason = "unsupported, verified", f"{error}: not declared, and refused"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - also SystemExit, and what a test framework raises to skip
        note.outcome, note.attacked, note.back, note.why = _broken(error)
    note.reason = note.reason or (f"{note.attacked}: {note.back}; {note.why}" if note.why else "")
    if note.outcome == "failed" and check.id in options.known:
        note.outcome, note.reason = "known deviation", f"{options.known[check.id]}: {note.reason}"
    note.seconds = round(time.perf_counter() - started, 4)
    note.controls, note.attacks = assertions.controls, assertions.attacks
    return settled(note)


def _broken(error: BaseException) -> tuple[Any, str, str, str]:
    if isinstance(error, BaseExceptionGroup):
        return _broken(error.exceptions[0]) if error.exceptions else ("failed", "the check", str(error), "it broke")
    if isinstance(error, Breach):
        return "failed", error.attacked, error.back, error.why
    if isinstance(error, ScopeViolationError):
        back = f"{error.rows} rows outside of the scope"
        return "failed", "a legitimate call", back, "the store answered with foreign rows; only the second lock saw it"
    back = f"{type(error).__name__}: {short(error)}"
    if isinstance(error, VectorACLError):
        return "failed", "a legitimate call", back, "what is permitted has to work"
    if not isinstance(error, Exception):
        return "not run", "the check", back, "it was left before its assertion"
    place = _place(error)
    return "failed", f"a call at {place}", back, "an error that is not of the documented tree, or of the wrong kind"


def _place(error: BaseException) -> str:
    trace, place = error.__traceback__, "an unknown place"
    while trace is not None:
        code = trace.tb_frame.f_code
        if "vectoracl_conformance" in code.co_filename:
            place = f"{code.co_name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
