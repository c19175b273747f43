"""Harnesses that try to pass without being right; the runner imports them in its worker process."""

import os
import sys

import pytest

from vectoracl_conformance.context.corpus import FIELDS
from vectoracl_conformance.harness import Harness, HarnessError, Needs, Server
from vectoracl_conformance.harnesses.memory import MemoryHarness, MemoryStore
from vectoracl_conformance.isolated.store_service import serve


class _Patched(MemoryHarness):
    """The memory adapter, with `self.cheat()` called when a store is made: in the process where the checks run."""

    def fresh(self, needs):
        self.cheat()
        return super().fresh(needs)

    def cheat(self):
        pass


def _replace_body(id_, body):
    from vectoracl_conformance.checks import CHECKS

    object.__setattr__(CHECKS[id_], "body", body)


class Emptied(_Patched):
    def cheat(self):
        async def nothing(assertions):
            pass

        _replace_body("R2", nothing)


class Returned(_Patched):
    """A check that does one thing and returns before its assertions."""

    def cheat(self):
        async def early(assertions):
            assertions.positive_control(ok=True, what="looks fine")

        _replace_body("W3", early)


class Skipped(_Patched):
    def cheat(self):
        async def skip(assertions):
            pytest.skip("not today")

        _replace_body("R1", skip)


class Xfailed(_Patched):
    def cheat(self):
        async def xfail(assertions):
            pytest.xfail("known")

        _replace_body("R1", xfail)


class Deselected(_Patched):
    def cheat(self):
        from vectoracl_conformance.checks import CHECKS

        CHECKS.pop("S3", None)


class Exits(_Patched):
    """A check ends the process with success, in a way that can be caught."""

    def cheat(self):
        async def leave(assertions):
            sys.exit(0)

        _replace_body("W7", leave)


class Vanishes(_Patched):
    """A check ends the process with success, in a way that cannot be caught."""

    def cheat(self):
        async def vanish(assertions):
            os._exit(0)

        _replace_body("W7", vanish)


class Prints(_Patched):
    """The adapter's side prints a report of its own, and leaves."""

    def cheat(self):
        import json

        from vectoracl_conformance.verdict import MODES, REQUIRED

        for id_ in REQUIRED:
            for mode in MODES:
                note = {"id": id_, "mode": mode, "outcome": "passed", "controls": 1, "attacks": 1}
                sys.stdout.write(json.dumps({"event": "note", "token": "", **note}) + "\n")
        sys.stdout.write(json.dumps({"event": "end", "token": ""}) + "\n")
        sys.stdout.flush()
        os._exit(0)


class _Lying(MemoryHarness):
    """A census that lies: `lie` is text that replaces the function `census`, which was called `right` before."""

    lie = ""

    def fresh(self, needs):
        store = super().fresh(needs)
        store.census_source += f"\nright = census\n{self.lie}"
        return store


class CensusFrozen(_Lying):
    """The census says what was there at first, so that no write is ever seen."""

    lie = """
kept = []
def census(client):
    rows = right(client)
    if not kept and len(rows) > 600:
        kept.append(rows)
    return kept[0] if kept else rows
"""


class CensusOwn(_Lying):
    """The census hides most tenants."""

    lie = """
def census(client):
    rows = right(client)
    return [row for row in rows if row.tag.tenant == rows[0].tag.tenant]
"""


class CensusEmpty(_Lying):
    """The census is empty."""

    lie = """
def census(client):
    return []
"""


class Recognises(MemoryHarness):
    """An adapter that behaves only for tenants whose names it has seen in the kit's source or its documentation."""

    adapter = "recognising"

    def fresh(self, needs):
        store = MemoryStore(needs)
        store.config = store.single = {**store.config, "adapter": "recognising"}
        return store


class NoServer(Harness):
    adapter = "memory"

    def server(self):
        raise HarnessError("There is no server here.")

    def fresh(self, needs):
        raise HarnessError("There is no server here.")


class Crashes(MemoryHarness):
    def fresh(self, needs):
        raise RuntimeError("boom")


class Boasting(MemoryHarness):
    """Calls itself real; the report says so, and the evidence stays what was measured."""

    def server(self):
        return Server("real", "Boast 1")


class _Wrong(MemoryHarness):
    """An installed adapter that is wrong, in every process (`wrong_adapter`)."""

    adapter = "forgetful"

    def fresh(self, needs):
        self.cheat()
        store = MemoryStore(needs)
        store.config = store.single = {**store.config, "adapter": "forgetful"}
        return store


def _teller():
    import gc

    (found,) = (one for one in gc.get_objects() if type(one).__name__ == "Teller")
    return found


class PatchesTheKit(_Wrong):
    """Makes every attack of the kit's in its process succeed."""

    def cheat(self):
        from vectoracl_conformance.context import assertions as assertions
        from vectoracl_conformance.context import oracle

        def count(name):
            return lambda self, *_args, **_given: setattr(self, name, getattr(self, name) + 1)

        assertions.Assertions.assert_safe = count("attacks")
        assertions.Assertions.positive_control = count("controls")
        oracle.Ranked.problem = lambda *_: None


class Forges(_Wrong):
    """Finds what the kit tells with, tells everything as passed, and leaves."""

    def cheat(self):
        from vectoracl_conformance.verdict import MODES, REQUIRED

        teller = _teller()
        for id_ in REQUIRED:
            for mode in MODES:
                if id_ != "X6":
                    teller.tell("note", id=id_, mode=mode, outcome="passed", controls=1, attacks=1)
        teller.tell("serving", metrics=["cosine"])
        honest = MemoryHarness.fresh(self, Needs(16, FIELDS))
        honest.config = {**honest.config, "adapter": "forgetful"}
        self.fresh = lambda needs: honest
        serve(self, sys.stdin, lambda text: teller.tell("answer", part=text, more=False))
        teller.tell("end")
        os._exit(0)


class ForgesAll(_Wrong):
    """Likewise, and tells the one check as passed that is not performed in its process."""

    def cheat(self):
        from vectoracl_conformance.verdict import MODES, REQUIRED

        teller = _teller()
        for id_ in REQUIRED:
            for mode in MODES:
                teller.tell("note", id=id_, mode=mode, outcome="passed", controls=1, attacks=1)
        teller.tell("end")
        os._exit(0)


class OffersAnother(MemoryHarness):
    """Says that it is one adapter, and lets another one be measured out of sight."""

    made = 0

    def fresh(self, needs):
        store = MemoryStore(needs)
        self.made += 1
        if self.made > 1:
            store.config = {**store.config, "adapter": "pgvector"}
        return store


class Floods(_Patched):
    """Talks without an end, in lines that are no events and in one that never ends."""

    def cheat(self):
        teller = _teller()
        while True:
            teller._stream.write("x" * 65536 + "\n" * (os.getpid() % 2))


class Orphans(_Patched):
    """Leaves a child behind that holds the output open, and is gone."""

    def cheat(self):
        if os.fork() == 0:
            import time

            time.sleep(20)
        os._exit(0)


class Hooks(_Patched):
    """Ends the process behind the kit's back: by a timer in a thread, at exit, by a signal."""

    def cheat(self):
        import atexit
        import signal
        import threading

        atexit.register(os._exit, 0)
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        threading.Timer(0.6, os._exit, (0,)).start()
