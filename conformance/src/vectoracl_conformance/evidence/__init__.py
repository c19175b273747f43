"""E2, evidence from the wire: a recording tap, decoders that read it, and three grades over what they read.

    with Tap.tcp(host, port) as tap:                        # a WireRecorder
        ... open a client that connects to tap.address
        since = tap.mark()
        hits = handle.search(query, k)
        window = Window(since, tap.mark())
        ... close the client
        tap.settle()
    recording = Recording(tap.sessions(), served=...)       # how many sessions the store itself counted
    decoded = [decode(session) for session in recording.sessions]
    question = ScopedCall(tenant, window, min(k, owned), own_canaries, foreign_canaries)

    grade_volume([sample(recording, window, foreign=n, hits=len(hits)), …], owned=…, k=…)
    grade_canaries(recording, decoded, [question])
    grade_structure(recording, decoded, [question], judge)

Decoders: `postgres.decode`, `http1.decoder(rows)`, `grpc.decoder(classes, rows)`, and `by_preface(http1, grpc)` for a
store that speaks both (recorded by `Taps`). Judges: `sql_judge(SqlScope(…))` for SQL, `by_carries(carries)` for a
store's own messages. Everything but the tap is a pure function of what was recorded, and everything that cannot be read
ends in "abstained".
"""

from __future__ import annotations

from vectoracl_conformance.evidence.calls import Canary, ScopedCall
from vectoracl_conformance.evidence.canaries import grade_canaries
from vectoracl_conformance.evidence.exchanges import Decoded, Decoder, Exchange, by_preface
from vectoracl_conformance.evidence.outcome import Graded
from vectoracl_conformance.evidence.sessions import Mark, Recording, Session, Window, WireRecorder
from vectoracl_conformance.evidence.sql_scope import SqlScope, sql_judge
from vectoracl_conformance.evidence.structure import Judge, Proof, by_carries, grade_structure
from vectoracl_conformance.evidence.tap import Tap, Taps
from vectoracl_conformance.evidence.volume import Sample, Traffic, grade_volume, sample, traffic
from vectoracl_conformance.evidence.wire import Wire

__all__ = [
    "Canary",
    "Decoded",
    "Decoder",
    "Exchange",
    "Graded",
    "Judge",
    "Mark",
    "Proof",
    "Recording",
    "Sample",
    "ScopedCall",
    "Session",
    "SqlScope",
    "Tap",
    "Taps",
    "Traffic",
    "Window",
    "Wire",
    "WireRecorder",
    "by_carries",
    "by_preface",
    "grade_canaries",
    "grade_structure",
    "grade_volume",
    "sample",
    "sql_judge",
    "traffic",
]
