"""A check has so many seconds: one that takes longer is said to, whatever it makes of being cut off."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from vectoracl_conformance.context import perform
from vectoracl_conformance.context.registry import Check
from vectoracl_conformance.running import run_checks


async def sleep(assertions):
    await asyncio.sleep(30)


async def sleep_on(assertions):
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        await asyncio.sleep(0)


async def cancel(assertions):
    assertions.attacks = assertions.controls = 1
    raise asyncio.CancelledError


def limited(body, limit):
    context = SimpleNamespace(recorder=[], mode="async")
    check = Check("R1", "a check", "an attack", "a breach", body)
    options = perform.Options("memory", limit=limit)
    return asyncio.run(run_checks._limited(perform.perform(check, context, options), "R1", options))


@pytest.mark.parametrize("body", [sleep, sleep_on])
def test_a_check_that_takes_too_long_was_not_run_and_says_why(body):
    note = limited(body, 0.05)
    assert note.outcome == "not run"
    assert note.reason == "it took longer than 0.05 s; give it more with --timeout"
    assert "--only R1" in note.reproduce


def test_what_an_adapter_cancels_is_not_a_limit_that_was_passed():
    note = limited(cancel, 30)
    assert note.outcome == "not run"
    assert "CancelledError" in note.reason
