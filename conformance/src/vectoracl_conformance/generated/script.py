"""Writes a difference as a Python program that shows it without the kit: it needs the library and the adapter only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pprint import pformat
from typing import Any

import numpy as np

from vectoracl.model.queries import Hybrid
from vectoracl.model.records import Chunk
from vectoracl_conformance.generated.calls import After, Call, Cut, Fault, Rules, Together, calls_in
from vectoracl_conformance.generated.pair import Difference
from vectoracl_conformance.generated.reference import laid_out, writer
from vectoracl_conformance.generated.shrinking import Rows, Steps

_HEAD = '''"""Shows a fault of the adapter {adapter}: {problem}"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from vectoracl import *
from vectoracl.access.policy import Decision, TenantPolicy
from vectoracl.access.scope import Grant, Scope
from vectoracl.errors import RefusedError
from vectoracl.filters.predicate import *

import datetime  # after the names above, of which one is the class

# The settings of the run's store, which is gone; secrets are left out. Put in those of an empty one.
CONFIG = {config}
RULES = {rules}
ROWS = {rows}
STEPS = {steps}
'''
_PROGRAM = '''

class Rules:
    """Grants by principal, action and tenant; who is not listed has the tenant's rights."""

    version = "1"

    def decide(self, principal, action):
        own = RULES.get(principal.id)
        if own is None:
            return TenantPolicy().decide(principal, action)
        if action not in own:
            return Decision.deny("there is no rule for it", self.version)
        scope = Scope.of(Grant(tenant, predicate) for tenant, predicate in own[action].items())
        return Decision(permit=True, scope=scope, reasons=("a rule",), policy_version=self.version)


def dress(opened):
    return opened


FAULTS = {}


def failing(opened):
    """Return the store with ports whose next requests fail by FAULTS: number of the request, and when."""

    def due():
        kind = FAULTS.pop(1, "")
        rest = {number - 1: one for number, one in FAULTS.items()}
        FAULTS.clear()
        FAULTS.update(rest)
        return kind

    def error(kind):
        sent = "no" if kind == "before" else "unknown"
        return StoreError("The connection was lost.", code="unreachable", sent=sent, retryable=kind == "before")

    class Port:
        def __init__(self, inner):
            self.inner, self.parallel = inner, inner.parallel

        def execute(self, request, timeout):
            kind = due()
            if kind in ("before", "unknown"):
                raise error(kind)
            reply = self.inner.execute(request, timeout)
            if kind:
                raise error(kind)
            return reply

        def close(self):
            self.inner.close()

    class AsyncPort(Port):
        async def execute(self, request, timeout):
            kind = due()
            if kind in ("before", "unknown"):
                raise error(kind)
            reply = await self.inner.execute(request, timeout)
            if kind:
                raise error(kind)
            return reply

        async def close(self):
            await self.inner.close()

    port, aport = opened.port, opened.aport
    return replace(opened, port=lambda: Port(port()), aport=lambda: AsyncPort(aport()))
'''
_MAIN = '''

def connected(kind):
    """Return a client whose adapter is dressed."""

    class Client(kind):
        def _named(self, name):
            known = name in self._stores
            named = super()._named(name)
            if not known:
                named.opened = dress(failing(named.opened))
                named.store = replace(named.store, adapter=named.opened.adapter)
            return named

    return Client(CONFIG, policy=Rules())


LOOP = asyncio.new_event_loop()


async def listed(hits):
    return [hit async for hit in hits]


def begin(acl, call):
    claims, narrowings, method, arguments = call
    handle = acl.scoped(Principal(**claims))
    for where, actions in narrowings:
        handle = handle.narrow(where, actions)
    answer = getattr(handle, method)(**arguments)
    return listed(answer) if hasattr(answer, "__aiter__") else answer


def done(answer):
    if asyncio.iscoroutine(answer):
        answer = LOOP.run_until_complete(answer)
    return list(answer) if hasattr(answer, "__next__") else answer


CURSORS = {}


def outcome(acl, call):
    try:
        pages, kept, call = call.get("pages", 0), call.get("kept", False), call["call"]
        claims, narrowings, method, arguments = call
        name = repr((type(acl), claims, narrowings, method, arguments))
        if kept and name in CURSORS:  # of the page that was read before other calls
            pages, call = 0, (claims, narrowings, method, {**arguments, "after": CURSORS[name]})
            if CURSORS[name] is None:
                return "no such page"
        for _ in range(pages):  # the cursor behind this number of pages
            cursor = done(begin(acl, call)).after
            call = (claims, narrowings, method, {**arguments, "after": cursor})
            if cursor is None:
                return "no such page"
        answer = done(begin(acl, call))
        if method == "page":
            CURSORS[name] = answer.after
        return answer
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def together(acl, calls, width):
    if isinstance(acl, VectorACL):
        with ThreadPoolExecutor(width) as pool:
            return list(pool.map(lambda call: outcome(acl, call), calls))

    async def one(call):
        try:
            return await begin(acl, call["call"])
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    async def every():
        return await asyncio.gather(*(one(call) for call in calls))

    return done(every())


def cut(acl, call, after):
    if isinstance(acl, VectorACL):
        claims, narrowings, method, arguments = call["call"]
        return outcome(acl, {"call": (claims, narrowings, method, {**arguments, "timeout": after})})

    async def work():
        task = asyncio.ensure_future(begin(acl, call["call"]))
        await asyncio.sleep(after)
        task.cancel()
        return await asyncio.gather(task, return_exceptions=True)

    return done(work())


def shown(answer):
    if isinstance(answer, str):
        return answer
    hits = getattr(answer, "hits", answer)
    if isinstance(hits, list | tuple):
        return [name_of(hit) for hit in hits]
    return answer


