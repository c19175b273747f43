"""The decoders on what official clients and real servers said to each other (`recordings/record.py` made them)."""

from __future__ import annotations

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vectoracl_conformance.evidence import (
    Decoded,
    Exchange,
    Mark,
    Recording,
    ScopedCall,
    Session,
    Window,
    by_preface,
    grade_canaries,
)
from vectoracl_conformance.evidence.protocols import grpc, http1
from vectoracl_conformance.evidence.protocols.http1 import HttpRequest, HttpResponse
from vectoracl_conformance.evidence.sessions import mark_of

SERVICE = "/weaviate.v1.Weaviate/"
METHODS = ("Search", "BatchObjects", "BatchDelete", "Aggregate")
OWN = frozenset({"canary-aa-3-", "canary-aa-19-", "canary-aa-single-"})
FOREIGN = frozenset({"canary-bb-3-", "canary-bb-19-", "canary-bb-single-"})


def _recordings() -> ModuleType:
    path = Path(__file__).parent / "recordings" / "record.py"
    spec = importlib.util.spec_from_file_location("evidence_recordings", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


load = _recordings().load


class Raw(bytes):
    """A message as it came, for where the client's own classes are not installed."""

    @classmethod
    def FromString(cls, data: bytes, /) -> Raw:  # noqa: N802 - protobuf's name
        return cls(data)


RAW: dict[str, Any] = dict.fromkeys(
    [f"{SERVICE}{one}" for one in METHODS] + ["/grpc.health.v1.Health/Check"], (Raw, Raw)
)


def real() -> dict[str, Any]:
    """Return the classes of the official client."""
    pytest.importorskip("weaviate", reason="weaviate-client is not installed")
    from weaviate.proto.v1 import aggregate_pb2, batch_delete_pb2, batch_pb2, health_weaviate_pb2, search_get_pb2

    places = dict(zip(METHODS, (search_get_pb2, batch_pb2, batch_delete_pb2, aggregate_pb2), strict=True))
    made = {f"{SERVICE}{one}": (getattr(at, f"{one}Request"), getattr(at, f"{one}Reply")) for one, at in places.items()}
    health = health_weaviate_pb2
    made["/grpc.health.v1.Health/Check"] = (health.WeaviateHealthCheckRequest, health.WeaviateHealthCheckResponse)
    return made


def raw_rows(call: grpc.Call) -> int | None:
    """Count the texts in a reply of words as they are."""
    return sum(reply.count(b"canary-") for reply in call.replies) if call.path == f"{SERVICE}Search" else 0


def real_rows(call: grpc.Call) -> int | None:
    """Count the rows of a reply."""
    return sum(len(reply.results) for reply in call.replies) if call.path == f"{SERVICE}Search" else 0


def rest_rows(request: HttpRequest, response: HttpResponse) -> int | None:
    """Nothing of this store's REST is a list of rows here."""
    return response.body.count(b"canary-")


def decoded(sessions: tuple[Session, ...], classes: dict[str, Any], rows: grpc.CountRows) -> list[Decoded]:
    decode = by_preface(http1.decoder(rest_rows), grpc.decoder(classes, rows))
    return [decode(session) for session in sessions]


def calls(parts: list[Decoded], name: str) -> list[Exchange]:
    return [one for part in parts for one in part.exchanges if one.name == name]


@pytest.fixture(scope="module")
def weaviate() -> tuple[Session, ...]:
    return load("weaviate")  # type: ignore[no-any-return]


@pytest.fixture(params=["raw", "client's classes"])
def parts(request: pytest.FixtureRequest, weaviate: tuple[Session, ...]) -> list[Decoded]:
    return decoded(weaviate, RAW, raw_rows) if request.param == "raw" else decoded(weaviate, real(), real_rows)


def test_every_byte_is_understood(parts: list[Decoded]) -> None:
    assert [part.doubts for part in parts] == [() for _ in parts]
    every = [one for part in parts for one in part.exchanges]
    assert all(one.complete for one in every)
    counted = Counter(one.name for one in every)
    assert counted["/grpc.health.v1.Health/Check"] == 1
    assert counted[f"{SERVICE}Search"] == 16 + 3 + 2 + 1
    assert counted["POST /v1/objects"] == 2
    assert counted["DELETE /v1/schema/Kit"] == 1


def test_replies_are_attributed_by_stream_although_calls_interleave(parts: list[Decoded]) -> None:
    searches = calls(parts, f"{SERVICE}Search")[:16]
    for place, one in enumerate(searches):
        tenant, other = (b"aa", b"bb") if place % 2 == 0 else (b"bb", b"aa")
        text = b"".join(one.values)
        assert b"canary-" + tenant in text
        assert b"canary-" + other not in text
        assert one.rows == 5 + place // 2


def test_a_compressed_reply_is_read(parts: list[Decoded]) -> None:
    (one,) = [one for one in calls(parts, f"{SERVICE}Search") if one.rows == 21 and b"gzip" in one.values[-1]]
    assert dict(one.request.metadata)["grpc-encoding"] == "gzip"
    assert b'canary-bb-3- "\xc3\xa9"' in b"".join(one.values)


def test_refusals_come_with_their_text(parts: list[Decoded]) -> None:
    refused = [one for one in calls(parts, f"{SERVICE}Search") if one.request.status != "0"]
    assert len(refused) == 2
    assert b"tenant" in refused[0].values[-1]
    assert all(one.rows == 0 for one in refused)


def test_requests_can_be_judged(weaviate: tuple[Session, ...]) -> None:
    searches = calls(decoded(weaviate, real(), real_rows), f"{SERVICE}Search")
    assert [one.request.requests[0].tenant for one in searches[:4]] == ["aa", "bb", "aa", "bb"]
    assert searches[0].request.requests[0].limit == 5


def test_the_grade_sees_the_foreign_reply(weaviate: tuple[Session, ...]) -> None:
    parts = decoded(weaviate, RAW, raw_rows)
    every = Window(Mark(), mark_of(weaviate))
    heard = Recording(weaviate, answered=sum(len(part.exchanges) for part in parts))
    graded = grade_canaries(heard, parts, [ScopedCall("aa", every, 50, OWN, FOREIGN)])
    assert graded.outcome == "failed"
    assert any("canary-bb-3-" in reason for reason in graded.reasons)
    everyone = [ScopedCall("aa", every, 50, frozenset({"canary-aa-", "canary-bb-"}))]
    assert grade_canaries(heard, parts, everyone).outcome == "passed"
    fewer = replace(heard, answered=(heard.answered or 0) + 1)  # one went past the tap
    assert grade_canaries(fewer, parts, everyone).outcome == "abstained"


def test_a_reply_that_was_cut_abstains(weaviate: tuple[Session, ...]) -> None:
    (session,) = [one for one in weaviate if one.number == 2]  # the async client's calls
    reply = next(
        place for place, piece in enumerate(session.pieces) if b"canary-aa-19-" in piece.data and piece.side == "server"
    )
    half = session.pieces[reply]._replace(data=session.pieces[reply].data[: len(session.pieces[reply].data) // 2])
    cut = replace(session, pieces=(*session.pieces[:reply], half))
    (part,) = decoded((cut,), RAW, raw_rows)
    assert part.doubts


def test_needledb_speaks_http_with_compressed_bodies() -> None:
    sessions = load("needledb")
    parts = [http1.decoder(rest_rows)(session) for session in sessions]
    assert [part.doubts for part in parts] == [() for _ in parts]
    every = [one for part in parts for one in part.exchanges]
    assert all(one.complete for one in every)
    queries = [one for one in every if one.name.endswith("/query")]
    assert len(queries) == 3
    for one, gzipped in ((queries[0], False), (queries[2], True)):
        assert any(b"content-encoding: gzip" in value for value in one.values) is gzipped
        assert b"canary-aa-" in b"".join(one.values)
        assert b"canary-bb-" not in b"".join(one.values)
        (session,) = [session for session in sessions if session.number == one.session]
        # A blind tap sees no word in what is compressed, an own one neither.
        assert (b"canary-aa-" in session.stream("server")) is not gzipped
