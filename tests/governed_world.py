"""The real governed flows, driven step by step in drawn orders, and judged after every step.

One episode is one tenant with a few documents, and several actors: readers, writers, governors, reconcilers. A step of
an actor is one request to the registry or to the store. On a store of the kind "conditional" a write is taken apart
into a step for each chunk. One actor may crash at any step, and the rest of its write then arrives late, at any moment.

"blind" is such a store without conditions: who writes a label has read the `rev` before, and what arrives late is
written whatever is there; it arrives within `request_seconds`. "lagging" is a blind one whose reads show, chunk by
chunk, any state of the last `LAG` seconds. There answers may lack what was written lately, and nothing else.
The judge does not use the registry's code: it reads the tables and applies the definition of who may see what.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from dataclasses import replace as replaced
from typing import Any

from vectoracl import ALWAYS, Access, Chunk, Entry, StoreError, VectorACLError, hazmat
from vectoracl.adapter_api.operations import Delete, Relabel, Upsert
from vectoracl.engine.arguments import INCLUDE
from vectoracl.engine.core_ports import Sleep, WriteRecord
from vectoracl.engine.governing import Rounds
from vectoracl.engine.handle import UNSET
from vectoracl.filters.semantics import compile_test
from vectoracl.memory.ports import ChangeLabels, Perform
from vectoracl.registry.requests import Publish, RegistryRequest, RenewLease
from vectoracl.registry.scopes import Quarantine
from vectoracl.testing import principal

V = [1.0, 0.0, 0.0]
MAX_READ = 30.0
SOURCES = {"drive": 25.0, "wiki": 600.0}
"""The sources of rights, and for how many seconds each is believed."""
LAG = 20.0
"""How far a read of a store of the kind "lagging" may lag behind, in seconds; less than `max_read_seconds`."""


class BreachError(AssertionError):
    """An invariant does not hold; its text begins with the invariant's name."""


@dataclass
class Actor:
    name: str
    flow: Any
    pieces: deque[Any] = field(default_factory=deque)
    request: Any = None
    value: Any = None
    error: Exception | None = None
    started: bool = False
    ended: str = ""
    result: Any = None
    since: int = 0
    judge: Any = None