def name_of(hit):
    return (hit.tenant, hit.document, hit.id, round(hit.score, 5)) if isinstance(hit, Hit) else hit


def main():
    clients = {"sync": connected(VectorACL), "async": connected(AsyncVectorACL)}
    try:
        operator = clients["sync"].operator()
    except RefusedError:
        pass  # there is nothing to provision
    else:
        operator.provision()
        operator.close()
    for acl in clients.values():
        done(acl.open())
    for call in ROWS:
        answer = outcome(clients["sync"], call)
        if isinstance(answer, str):
            print("writing rows:", answer)
    answer = None
    for mode, what, *details in STEPS:
        if what == "call":
            answer = outcome(clients[mode], details[0])
        elif what == "fail":
            FAULTS.update(details[0])
            continue
        elif what == "cut":
            answer = cut(clients[mode], *details)
        elif what == "together":
            answer = together(clients[mode], *details)
        FAULTS.clear()
        print(what, mode, shown(answer))
    print()
    print("got:  ", shown(answer))
    print("right:", RIGHT)
    print("fault:", FAULT)
    for who in SEEN:  # what the tenants hold now
        print("rows of", who["call"][0]["tenant"], shown(outcome(clients["sync"], who)))


main()
'''


def script(
    config: Mapping[str, Any],
    rules: Rules,
    rows: Rows,
    steps: Steps,
    difference: Difference,
    source: str = "",
) -> str:
    """Return a program that writes *rows*, performs *steps*, and prints the last answer next to the right one.

    Args:
        config: The configuration of the clients.
        rules: The policy's table.
        rows: The rows by tenant.
        steps: The steps with their modes.
        difference: The difference that they show.
        source: Text that defines `dress(opened)`, for a broken adapter.
    """
    calls = [call for _, step in steps for call in calls_in(step)]
    named = {call.principal.id for call in calls}
    used = {name: table for name, table in rules.items() if name in named}
    seen = [Call(writer(tenant), "scan") for tenant in dict.fromkeys(call.principal.tenant for call in calls)]
    head = _HEAD.format(
        adapter=", ".join(store["adapter"] for store in config["stores"].values()),
        problem=difference.problem.replace("\\", "/").replace('"', "'").replace("\n", " ")[:300],
        config=literal(_public(config)),
        rules=literal(used),
        rows=_listed([_call(call) for call in laid_out(rows, 500)]),
        steps=_listed([_step(mode, step) for mode, step in steps]),
    )
    tail = f"RIGHT = {difference.right!r}\nFAULT = {difference.problem!r}\n"
    tail += f"SEEN = {_listed([_call(one) for one in seen])}\n"
    return f"{head}{tail}{_PROGRAM}\n\n{source}\n{_MAIN}"


def case(program: str) -> str:
    """Return the part of a program that differs from failure to failure: configuration, rules, rows, steps, answers."""
    return program[program.find("# The settings") : program.find("\n\n\nclass Rules")]


_SECRET = re.compile(r"passw|secret|token|(^|_)key$", re.IGNORECASE)
_IN_TEXT = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*(?=@)|(\bpassword\s*=\s*)(?:'[^']*'|\S+)")


def _public(value: Any, name: str = "") -> Any:
    """Return *value* of a configuration without its secrets."""
    match value:
        case Mapping():
            return {key: _public(one, str(key)) for key, one in value.items()}
        case list() | tuple():
            return [_public(one, name) for one in value]
        case str() if _SECRET.search(name):
            return "..."
        case str():
            return _IN_TEXT.sub(lambda found: f"{found[2]}..." if found[2] else f"{found[1]}:...", value)
    return value


def _listed(items: Sequence[str]) -> str:
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _step(mode: str, step: object) -> str:
    match step:
        case Call():
            return f'("{mode}", "call", {_call(step)})'
        case Fault(plan):
            return f'("{mode}", "fail", {dict(plan)!r})'
        case Cut(call, after):
            return f'("{mode}", "cut", {_call(call)}, {after!r})'
        case Together(calls, width):
            return f'("{mode}", "together", [{", ".join(map(_call, calls))}], {width})'
    raise TypeError(f"a step cannot be {type(step).__name__}")


def _call(call: Call) -> str:
    claims, narrowings, method, _, arguments = call.message()
    claims = {name: value for name, value in claims.items() if value not in (None, frozenset(), {})}
    after = next((one for one in arguments.values() if isinstance(one, After)), After(0))
    plain = {name: value for name, value in arguments.items() if not isinstance(value, After)}
    values = f"({literal(claims)}, {literal(narrowings)}, {method!r}, {literal(plain)})"
    kept = ', "kept": True' if after.kept else ""
    return f'{{"call": {values}, "pages": {after.pages}{kept}}}' if after.pages else f'{{"call": {values}}}'


def literal(value: Any) -> str:
    """Return *value* as Python source."""
    match value:
        case np.ndarray():
            return repr([float(one) for one in value])
        case Chunk():
            parts = (value.id, value.document, value.text, value.vector, value.position, value.metadata)
            expires = "" if value.expires is None else f", expires={value.expires!r}"
            return f"Chunk({', '.join(map(literal, parts))}{expires})"
        case Hybrid(text=text, vector=vector):
            return f"Hybrid({text!r}, {literal(vector)})"
        case dict() | Mapping():
            return "{" + ", ".join(f"{literal(name)}: {literal(one)}" for name, one in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(literal, value)) + "]"
        case tuple():
            return "(" + "".join(f"{literal(one)}, " for one in value) + ")"
        case frozenset():
            return f"frozenset({sorted(value)!r})"
    return repr(value) if not isinstance(value, str) else pformat(value, width=10_000)
