"""R16: reads and deletes with a negated scope during concurrent writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from vectoracl.errors import DeniedError, StoreError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, F, Predicate
from vectoracl.model.records import Chunk, Hit, Vector
from vectoracl_conformance.context.assertions import Assertions, Unsupported
from vectoracl_conformance.context.check_context import AwaitableHandle, CheckContext
from vectoracl_conformance.context.registry import check

INSIDE = 12
ROUNDS = 2
SECONDS = 4.0
"""How long the reads of one scope go on at the most, before the deletes: a slow store is asked fewer times."""
_TURNS = 15
_BATCH = 6
_TRIES = 40


def scopes(lang: str, document: str) -> list[tuple[str, Predicate]]:
    """Return scopes that leave out what is of *lang* or in *document*: each with a negation, at several depths."""
    return [
        ("!=", F.lang != lang),
        ("~, not_in and is_missing", ~(F.lang == lang) & F.year.not_in([7, 8]) & F.note.is_missing()),
        ("~ of a list", ~F.tags.contains(lang)),
        ("deep", ~(((F.lang == lang) & (F.year > 6)) | ~(F.live == False)) | (F["@document"] == f"no {document}")),  # noqa: E712
    ]


@check(
    "R16",
    "a scope with a negation holds during concurrent writes",
    attack=(
        "Count, facet, search, fetch, scan and delete with a scope that excludes certain rows, while other writers "
        "add, rewrite and delete such rows, in threads or as tasks."
    ),
    breach=(
        "A row outside of the scope is counted, listed, returned or deleted, because the store evaluates a negation "
        "over two of its states; or a row inside is missing, although the store does not declare delayed "
        "visibility."
    ),
    optional=True,
)
async def r16_negation_holds_while_others_write(t: Assertions) -> None:
    context = t.context
    own, lang = context.tenant(), context.rng.word()
    vectors = [context.vector(0.2 + 0.01 * place) for place in range(INSIDE)]
    inside = [f"i-{context.rng.word()}" for _ in range(INSIDE)]
    await context.plant(own, [_inside(name, vector) for name, vector in zip(inside, vectors, strict=True)])
    flips = [f"f-{context.rng.word()}" for _ in range(4)]
    await context.plant(own, [_outside(one, vectors[0], lang, 0) for one in flips])
    context.store.settle()
    acks: list[str] = []
    refused, answered = 0, 0
    for name, scope in scopes(lang, "d"):
        try:
            handle = context.handle(own).narrow(scope)
            await handle.count() if context.client.adapter.capabilities.count != "none" else await handle.search(
                vectors[0]
            )
        except UnsupportedPredicateError:
            refused += 1
            continue
        answered += 1
        context.store.settle()
        await _read(t, name, handle, inside, flips, vectors[0])
        batch = min(_BATCH, context.client.adapter.capabilities.max_batch)
        # Drawn before anything runs side by side, so that a seed repeats them.
        names = [[f"o-{context.rng.word()}" for _ in range(batch)] for _ in range(64)]
        ends: list[bool] = []
        writers = [
            _writer(context, own, lang, names[place::2], flips[place::2], vectors[0], acks, ends) for place in (0, 1)
        ]
        reader = _reader(t, own, name, handle, inside, flips, names, vectors[0], ends)
        await context.together([reader, *writers], width=len(writers) + 1)
    if not answered:
        t.assert_safe(refused > 0, "scopes with a negation", "they are refused", "")
        raise Unsupported("scopes with a negation")
    await _last(context, own, lang)
    there = {row.tag.chunk for row in context.census() if row.tag.tenant == own}
    t.assert_equal(
        [], sorted(set(acks) - there), "delete by a negated scope", "an acknowledged row outside of it is gone"
    )
    t.positive_control(there.isdisjoint(inside), "what is inside is deleted at the end", len(there & set(inside)))


def _lags(context: CheckContext) -> bool:
    """Tell whether the store says that it shows writes later: a row inside may then be missing for a while."""
    return context.client.adapter.capabilities.visible == "eventual"


async def _last(context: CheckContext, own: str, lang: str) -> None:
    """Delete what is inside once more, where a delete concurrent with writers may not have seen all of it."""
    context.store.settle()
    if _lags(context):
        for _, scope in scopes(lang, "d"):
            with contextlib.suppress(UnsupportedPredicateError):
                await _again(context, partial(context.handle(own).narrow(scope).delete, where=ALWAYS))
        context.store.settle()


def _inside(name: str, vector: Vector) -> Chunk:
    return Chunk(name, "d", "inside", vector, metadata={"lang": "in", "year": 1, "live": False, "tags": ["in"]})


def _outside(name: str, vector: Vector, lang: str, turn: int) -> Chunk:
    metadata = {"lang": lang, "year": 7 + turn % 2, "live": True, "tags": [lang, "in"], "note": f"{lang}{turn % 2}"}
    return Chunk(name, "d", "outside", vector, metadata=metadata)


async def _again(context: CheckContext, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Ask again where the store asks for it."""
    for attempt in range(_TRIES):
        try:
            return await make()
        except StoreError as error:
            if attempt == _TRIES - 1 or not (error.retryable or error.code == "conflict"):
                raise
            await context.pause(0.01)
    raise AssertionError("unreachable")


