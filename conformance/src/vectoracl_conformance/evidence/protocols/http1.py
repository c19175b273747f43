"""HTTP/1.1 from the first byte of a connection: requests with their responses, bodies decoded.

h11 reads both directions; what it does not read (an upgrade, CONNECT, TLS, HTTP/2, a transfer coding other than
chunked) and a content coding that is not known make the session doubtful.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import h11

from vectoracl_conformance.evidence.exchanges import CannotDecodeError, Decoded, Decoder, Exchange
from vectoracl_conformance.evidence.sessions import Session

_PART = 65536
_LARGEST = 256 * 1024 * 1024
Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request. Header names are in lower case; `body` has its content coding undone."""

    method: str
    target: str
    headers: Headers
    body: bytes = field(repr=False)

    def header(self, name: str) -> str:
        """Return a header's value, empty if it is not there."""
        return dict(self.headers).get(name, "")

    def json(self) -> Any:
        """Return the body as JSON. Raises: ValueError."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One response, as `HttpRequest`."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the body as JSON. Raises: ValueError."""
        return json.loads(self.body)


CountRows = Callable[[HttpRequest, HttpResponse], int | None]


def decoder(rows: CountRows) -> Decoder:
    """Return the decoder of a store; *rows* counts the rows of a response, None where it cannot."""

    def decode(session: Session) -> Decoded:
        return _decode(session, rows)

    return decode


def _decode(session: Session, rows: CountRows) -> Decoded:
    exchanges: list[Exchange] = []
    doubts: list[str] = []
    try:
        for exchange in _exchanges(session, rows):
            exchanges.append(exchange)  # what was read before a problem stays
    except CannotDecodeError as error:
        doubts.append(str(error))
    except h11.ProtocolError as error:
        doubts.append(f"not HTTP/1.1 ({error})")
    return Decoded(tuple(exchanges), tuple(f"connection {session.number}: {doubt}" for doubt in doubts))


def _exchanges(session: Session, rows: CountRows) -> Iterator[Exchange]:
    client, server = session.stream("client"), session.stream("server")
    if client[:2] == b"\x16\x03":
        raise CannotDecodeError("encrypted")
    if client.startswith(b"PRI * HTTP/2"):
        raise CannotDecodeError("HTTP/2")
    up = down = 0
    number = 0
    closed = session.closed is not None
    while up < len(client):
        number += 1
        start = up
        head, request, up = _request(client, up)
        if down >= len(server):
            yield Exchange(session.number, number, start, _name(request), request, (), None, complete=False)
            continue
        response, informed, down = _response(server, down, head, closed=closed)
        values = (*informed, _lines(response.headers), response.body, *_unescaped(response.body))
        counted: int | None
        try:
            counted = rows(request, response)
        except Exception:  # noqa: BLE001 - a store's own code; what it cannot read is not counted
            counted = None
        yield Exchange(session.number, number, start, _name(request), request, values, counted, complete=True)
    if down < len(server):
        raise CannotDecodeError("an answer that nothing asked for")


def _name(request: HttpRequest) -> str:
    return f"{request.method} {request.target.partition('?')[0]}"


def _feed(connection: h11.Connection, stream: bytes, at: int, *, closed: bool) -> Iterator[Any]:
    """Yield the events of one message from *at* on; the last thing yielded is where it ended."""
    fed = at
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if fed < len(stream):
                connection.receive_data(stream[fed : fed + _PART])
                fed += len(stream[fed : fed + _PART])
            elif closed:
                connection.receive_data(b"")
                closed = False
            else:
                raise CannotDecodeError("a message is cut off")
            continue
        if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise CannotDecodeError("a message is cut off, or the protocol is changed")
        yield event
        if isinstance(event, h11.EndOfMessage):
            yield fed - len(connection.trailing_data[0])
            return


def _request(stream: bytes, at: int) -> tuple[h11.Request, HttpRequest, int]:
    body: list[bytes] = []
    head: h11.Request | None = None
    end = at
    for event in _feed(h11.Connection(h11.SERVER, max_incomplete_event_size=_PART), stream, at, closed=True):
        if isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, int):
            end = event
    if head is None:
        raise CannotDecodeError("a request is cut off")
    if head.method == b"CONNECT" or any(name == b"upgrade" for name, _ in head.headers):
        raise CannotDecodeError("the protocol is changed")
    headers = _headers(head.headers)
    decoded = _plain(b"".join(body), headers)
    return head, HttpRequest(head.method.decode("latin-1"), head.target.decode("latin-1"), headers, decoded), end


def _response(
    stream: bytes, at: int, asked: h11.Request, *, closed: bool
) -> tuple[HttpResponse, tuple[bytes, ...], int]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=_PART)
    connection.send(asked)
    body: list[bytes] = []
    informed: list[bytes] = []
    answer: h11.Response | None = None
    end = at
    for event in _feed(connection, stream, at, closed=closed):
        if isinstance(event, h11.InformationalResponse):
            if event.status_code == 101:
                raise CannotDecodeError("the protocol is changed")
            informed.append(_lines(_headers(event.headers)))
        elif isinstance(event, h11.Response):
            answer = event
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            informed.append(_lines(_headers(event.headers)))
        elif isinstance(event, int):
            end = event
    if answer is None:
        raise CannotDecodeError("a response is cut off")
    headers = _headers(answer.headers)
    data = b"".join(body)
    return HttpResponse(answer.status_code, headers, _plain(data, headers) if data else data), tuple(informed), end


def _headers(raw: Any) -> Headers:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)


def _lines(headers: Headers) -> bytes:
    return "\n".join(f"{name}: {value}" for name, value in headers).encode("latin-1", "replace")


def _plain(body: bytes, headers: Headers) -> bytes:
    codings = [
        one.strip().lower()
        for name, value in headers
        if name == "content-encoding"
        for one in value.split(",")
        if one.strip()
    ]
    for coding in reversed(codings):
        body = inflate(body, coding)
    return body


def inflate(body: bytes, coding: str) -> bytes:
    """Undo one content coding. Raises: CannotDecodeError if it is not known or the data is not whole."""
    if coding in ("", "identity"):
        return body
    if coding in ("gzip", "x-gzip"):
        return _zlib(body, (31,))
    if coding == "deflate":
        return _zlib(body, (15, -15))  # zlib's format by the standard; some servers send the bare one
    raise CannotDecodeError(f"the content coding {coding}")


def _zlib(body: bytes, kinds: tuple[int, ...]) -> bytes:
    for kind in kinds:
        output = b""
        rest = body
        try:
            while rest:  # gzip's form may have several members
                work = zlib.decompressobj(kind)
                output += work.decompress(rest, max(1, _LARGEST - len(output)))
                if not work.eof:
                    raise CannotDecodeError("compressed data that is cut off or too large")
                rest = work.unused_data
                if rest and kind != 31:
                    raise CannotDecodeError("bytes after compressed data")
        except zlib.error:
            continue
        return output
    raise CannotDecodeError("compressed data that cannot be read")


def _unescaped(body: bytes) -> tuple[bytes, ...]:
    """Return the texts of a JSON body in which some are escaped, so that a canary is found however it was written."""
    if b"\\" not in body:
        return ()
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    texts: list[str] = []
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            texts.append(one)
        elif isinstance(one, dict):
            texts.extend(one)
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return tuple(text.encode("utf-8", "surrogatepass") for text in texts)