class World:
    """One VectorACL over the memory store, with a clock that is moved by steps."""

    def __init__(self, acl, clock, kind):
        self.acl, self.clock, self.kind = acl, clock, kind
        acl.registry.database._clock = clock
        acl.pipeline.clock = acl.pipeline.monotonic = clock
        acl.pipeline.decision_ttl = 3600.0  # so that cached scopes live as long as the registry lets them
        named = acl._stores["main"]
        adapter = named.store.adapter
        lags, blind = kind == "lagging", kind in ("blind", "lagging")
        adapter._capabilities = replaced(
            adapter.capabilities,
            relabel="blind" if blind else kind,
            governed_numbers="rows" if blind else "store",
            visible="eventual" if lags else "immediate",
        )
        self.random = random.Random(0)
        self.past: dict[str, list[tuple[float, dict[Any, Any]]]] = {}
        self.port = named.port
        self.store = named.store
        self.path = acl.registry.path

    def perform(self, request):
        if isinstance(request, RegistryRequest):
            return request.perform(self.acl.registry)
        if isinstance(request, WriteRecord):
            return None
        if isinstance(request, Sleep):
            self.clock.now += request.seconds
            return None
        if request.port != "store":
            return self.acl.core_port.execute(request, None)
        if self.kind == "lagging" and isinstance(request, Perform) and not request.writes:
            return self.lagging(request)
        try:
            return self.port.execute(request, None)
        finally:
            self.remember(request.partition)

    def remember(self, partition):
        """Note how the partition is now, for reads that lag behind."""
        if self.kind == "lagging" and partition is not None:
            kept = self.past.setdefault(partition, [])
            if not kept or kept[-1][1] != self.rows(partition):
                kept.append((self.clock.now, dict(self.rows(partition))))
            while len(kept) > 1 and kept[1][0] <= self.clock.now - LAG:
                kept.pop(0)

    def lagging(self, request):
        """Answer with each chunk as it was at some moment of the last `LAG` seconds."""
        partition, shelf = request.partition, self.port._shelf
        self.remember(partition)
        states = [state for _, state in self.past[partition]]
        shown = {}
        for key in {key for state in states for key in state}:
            row = self.random.choice(states).get(key)
            if row is not None:
                shown[key] = row
        real = shelf.partitions.get(partition)
        shelf.partitions[partition], shelf.writes = shown, shelf.writes + 1
        try:
            return self.port.execute(request, None)
        finally:
            shelf.partitions[partition], shelf.writes = real if real is not None else {}, shelf.writes + 1

    def pieces(self, request):
        """Return the parts of a write that a store without transactions does one after the other; None if it is one."""
        if self.kind == "transaction":
            return None
        match request:
            case Perform(partition=partition, operation=Upsert(records=records, verbatim=True) as one):
                return [Perform(partition, replaced(one, records=(record,))) for record in records]
            case ChangeLabels(partition=partition, operation=Relabel(changes=changes)):
                blind = self.kind != "conditional"
                return [
                    OneLabel(partition, change, key[2], blind)
                    for change in changes
                    for key, row in sorted(self.rows(partition).items())
                    if key[:2] == (change.document, change.generation) and not (blind and row.tag.rev >= change.rev)
                ]
            case Perform(partition=partition, operation=Delete(where=where)) if where is not None:
                test = compile_test(where)
                rows = self.rows(partition)
                return [OneDelete(partition, key) for key in sorted(rows) if test(rows[key].tag, {})]
        return None

    def rows(self, partition):
        return self.port._shelf.partitions.get(partition, {})

    def apply(self, piece):
        """Do one part of a write, now; it is decided by what the chunk carries at this moment."""
        self.port._shelf.writes += 1
        if isinstance(piece, OneDelete):
            self.rows(piece.partition).pop(piece.key, None)
        elif isinstance(piece, OneLabel):
            change = piece.change
            key = (change.document, change.generation, piece.chunk)
            row = self.rows(piece.partition).get(key)
            if row is not None and (piece.blind or row.tag.rev < change.rev):
                tag = row.tag._replace(label=change.label, expires=change.expires, rev=change.rev)
                self.rows(piece.partition)[key] = row._replace(tag=tag)
        else:
            self.perform(piece)
        self.remember(piece.partition)


@dataclass(frozen=True)
class OneLabel:
    partition: str
    change: Any
    chunk: str
    blind: bool = False


@dataclass(frozen=True)
class OneDelete:
    partition: str
    key: tuple[str, int, str]