def _writer(
    context: CheckContext, own: str, lang: str, names: list[list[str]], flips: list[str], vector: Vector,
    kept: list[str], done: list[bool],
) -> Callable[[], Coroutine[Any, Any, None]]:  # fmt: skip
    """Write rows outside, take most of them away again, and rewrite others in place, until the reader is done."""
    handle = context.handle(own)

    async def work() -> None:
        for turn in range(_TURNS):
            if done:
                return
            some = names[turn % len(names)]
            await _again(context, partial(handle.upsert, [_outside(one, vector, lang, turn) for one in some]))
            kept.append(some[0])
            await _again(context, partial(handle.upsert, [_outside(one, vector, lang, turn) for one in flips]))
            await _again(context, partial(handle.delete, ids=[("d", one) for one in some[1:]]))
            await context.pause(0.005)

    return work


def _reader(
    t: Assertions, own: str, name: str, handle: AwaitableHandle, inside: list[str], flips: list[str],
    names: list[list[str]],
    vector: Vector, done: list[bool],
) -> Callable[[], Coroutine[Any, Any, None]]:  # fmt: skip
    context = t.context

    async def work() -> None:
        try:
            begun = time.monotonic()
            for turn in range(ROUNDS):
                if turn and time.monotonic() - begun > SECONDS:
                    break
                await _read(t, name, handle, inside, [*flips, *names[turn]], vector, lags=_lags(context))
            await _delete(t, own, name, handle, inside, [*flips, *names[0]], vector)
        finally:
            done.append(True)

    async def _delete(
        t: Assertions,
        own: str,
        name: str,
        handle: AwaitableHandle,
        inside: list[str],
        others: list[str],
        vector: Vector,
    ) -> None:
        ids = [("d", one) for one in (*inside, *others)]
        which: dict[str, Any]
        for which in ({"where": ALWAYS}, {"ids": ids}, {"document": "d"}):
            written = await _again(context, partial(handle.delete, **which))
            if written.count is not None:
                _number(t, len(inside), written.count, f"delete, {next(iter(which))}, by {name}", lags=_lags(context))
            await _again(context, partial(context.plant, own, [_inside(one, vector) for one in inside]))
        try:
            await handle.upsert([_inside(others[0], vector)])
        except (DeniedError, StoreError) as error:
            refused = isinstance(error, DeniedError) or error.retryable or error.code == "conflict"
            t.assert_safe(refused, f"upsert by {name} over a row outside", type(error).__name__, "it is denied")
        else:
            t.assert_safe(
                safe=False, attacked=f"upsert by {name} over a row outside", back="written", why="it is denied"
            )
        if name == "deep":
            await _again(context, partial(handle.delete, where=ALWAYS))

    return work


def _number(t: Assertions, most: int, found: int, attacked: str, *, lags: bool) -> None:
    """Judge a number of rows: of none that was outside at every moment."""
    if lags:
        t.assert_safe(found <= most, attacked, found, f"{most} rows inside at the most")
    else:
        t.assert_equal(most, found, attacked, "the rows inside, and none of those that are being written")


def _rows(t: Assertions, right: list[str], hits: Iterable[Hit], attacked: str, *, lags: bool) -> list[str]:
    ids = sorted(hit.id for hit in hits)
    if lags:
        safe = set(ids) <= set(right) and len(set(ids)) == len(ids)
        t.assert_safe(safe, attacked, ids, "only rows inside, each once")
    else:
        t.assert_equal(right, ids, attacked, "the rows inside, and none of those that are being written")
    return ids


async def _read(
    t: Assertions, name: str, handle: AwaitableHandle, inside: list[str], others: list[str], vector: Vector, *,
    lags: bool = False
) -> None:  # fmt: skip
    """Read in every way. Where the store *lags* rows inside may be missing; none outside may ever be there."""
    context, can = t.context, t.context.client.adapter.capabilities
    right = sorted(inside)
    if can.count != "none":
        _number(t, len(right), await _again(context, handle.count), f"count by {name}", lags=lags)
    if can.facets != "none":
        facets = await _again(context, partial(handle.facets, "lang"))
        t.assert_safe(
            {value for value, _ in facets} <= {"in"}, f"facets by {name}", facets, "no value of a row outside"
        )
        _number(t, len(right), sum(number for _, number in facets), f"facets by {name}", lags=lags)
    hits = await _again(context, partial(handle.search, vector, min(can.max_k, len(right) + 20)))
    _rows(t, right, hits, f"search by {name}", lags=lags or not hits.complete)
    ids = [("d", one) for one in (*inside, *others)]
    _rows(t, right, await _again(context, partial(handle.fetch, ids)), f"fetch by {name}", lags=lags)
    scanned_ids = _rows(t, right, await _again(context, partial(handle.all, size=5)), f"scan by {name}", lags=lags)
    t.positive_control(lags or len(scanned_ids) == len(right), "the rows inside are seen", len(scanned_ids))
