"""E2v: the same query must cost the same on the wire next to none, some and many foreign rows.

It does not read messages, so it works through TLS and compression, and no encoding can deceive it. For unencrypted
HTTP/2 it ignores the frames that carry no message (`http2`). It cannot see a store that ranks everything and filters at
the end inside the server (filter after LIMIT); E2s and E3 see that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vectoracl_conformance.evidence.outcome import Graded, judged
from vectoracl_conformance.evidence.protocols.http2 import without_control
from vectoracl_conformance.evidence.sessions import Mark, Recording, Session, Window, mark_of

BYTES = 64
SHARE = 0.03


class Traffic(NamedTuple):
    """Bytes to and from the store, and how often the client spoke and was answered."""

    up: int
    down: int
    trips: int


def traffic(sessions: Iterable[Session], window: Window | None = None) -> Traffic:
    """Return the traffic inside *window*, None for everything.

    A round trip is a run of the client's bytes that is followed by bytes of the server, on one connection. HTTP/2's
    control frames do not count as the query's traffic.
    """
    known = tuple(sessions)
    window = window or Window(Mark(), mark_of(known))
    up = down = trips = 0
    for session in known:
        first, last = window.since.place(session.number), window.until.place(session.number)
        asked = False
        for piece in without_control(session).pieces[first.pieces : last.pieces]:
            if not piece.data:
                continue
            if piece.side == "client":
                up += len(piece.data)
                asked = True
            else:
                down += len(piece.data)
                trips += asked
                asked = False
    return Traffic(up, down, trips)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of the query by a separate client, from its first connection to its last close.

    `foreign` is how many rows other tenants had; `hits` how many rows the call returned; `query` is the traffic of
    the call, `whole` that of everything, where a client shows that loads everything when it connects.
    """

    foreign: int
    hits: int
    query: Traffic
    whole: Traffic
    doubts: tuple[str, ...] = ()


def sample(
    recording: Recording,
    window: Window,
    *,
    foreign: int,
    hits: int,
    requests: int | None = None,
    uncounted: bool = False,
) -> Sample:
    """Return the sample of *recording*; *requests* were decoded of it.

    *uncounted* is for managed stores, which count neither sessions nor requests.
    """
    return Sample(
        foreign,
        hits,
        traffic(recording.sessions, window),
        traffic(recording.sessions),
        recording.doubts(requests=requests, uncounted=uncounted),
    )


def grade_volume(samples: Sequence[Sample], *, owned: int, k: int) -> Graded:
    """Grade the same query at none, some and many foreign rows; several samples of a level show the noise.

    The least of a level counts. Equal round trips, and bytes within 64 or 3 % in each direction.
    """
    levels: dict[int, list[Sample]] = {}
    for one in samples:
        levels.setdefault(one.foreign, []).append(one)
    facts: dict[str, Any] = {
        "owned": owned,
        "k": k,
        "levels": [
            {"foreign": level, "query": [list(one.query) for one in some], "whole": [list(one.whole) for one in some]}
            for level, some in sorted(levels.items())
        ],
    }
    doubts = [f"{one.foreign} foreign rows: {doubt}" for one in samples for doubt in one.doubts]
    doubts += _controls(levels, owned, k)
    breaches: list[str] = []
    if len(levels) > 1 and not any("dropped" in doubt for doubt in doubts):
        for part in ("query", "whole"):
            _compare(part, [(level, [getattr(one, part) for one in levels[level]]) for level in sorted(levels)],
                     breaches, doubts)  # fmt: skip
    return judged("E2v", breaches, doubts, facts)


def _controls(levels: dict[int, list[Sample]], owned: int, k: int) -> list[str]:
    doubts = []
    if not 0 < owned < k:
        doubts.append(f"the tenant has to own some rows and fewer than k: {owned} owned, k = {k}")
    if len(levels) < 3 or 0 not in levels or max(levels) < 10 * k:
        doubts.append(f"it takes three levels, the first without foreign rows, the last with at least {10 * k}")
    for level, some in levels.items():
        for one in some:
            if one.hits != owned:
                doubts.append(f"control: {one.hits} of {owned} own rows came back next to {level} foreign ones")
            if not one.query.up or not one.query.down:
                doubts.append(f"the query itself sent or fetched nothing next to {level} foreign rows")
    return doubts


def _compare(part: str, levels: list[tuple[int, list[Traffic]]], breaches: list[str], doubts: list[str]) -> None:
    for name in Traffic._fields:
        rows = [(level, [getattr(one, name) for one in some]) for level, some in levels]
        least = [min(values) for _, values in rows]
        noise = max(max(values) - min(values) for _, values in rows)
        allowed = 0 if name == "trips" else max(BYTES, SHARE * least[0])
        spread = max(least) - min(least)
        if spread <= allowed:
            continue
        unit = "round trips" if name == "trips" else f"bytes {name}"
        figures = ", ".join(f"{value} next to {level}" for value, (level, _) in zip(least, rows, strict=True))
        text = f"{part}: {unit} follow the foreign rows: {figures} (allowed difference {allowed:g})"
        if spread > allowed + noise:
            breaches.append(text)
        else:
            doubts.append(f"{text}, but samples of one level differ by {noise}")