class Episode:
    """One drawn schedule over one new tenant."""

    def __init__(self, world, number, seed, only=None, crash=0.02):
        """Draw from *seed*; *only* are the kinds of actors, and *crash* is how likely one stops at a step."""
        self.world, self.random = world, random.Random(seed)
        self.only, self.crash_rate = only, crash
        self.held = {}
        self.quiet = False
        self.tenant = f"t{number}"
        reason = "an episode of schedules"
        self.govern = hazmat.govern(world.acl, self.tenant, reason=reason)
        self.ann = principal("ann", self.tenant, groups=["hr"])
        self.bob = principal("bob", self.tenant)
        self.labels = {"open": [Entry("tenant", write=True)], "hr": [Entry("group:hr", write=True)]}
        for name, entries in self.labels.items():
            self.finish(self.govern._define(name, None, {}, entries, False, False, reason)[1])
        self.actors: list[Actor] = []
        self.late: list[Any] = []
        self.last_moment = float("inf")
        self.crashes = 1
        self.steps = 0
        self.made = 0
        for document in ("x", "y"):
            self.finish(self.upsert(document, 3 if document == "x" else 2))
        if self.random.random() < 0.6:
            world.clock.now += MAX_READ + 1
            self.rounds()
        self.truths = [self.truth()]

    # --- actors ---

    def upsert(self, document, count=2):
        self.made += 1
        chunks = [Chunk(id=f"c{i}", document=document, text=f"{self.made}", vector=V) for i in range(count)]
        return self.world.acl.scoped(self.ann)._upsert(chunks)[1]

    def replace(self, document):
        self.made += 1
        chunks = [Chunk(id=f"n{self.made}-{i}", document=document, text="new", vector=V) for i in range(2)]
        return self.world.acl.scoped(self.ann)._replace(document, chunks)[1]

    def delete(self, document):
        docs, how = self.world.acl.scoped(self.ann), self.random.randrange(3)
        if how == 0:
            return docs._delete(UNSET, document, UNSET)[1]
        if how == 1:
            return docs._delete([(document, "c0")], UNSET, UNSET)[1]
        return docs._delete(UNSET, UNSET, ALWAYS)[1]

    def reconcile(self):
        """Return the flow of rounds until nothing more can be written now."""
        rounds = self.govern._rounds(100, MAX_READ if self.random.random() < 0.5 else 0.0, None)
        while (wait := rounds.after((yield from self.govern._round(rounds)[1]))) is not None:
            yield Sleep(wait)
        return rounds.total

    def rounds(self):
        rounds = self.govern._rounds(100, 0.0, None)
        while rounds.after(self.finish(self.govern._round(rounds)[1])) is not None:
            pass
        return rounds.total

    def sweep(self):
        names = yield from self.govern._expired(100, 1.0, "reason")[1]
        for _, flow in self.govern._parts(names, "sweep", "reason"):
            yield from flow

    def feed(self, source, *records):
        """Return the flow of a feed; without records it is a heartbeat."""
        feed = self.govern._feed(records or [Access(self.world.clock.now)], source)
        for part in feed.parts():
            yield from self.govern._part(feed, part, "reason")[1]
        yield from self.govern._was_read(feed, "reason")[1]

    def said(self, names):
        """Return a drawn record of a source on each of *names*, perhaps one of an earlier moment."""
        r, now = self.random, self.world.clock.now
        given = {
            "valid_until": r.choice([None, None, now + 20.0]),
            **r.choice(
                [
                    {"label": "open"},
                    {"label": "hr"},
                    {"entries": (Entry("tenant", write=True),)},
                    {"entries": (Entry("tenant", write=True), Entry("user:bob", allow=False))},
                    {"entries": (Entry("group:hr", write=True),)},
                    {"entries": ()},
                ]
            ),
        }
        return [Access(now - r.choice([0.0, 0.0, 3.0, 40.0]), name, **given) for name in names]

    def kinds(self):
        g, r, w = self.govern, self.random, self.world
        document = r.choice("xy")
        names = ["x", "y"] if r.random() < 0.3 else [document]
        until = w.clock.now + r.choice([0, 5, 60])
        yield "search", 6, lambda: w.acl.scoped(self.bob)._search((V,), **ASK)[1]
        yield "count", 3, lambda: w.acl.scoped(self.bob)._count(ALWAYS)[1]
        yield "move to hr", 2, lambda: g._point(names, "hr", "r", create=False)[1]
        yield "move to open", 2, lambda: g._point(names, "open", "r", create=False)[1]
        yield "hold", 2, lambda: g._hold(names, r.choice("mn"), "reason")[1]
        yield "release", 2, lambda: g._release(None, r.choice("mn"), "reason")[1]
        yield "retain", 1, lambda: g._retain(names, until, "reason")[1]
        yield "extend", 1, lambda: g._retain(names, None, "reason")[1]
        yield "narrow", 1, lambda: g._define("open", None, {}, [Entry("group:hr", write=True)], False, False, "")[1]
        yield "widen", 1, lambda: g._define("open", None, {}, self.labels["open"], False, False, "")[1]
        yield "quarantine", 1, lambda: g._quarantine(rule(f"q{len(self.actors)}", document), "reason")[1]
        source = r.choice(sorted(SOURCES))
        yield "feed", 3, lambda: self.feed(source, *self.said(names))
        yield "heartbeat", 1, lambda: self.feed(source)
        yield "upsert", 2, lambda: self.upsert(document)
        yield "create", 1, lambda: self.upsert(f"n{len(self.actors)}")
        yield "replace", 2, lambda: self.replace(document)
        yield "delete", 2, lambda: self.delete(document)
        yield "erase", 1, lambda: next(g._parts(names, "erase", "reason"))[1]
        yield "sweep", 1, lambda: self.sweep()
        yield "reconcile", 6, lambda: self.reconcile()

    def begin(self):
        kinds = [one for one in self.kinds() if self.only is None or one[0] in self.only]
        name, _, make = self.random.choices(kinds, [weight for _, weight, _ in kinds])[0]
        try:
            actor = Actor(name, make(), since=len(self.truths) - 1)
        except VectorACLError:
            return
        self.actors.append(actor)

    # --- steps ---

    def run(self, actors=7):
        for _ in range(actors):
            self.begin()
            for _ in range(self.random.randrange(12)):
                self.step()
        while any(not one.ended for one in self.actors):
            self.step()
        while self.late:
            self.land()
        self.settle()

    def step(self):
        self.steps += 1
        if self.steps > 3000:
            raise BreachError("I5: an actor does not end")
        chance = self.random.random()
        if self.late and chance < 0.1:
            self.land()
            return
        if chance < 0.15:
            self.wait(self.random.choice([0.5, 3.0, MAX_READ + 1, 200.0] if self.blind else [0.5, 3.0, MAX_READ + 1]))
            self.note()
        alive = [one for one in self.actors if not one.ended]
        if not alive:
            return
        actor = self.random.choice(alive)
        if self.crashes and actor.name not in READERS and self.random.random() < self.crash_rate:
            self.crash(actor)
        else:
            self.move(actor)

    @property
    def blind(self):
        return self.world.kind in ("blind", "lagging")

    def wait(self, seconds):
        """Let time pass; on a blind store a request arrives at its last moment, or never."""
        if self.blind and self.world.clock.now + seconds >= self.last_moment:
            while self.late:
                self.land()
        self.world.clock.now += seconds

    def land(self):
        self.world.apply(self.late.pop(self.random.randrange(len(self.late))))
        self.check_held()

    def crash(self, actor):
        self.crashes -= 1
        pieces = list(actor.pieces)
        request = actor.request
        if not pieces and request is not None and getattr(request, "writes", False):
            pieces = self.world.pieces(request) or [request]
        self.late += pieces[: None if self.world.kind == "transaction" else 1]
        self.last_moment = self.world.clock.now + self.world.acl.registry.settings.request_seconds - 1
        actor.ended = "crashed"
        actor.flow.close()

    def move(self, actor):
        if actor.request is None and not actor.ended:
            self.advance(actor, None, None)  # up to its first request
            return
        if not actor.pieces:
            actor.pieces.extend(self.world.pieces(actor.request) or ())
            if not actor.pieces:
                value, error = self.do(actor.request)
                self.advance(actor, value, error)
                return
        self.world.apply(actor.pieces.popleft())
        self.check_held()
        if not actor.pieces:
            self.advance(actor, self.answer(actor.request), None)

    def answer(self, request):
        match request:
            case Perform(operation=Upsert(records=records)):
                return len(records)
            case ChangeLabels(operation=labels):
                return sum(
                    key[:2] == (change.document, change.generation)
                    for change in labels.changes
                    for key in self.world.rows(request.partition)
                )
        return 1

    def do(self, request):
        if isinstance(request, tuple):
            return tuple(self.value_of(one) for one in request), None
        try:
            value = self.world.perform(request)
        except VectorACLError as error:
            return None, error
        finally:
            if isinstance(request, RegistryRequest):
                self.note()
            self.check_held()
        return value, None

    def value_of(self, request):
        value, error = self.do(request)
        return value if error is None else error

    def advance(self, actor, value, error):
        actor.request = None
        try:
            first = not actor.started
            actor.started = True
            if first:
                actor.since = len(self.truths) - 1
            actor.request = actor.flow.send(None if first else value) if error is None else actor.flow.throw(error)
        except StopIteration as stop:
            actor.ended, actor.result = "done", stop.value
            self.judge(actor)
        except VectorACLError as failed:
            actor.ended, actor.error = "failed", failed

    def until(self, flow, stop):
        """Run *flow* alone up to the request for which *stop* holds; the client dies there. Return the request."""
        value, error = None, None
        while True:
            request = flow.send(value) if error is None else flow.throw(error)
            if stop(request):
                flow.close()
                return request
            value, error = None, None
            try:
                value = self.world.perform(request)
            except VectorACLError as caught:
                error = caught

    def late_deletion(self):
        """A deletion whose client dies arrives when the document was erased by another one and written again."""
        erasing = self.until(
            next(self.govern._parts(["x"], "erase", "r"))[1], lambda one: isinstance(one, Perform) and one.writes
        )
        self.world.clock.now += MAX_READ + 1
        self.rounds()
        self.wait(LAG + 1)  # where reads lag behind, a round does not see yet that the chunks are gone
        self.rounds()
        self.finish(self.upsert("x", 3))
        self.settle()
        self.world.perform(erasing)
        self.settle()

    def late_label(self):
        """A label whose client dies arrives when a newer one was written, if one may be."""
        self.wait(MAX_READ + 1)
        self.rounds()
        self.finish(self.govern._hold(["x"], "m", "r")[1])
        labels = self.until(self.govern._round(Rounds(100, 0.0, None))[1], lambda one: isinstance(one, ChangeLabels))
        self.late = self.world.pieces(labels)
        if self.blind:  # sent at the end of its lease, and under way for as long as a request may be
            settings = self.world.acl.registry.settings
            self.last_moment = self.world.clock.now + settings.ticket_seconds + settings.request_seconds - 2
        self.finish(self.govern._release(None, "m", "r")[1])
        self.wait(MAX_READ + 1)
        self.rounds()
        self.wait(90)  # the lease has ended, and the request is still under way
        self.rounds()
        if not self.blind:
            self.settle()
        while self.late and not self.blind:
            self.land()
        self.settle()

    def paused_writer(self):
        """Who writes labels pauses for longer than its lease, and goes on when another one has written newer labels."""
        self.wait(MAX_READ + 1)
        self.rounds()
        self.finish(self.govern._hold(["x"], "m", "r")[1])
        paused = Actor("reconcile", self.govern._round(Rounds(100, 0.0, None))[1])
        while not isinstance(paused.request, RenewLease):
            self.move(paused)
        renewal = paused.request
        self.move(paused)
        pieces = self.world.pieces(paused.request)  # it has read which chunks have a lower rev
        self.finish(self.govern._release(None, "m", "r")[1])
        self.wait(300)
        self.rounds()
        with suppress(StoreError):
            self.world.perform(renewal)  # as before each of its requests
            for piece in pieces:
                self.world.apply(piece)
        paused.flow.close()
        self.settle()

    def half_published(self):
        """A read that began before meets a new document of whose chunks some carry its label already."""
        self.wait(MAX_READ + 1)
        self.rounds()
        reader = Actor("search", self.world.acl.scoped(self.bob)._search((V,), **ASK)[1])
        while not (isinstance(reader.request, Perform) and not reader.request.writes):
            self.move(reader)
        labels = self.until(self.upsert("new", 3), lambda one: isinstance(one, ChangeLabels))
        self.note()
        self.world.apply(self.world.pieces(labels)[0])
        while not reader.ended:
            self.move(reader)
        if reader.ended != "done":
            raise BreachError(f"I3: the read ended with {reader.error}")
        self.settle()

    def stale_replica(self):
        """Labels were written and counted, and a replica still shows what was before."""
        self.wait(MAX_READ + 1)
        self.rounds()
        self.finish(self.govern._point(["x"], "hr", "r", create=False)[1])
        self.wait(MAX_READ + 1)
        for _ in range(200):  # until the count, too, has met replicas that are up to date
            if self.rounds().left == 0:
                break
        self.truths = [self.truth()]
        for name in ("count", "search") * 5:
            bob, actor = self.world.acl.scoped(self.bob), Actor(name, None)
            with suppress(StoreError):  # rights that seem to change
                actor.result = self.finish((bob._count(ALWAYS) if name == "count" else bob._search((V,), **ASK))[1])
                self.judge(actor)
        self.settle()

    def slow_read(self):
        """A read takes longer than any may, while its document is replaced and the old version removed."""
        self.overtaken(MAX_READ + 1)

    def quick_read(self):
        """A document is replaced while it is read, and reconcile runs at once."""
        self.overtaken(0.0)

    def overtaken(self, seconds):
        self.world.clock.now += MAX_READ + 1
        self.rounds()
        self.finish(self.govern._hold(["x"], "m", "r")[1])
        self.finish(self.govern._release(None, "m", "r")[1])  # so that it is read by its generation, not by its label
        self.truths = [self.truth()]
        actor = Actor("search", self.world.acl.scoped(self.bob)._search((V,), **ASK)[1])
        while not (isinstance(actor.request, Perform) and not actor.request.writes):
            self.move(actor)
        self.finish(self.replace("x"))
        self.note()
        self.world.clock.now += seconds
        self.rounds()
        while not actor.ended:
            self.move(actor)
        if actor.ended != "done":
            raise BreachError(f"I3: the read ended with {actor.error}")
        self.settle()

    def stopped_writer(self):
        """A writer goes on after its ticket has ended and its chunks were removed."""
        publish = self.until(self.replace("x"), lambda one: isinstance(one, Publish))
        for _ in range(2):  # the first takes the ticket back, the second removes the chunks
            self.world.clock.now += 1000
            self.rounds()
        self.world.perform(publish)
        self.settle()

    def stale_source(self):
        """A source becomes stale between two reads, and nothing else happens."""
        self.finish(self.feed("drive", Access(self.world.clock.now, "x", label="open")))
        for seconds in (0.0, SOURCES["drive"]):
            self.wait(seconds)
            self.truths = [self.truth()]
            actor = Actor("search", None)
            actor.result = self.finish(self.world.acl.scoped(self.bob)._search((V,), **ASK)[1])
            self.judge(actor)
        self.settle()

    def two_matters(self):
        """One of two matters is released."""
        for matter in "mn":
            self.finish(self.govern._hold(["x"], matter, "r")[1])
        self.finish(self.govern._release(None, "m", "r")[1])
        self.settle()

    def finish(self, flow):
        """Run *flow* alone to its end."""
        value, error = None, None
        while True:
            try:
                request = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value
            value, error = None, None
            try:
                value = (
                    tuple(self.world.perform(one) for one in request)
                    if isinstance(request, tuple)
                    else self.world.perform(request)
                )
            except VectorACLError as caught:
                error = caught

    # --- the judge ---

    def truth(self):
        """Return what bob may see by the tables: the generation and the number of chunks of each document."""
        with sqlite3.connect(self.world.path) as tables:
            now = self.world.acl.registry.database._latest
            now = max(now, self.world.clock.now)
            entries = tables.execute("SELECT label, subject FROM vectoracl_entries WHERE tenant = ?", (self.tenant,))
            allowed = {label for label, subject in entries if subject == "tenant"}
            records: dict[str, dict[str, tuple[float, Any]]] = {}
            for document, source, as_of, content in tables.execute(
                "SELECT document, source, as_of, content FROM vectoracl_access WHERE tenant = ?", (self.tenant,)
            ):
                records.setdefault(document, {})[source] = as_of, json.loads(content)
            read = dict(
                tables.execute(
                    "SELECT source, as_of FROM vectoracl_sources WHERE tenant = ?", (self.tenant,)
                ).fetchall()
            )
            rules = tables.execute("SELECT document FROM vectoracl_quarantine WHERE tenant = ?", (self.tenant,))
            excluded = {document for (document,) in rules}
            documents = tables.execute(
                "SELECT d.document, d.label, d.state, d.generation, d.expires, d.chunks, "
                "(SELECT count(*) FROM vectoracl_holds h WHERE h.tenant = d.tenant AND h.document = d.document) "
                "FROM vectoracl_documents d WHERE d.tenant = ?",
                (self.tenant,),
            ).fetchall()
        tables.close()
        return {
            document: (generation, chunks)
            for document, label, state, generation, expires, chunks, matters in documents
            if state == "live"
            and generation is not None
            and expires > now
            and not matters
            and (permits(records[document], read, allowed, now) if document in records else label in allowed)
            and document not in excluded
        }

    def note(self):
        truth = self.truth()
        if truth != self.truths[-1]:
            self.truths.append(truth)

    def judge(self, actor):
        self.note()
        window = self.truths[actor.since :]
        if actor.name == "count":
            possible = {sum(chunks for _, chunks in truth.values()) for truth in window}
            fewer = self.world.kind == "lagging" and not self.quiet and actor.result <= max(possible)
            if actor.result not in possible and not fewer:
                raise BreachError(f"I1: count returned {actor.result}, permitted were {sorted(possible)}")
        if actor.name == "search":
            self.judge_hits(actor.result[0].hits, window)

    def judge_hits(self, hits, window):
        shown = {}
        for hit in hits:
            shown.setdefault(hit.document, []).append(hit.tag.generation)
        for document, generations in shown.items():
            ever = {truth[document][0] for truth in window if document in truth}
            if not ever:
                raise BreachError(f"I1: {document} was returned, and never permitted since the read began")
            if len(set(generations)) > 1 or generations[0] not in ever:
                raise BreachError(f"I4: generations {sorted(set(generations))} of {document} were returned")
            whole = {truth[document][1] for truth in window if document in truth}
            if len(generations) not in whole and self.world.kind != "lagging":
                raise BreachError(f"I4: {len(generations)} chunks of {document} were returned, of {whole}")
        if self.world.kind == "lagging" and not self.quiet:
            return  # an answer may lack what was written lately
        for document in window[0]:
            if all(document in truth for truth in window):
                generations = shown.get(document, [])
                counts = {truth[document] for truth in window}
                if not any(len(generations) == chunks for one, chunks in counts if generations[:1] in ([], [one])):
                    raise BreachError(f"I3: {len(generations)} chunks of {document} were returned, of {counts}")

    def check_held(self):
        with sqlite3.connect(self.world.path) as tables:
            held = tables.execute(
                "SELECT d.document, d.generation, d.chunks FROM vectoracl_documents d WHERE d.tenant = ? AND EXISTS "
                "(SELECT 1 FROM vectoracl_holds h WHERE h.tenant = d.tenant AND h.document = d.document)",
                (self.tenant,),
            ).fetchall()
        tables.close()
        rows = self.world.rows(self.tenant)
        self.held = {document: self.held.get(document, generation) for document, generation, _ in held}
        for document, generation, chunks in held:
            if generation != self.held[document]:
                raise BreachError(f"I2: the held document {document} was replaced")
            there = sum(key[:2] == (document, generation) for key in rows)
            if generation is not None and there != chunks:
                raise BreachError(f"I2: {there} of {chunks} chunks of the held document {document} are left")

    def settle(self):
        """When everything is quiet the overlay is empty and answers equal the definition."""
        for _ in range(12):
            self.wait(max(MAX_READ, 121))
            report = self.rounds()
            if report.left == 0:
                break
        else:
            raise BreachError(f"I5: {report.left} documents stay in the overlay: {report.incomplete}")
        if self.random.random() < 0.5:
            for source in SOURCES:
                self.finish(self.feed(source))
        self.note()
        self.wait(LAG + 1)
        self.world.remember(self.tenant)
        self.quiet = True
        actor = Actor("search", None, since=len(self.truths) - 1)
        try:
            actor.result = self.finish(self.world.acl.scoped(self.bob)._search((V,), **ASK)[1])
        except VectorACLError as error:
            raise BreachError(f"I3: a quiet read fails: {error}") from None
        self.judge(actor)
        actor.name, actor.result = "count", self.finish(self.world.acl.scoped(self.bob)._count(ALWAYS)[1])
        self.judge(actor)
        if self.world.acl.registry.overlay_size(self.tenant):
            raise BreachError("I5: a quiet read put a document into the overlay")


READERS = {"search", "count"}
ASK = {
    "k": 100,
    "where": ALWAYS,
    "min_score": None,
    "group_by": None,
    "per_group": 1,
    "include": INCLUDE,
    "exact": False,
    "tuning": {},
}


def permits(records, read, allowed, now):
    """Return whether bob may see a document of which each source says a record of *records*, and governors "*"."""
    source, (_, content) = max(records.items(), key=lambda one: (one[1][0], one[0] == "*", one[0]))
    if source == "*":
        return content["label"] in allowed
    fresh = {name for name, age in SOURCES.items() if read.get(name, 0.0) > 0 and read[name] + age > now}
    if content.get("valid_until", float("inf")) <= now:
        return False
    if not any(name in fresh and said == content for name, (_, said) in records.items()):
        return False
    if "label" in content:
        return content["label"] in allowed
    entries = {one["subject"]: one["allow"] for one in map(json.loads, content["entries"])}
    return entries.get("tenant", False) and entries.get("user:bob", True)


def rule(name, document):
    return Quarantine(name, document=document)


__all__ = ["SOURCES", "BreachError", "Episode", "StoreError", "World"]
