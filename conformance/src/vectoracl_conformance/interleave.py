"""Runs several flows in every possible order of their requests, for the tests of an adapter.

Flows are driven step by step against a store that performs one request at a time. `schedules` runs them once for each
order of their steps, each time from the same initial state; one of them may stop after any step, like a process that is
killed. Between two steps a test can look at the store as a reader does. `outcomes` are the permitted results: those of
some order of all acknowledged writes and any subset of the others.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, Literal

from vectoracl.adapter_api.contract import Flow
from vectoracl.errors import StoreError, VectorACLError

State = Mapping[str, str]
"""The visible state of a document: the text of each chunk, by its id."""
Effect = Callable[[dict[str, str]], dict[str, str]]
"""The effect of one write on a document, if nothing else happens."""
Frozen = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Actor:
    """A flow under way: how many steps it has made, and how it ended."""

    flow: Flow[Any]
    waiting: deque[Any] = field(default_factory=deque)
    whole: Any = None
    steps: int = 0
    ended: Literal["", "done", "failed", "died"] = ""
    value: Any = None
    error: VectorACLError | None = None

    @property
    def undone(self) -> bool:
        """Whether it failed and says that nothing was written."""
        return self.ended == "failed" and (not isinstance(self.error, StoreError) or self.error.sent == "no")


@dataclass(slots=True)
class World:
    """A store in its first state, and the flows that meet in it.

    `perform` performs one request. `pieces` takes one apart that a server does not do in one go, in the order in which
    it does them; None where it is done in one go. `look` is called after every step.
    """

    flows: Sequence[Flow[Any]]
    perform: Callable[[Any], Any]
    look: Callable[[], None] = lambda: None
    pieces: Callable[[Any], Sequence[Any] | None] = lambda _: None


class Ended(list[Actor]):
    """The actors of one schedule, in the order of their flows; `schedule` is who made each step."""

    schedule: tuple[int, ...] = ()


def schedules(
    make: Callable[[], World], *, dies: tuple[int, int] | None = None, sample: int | None = None, seed: int = 0
) -> Iterator[Ended]:
    """Run the flows of a new world in every order of their steps, or in *sample* drawn ones.

    *dies* is a flow's number and after how many of its steps it dies.
    """
    if sample is not None:
        draw = random.Random(seed)  # noqa: S311 - a schedule is not a secret
        for _ in range(sample):
            yield _run(make(), dies, lambda choices, _: draw.randrange(choices))
        return
    path: list[list[int]] = []  # at each place: which choice, of how many

    def choose(choices: int, at: int) -> int:
        if at == len(path):
            path.append([0, choices])
        return path[at][0]

    while True:
        yield _run(make(), dies, choose)
        while path and path[-1][0] + 1 == path[-1][1]:
            path.pop()
        if not path:
            return
        path[-1][0] += 1


def deaths(make: Callable[[], World], who: int, **more: Any) -> Iterator[Ended]:
    """Run every schedule in which flow *who* dies, after each number of its steps."""
    after = 0
    while True:
        died = False
        for ended in schedules(make, dies=(who, after), **more):
            if ended[who].ended == "died":
                died = True
                yield ended
        if not died:
            return
        after += 1


def _run(world: World, dies: tuple[int, int] | None, choose: Callable[[int, int], int]) -> Ended:
    actors = Ended(Actor(flow) for flow in world.flows)
    for actor in actors:
        _advance(actor, world, None, first=True)
    schedule: list[int] = []
    while True:
        if dies is not None and not actors[dies[0]].ended and actors[dies[0]].steps == dies[1]:
            actors[dies[0]].ended = "died"
            actors[dies[0]].flow.close()
        alive = [number for number, actor in enumerate(actors) if not actor.ended]
        if not alive:
            actors.schedule = tuple(schedule)
            return actors
        number = alive[choose(len(alive), len(schedule))] if len(alive) > 1 else alive[0]
        if len(alive) == 1:
            choose(1, len(schedule))
        schedule.append(number)
        _step(actors[number], world)
        world.look()
        if len(schedule) > 2000:
            raise AssertionError("The flows do not end.")


def _step(actor: Actor, world: World) -> None:
    """Perform the next piece of what the flow waits for; continue the flow when that was the last."""
    actor.steps += 1
    piece = actor.waiting.popleft()
    reply: Any
    try:
        if isinstance(piece, tuple):
            reply = tuple(world.perform(one) for one in piece)
        else:
            reply = world.perform(piece)
    except VectorACLError as error:
        actor.waiting.clear()
        _advance(actor, world, error)
        return
    if not actor.waiting:
        _advance(actor, world, reply)


def _advance(actor: Actor, world: World, reply: Any, *, first: bool = False) -> None:
    try:
        if isinstance(reply, VectorACLError):
            step = actor.flow.throw(reply)
        else:
            step = next(actor.flow) if first else actor.flow.send(reply)
    except StopIteration as stop:
        actor.ended, actor.value = "done", stop.value
        return
    except VectorACLError as error:
        actor.ended, actor.error = "failed", error
        return
    actor.waiting.extend(world.pieces(step) or (step,))


# What may come out


def frozen(state: State) -> Frozen:
    """Return *state* so that it can be in a set."""
    return frozenset(state.items())


def outcomes(start: State, effects: Sequence[Effect], actors: Sequence[Actor]) -> set[Frozen]:
    """Return what may be there at the end: any order of all acknowledged writes, and of any of those in doubt."""
    sure = [number for number, actor in enumerate(actors) if actor.ended == "done"]
    doubtful = [number for number, actor in enumerate(actors) if actor.ended != "done" and not actor.undone]
    states: set[Frozen] = set()
    for bits in range(1 << len(doubtful)):
        some = [*sure, *(one for place, one in enumerate(doubtful) if bits >> place & 1)]
        states.update(frozen(_applied(start, [effects[one] for one in order])) for order in permutations(some))
    return states


def moments(start: State, effects: Sequence[Effect], *, again: int = 1) -> set[Frozen]:
    """Return what may be seen in between: any of the writes in any order, each up to *again* times."""
    numbers = [number for number in range(len(effects)) for _ in range(again)]
    return {
        frozen(_applied(start, [effects[one] for one in order]))
        for size in range(len(numbers) + 1)
        for order in set(permutations(numbers, size))
    }


def _applied(start: State, effects: Sequence[Effect]) -> dict[str, str]:
    state = dict(start)
    for effect in effects:
        state = effect(state)
    return state
