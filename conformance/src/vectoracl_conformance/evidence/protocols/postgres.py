"""PostgreSQL's frontend/backend protocol, version 3, from the first byte of a connection: what was executed.

Both streams are read on their own and then brought together by order, which is what the protocol guarantees
(documentation, "Message Flow"), so nothing depends on how bytes travelled. COPY, the function call protocol,
replication, TLS and GSSAPI are not read: they make the session doubtful.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vectoracl_conformance.evidence.exchanges import CannotDecodeError, Decoded, Exchange
from vectoracl_conformance.evidence.protocols.postgres_settings import Settings, SettingsInForce
from vectoracl_conformance.evidence.protocols.postgres_values import Param, param
from vectoracl_conformance.evidence.sessions import Session
from vectoracl_conformance.evidence.sql.tokens import Token, TokenError, statements

_SSL, _GSS, _CANCEL = 80877103, 80877104, 80877102
_MOST = 1 << 30


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as it was executed: its text, its parameters and the settings in force when it began.

    `startup` are the connection's parameters (user, database, options). `declined` is the error that came instead of
    rows.
    """

    sql: str
    params: tuple[Param, ...]
    settings: Settings
    startup: tuple[tuple[str, str], ...] = ()
    declined: bool = False


class _Message(NamedTuple):
    kind: str
    body: bytes
    at: int


@dataclass(slots=True)
class _Step:
    """One message of the client that is answered, or that closes a group."""

    kind: str
    at: int
    name: str = ""
    of: str = ""
    sql: str = ""
    raw: tuple[tuple[bytes | None, bool], ...] = ()
    types: tuple[int, ...] = ()
    values: list[bytes] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    rows: int = 0
    done: bool = False
    failed: bool = False
    state: str = ""


def decode(session: Session) -> Decoded:
    """Decode one session. Raises nothing: what cannot be read is a doubt."""
    reader = _Reader(session)
    try:
        reader.read()
    except CannotDecodeError as error:
        reader.doubts.append(str(error))
    except (ValueError, struct.error, IndexError) as error:
        reader.doubts.append(f"a message could not be read ({type(error).__name__})")
    exchanges: list[Exchange] = []
    try:
        for exchange in reader.exchanges():
            exchanges.append(exchange)  # what was read before a problem stays
    except CannotDecodeError as error:
        reader.doubts.append(str(error))
    except (ValueError, struct.error, IndexError) as error:
        reader.doubts.append(f"a parameter could not be read ({type(error).__name__})")
    prefix = f"connection {session.number}: "
    return Decoded(tuple(exchanges), tuple(prefix + doubt for doubt in reader.doubts))


class _Reader:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.client = session.stream("client")
        self.server = session.stream("server")
        self.doubts: list[str] = []
        self.steps: list[_Step] = []
        self.startup: tuple[tuple[str, str], ...] = ()
        self.before: list[bytes] = []

    # --- reading

    def read(self) -> None:
        at, back = self._start()
        if at < 0:
            return
        problem: CannotDecodeError | None = None
        try:
            self._client(at)
        except CannotDecodeError as error:
            problem = error
        self._server(back)
        if problem is not None:
            raise problem

    def _start(self) -> tuple[int, int]:
        """Read the untyped messages; return where the typed ones begin, -1 if there are none."""
        at = back = 0
        while True:
            if at == len(self.client):
                if self.server[back:]:
                    raise CannotDecodeError("the server spoke first")
                return -1, back
            if len(self.client) - at < 8:
                raise CannotDecodeError("cut off inside the start")
            length, code = struct.unpack_from(">iI", self.client, at)
            if not 8 <= length <= 10_000:
                raise CannotDecodeError("not PostgreSQL's protocol")
            if at + length > len(self.client):
                raise CannotDecodeError("cut off inside the start")
            body = self.client[at + 8 : at + length]
            at += length
            if code == _CANCEL:
                return -1, back
            if code in (_SSL, _GSS):
                answer = self.server[back : back + 1]
                if answer == b"":
                    if at < len(self.client):
                        raise CannotDecodeError("no answer to the question for encryption")
                    return -1, back
                if answer != b"N":
                    raise CannotDecodeError("encrypted, or an error instead of an answer to the question for it")
                back += 1
                continue
            if code >> 16 != 3:
                raise CannotDecodeError(f"protocol version {code >> 16}")
            self._parameters(body)
            return at, back

    def _parameters(self, body: bytes) -> None:
        parts = body.split(b"\0")
        names = [part.decode() for part in parts[: parts.index(b"")]]
        if len(names) % 2:
            raise CannotDecodeError("odd start parameters")
        self.startup = tuple(zip(names[::2], names[1::2], strict=True))
        known = dict(self.startup)
        if "replication" in known:
            raise CannotDecodeError("a replication connection")
        if known.get("client_encoding", "UTF8").strip("'").upper().replace("-", "") not in (
            "UTF8",
            "UNICODE",
            "SQL_ASCII",
        ):
            raise CannotDecodeError("a client encoding other than UTF-8")

    def _messages(self, stream: bytes, at: int, who: str) -> Iterator[_Message]:
        while at < len(stream):
            if len(stream) - at < 5:
                raise CannotDecodeError(f"the last message of the {who} is cut off")
            (length,) = struct.unpack_from(">I", stream, at + 1)
            if not 4 <= length <= _MOST:
                raise CannotDecodeError(f"a message of the {who} with an impossible length")
            if at + 1 + length > len(stream):
                raise CannotDecodeError(f"the last message of the {who} is cut off")
            yield _Message(chr(stream[at]), stream[at + 5 : at + 1 + length], at)
            at += 1 + length

    def _client(self, at: int) -> None:
        ended = False
        for message in self._messages(self.client, at, "client"):
            if ended:
                raise CannotDecodeError("bytes after the end of the connection")
            kind, body = message.kind, message.body
            step = _Step(kind, message.at)
            match kind:
                case "Q":
                    step.sql = _text(body, 0)[0]
                case "P":
                    step.name, place = _text(body, 0)
                    step.sql, place = _text(body, place)
                    (count,) = struct.unpack_from(">h", body, place)
                    step.types = struct.unpack_from(f">{count}I", body, place + 2)
                case "B":
                    self._bind(step, body)
                case "D" | "C":
                    step.of, step.name = body[:1].decode(), _text(body, 1)[0]
                case "E":
                    step.name = _text(body, 0)[0]
                case "S":
                    pass
                case "p" | "H":
                    continue  # the password, or a flush: not answered
                case "X":
                    ended = True
                    continue
                case "d" | "c" | "f":
                    raise CannotDecodeError("COPY")
                case "F":
                    raise CannotDecodeError("the function call protocol")
                case _:
                    raise CannotDecodeError(f"an unknown message {kind!r} of the client")
            self.steps.append(step)

    @staticmethod
    def _bind(step: _Step, body: bytes) -> None:
        step.name, place = _text(body, 0)
        step.of, place = _text(body, place)
        (count,) = struct.unpack_from(">h", body, place)
        formats = struct.unpack_from(f">{count}h", body, place + 2)
        place += 2 + 2 * count
        (count,) = struct.unpack_from(">h", body, place)
        place += 2
        if len(formats) not in (0, 1, count):
            raise CannotDecodeError("a bind with formats that do not fit")
        raw: list[tuple[bytes | None, bool]] = []
        for index in range(count):
            (length,) = struct.unpack_from(">i", body, place)
            place += 4
            code = formats[0] if len(formats) == 1 else (formats[index] if formats else 0)
            if code not in (0, 1) or length < -1 or place + max(0, length) > len(body):
                raise CannotDecodeError("a bind that could not be read")
            raw.append((None if length < 0 else body[place : place + length], code == 1))
            place += max(0, length)
        step.raw = tuple(raw)

    def _server(self, at: int) -> None:
        place = 0
        greeted = skipping = False
        loose = self.before
        for message in self._messages(self.server, at, "server"):
            kind, body = message.kind, message.body
            if kind in "NA":
                (self.steps[place].values if greeted and place < len(self.steps) else loose).append(body)
                continue
            if kind == "S":
                self._status(body)
                continue
            if not greeted:
                if kind == "Z":
                    greeted = True
                elif kind == "E":
                    loose.append(body)
                    return  # refused; what the client sent after it was not read
                elif kind not in "RKv":
                    raise CannotDecodeError(f"an unexpected message {kind!r} of the server at the start")
                continue
            if kind == "E" and place >= len(self.steps):
                loose.append(body)  # the server ends the session by itself
                continue
            if place >= len(self.steps):
                raise CannotDecodeError("an answer that nothing asked for")
            step = self.steps[place]
            if kind == "Z":
                if step.kind not in "QS":
                    raise CannotDecodeError("the server is ready inside of a group of messages")
                step.state, step.done, skipping = body.decode(), True, False
                place += 1
                continue
            if kind in "GHWdc":
                raise CannotDecodeError("COPY")
            if skipping:
                raise CannotDecodeError("an answer after an error")
            place, skipping = self._answer(step, kind, body, place)

    def _answer(self, step: _Step, kind: str, body: bytes, place: int) -> tuple[int, bool]:
        """Take one message of the server; return which step is next and whether the rest of its group is skipped."""
        if kind == "E":
            step.failed = True
            step.values.append(body)
            if step.kind in "QS":
                return place, False
            while place < len(self.steps) and self.steps[place].kind not in "SQ":
                self.steps[place].failed = True
                place += 1
            return place, True
        if kind not in _ANSWERS[step.kind]:
            raise CannotDecodeError(f"the answer {kind!r} to {step.kind!r}")
        match kind:
            case "D":
                step.rows += 1
                step.values.extend(_columns(body))
            case "t":
                (count,) = struct.unpack_from(">h", body)
                step.types = struct.unpack_from(f">{count}I", body, 2)
            case "C" | "I":
                step.counts.append(step.rows)
        if step.kind == "Q" or kind == "D" or (step.kind == "D" and kind == "t"):
            return place, False
        step.done = True
        return place + 1, False

    def _status(self, body: bytes) -> None:
        name, place = _text(body, 0)
        value = _text(body, place)[0]
        if name == "client_encoding" and value not in ("UTF8", "SQL_ASCII"):
            raise CannotDecodeError("a client encoding other than UTF-8")
        if name == "standard_conforming_strings" and value != "on":
            raise CannotDecodeError("standard_conforming_strings is off")

    # --- telling

    def exchanges(self) -> Iterator[Exchange]:
        number = 0
        if self.before:
            yield Exchange(self.session.number, number, 0, "notices", None, tuple(self.before), 0, complete=True)
        names = _Names()
        force = SettingsInForce()
        for step in self.steps:
            for call in self._step(step, names, force):
                number += 1
                yield Exchange(
                    self.session.number, number, step.at, call.name, call.statement, call.values, call.rows,
                    complete=step.done,
                )  # fmt: skip

    def _step(self, step: _Step, names: _Names, force: SettingsInForce) -> list[_Told]:
        calls: list[_Told] = []
        if step.kind == "Q":
            names.prepared.pop("", None)
            calls = self._simple(step, names, force)
        elif step.kind == "E" and (portal := names.portal(step)) is not None:
            bind, source = portal
            params = _params(bind, source)
            calls = [self._told(source.sql, params, force, step)]
            if step.done and not step.failed:
                self._effect(source.sql, params, names, force)
        else:
            names.take(step)
            if step.values:
                calls = [_Told("notices", None, tuple(step.values), 0)]
        if step.state == "I":
            force.ended()
        return calls

    def _told(self, sql: str, params: tuple[Param, ...], force: SettingsInForce, step: _Step) -> _Told:
        statement = Statement(sql, params, force.now(), self.startup, step.failed)
        return _Told(name_of(sql), statement, tuple(step.values), step.rows)

    def _simple(self, step: _Step, names: _Names, force: SettingsInForce) -> list[_Told]:
        try:
            parts = statements(step.sql)
        except TokenError:
            whole = [self._told(step.sql, (), force, step)]
            force.lost()
            return whole
        if len(parts) <= 1:
            whole = [self._told(step.sql, (), force, step)]
            if parts and not step.failed:
                names.ran(parts[0])
                force.ran(parts[0], ())
            return whole
        calls: list[_Told] = []
        begins = [part[0].at for part in parts] + [len(step.sql)]
        for index, part in enumerate(parts):
            # All values stand with the first statement: which rows are whose is not needed, that they came is.
            text = step.sql[begins[index] : begins[index + 1]].strip().rstrip(";")
            statement = Statement(text, (), force.now(), self.startup, step.failed and index >= len(step.counts))
            values = tuple(step.values) if index == 0 else ()
            calls.append(_Told(name_of(text), statement, values, step.rows if index == 0 else 0))
            if index < len(step.counts):
                names.ran(part)
                force.ran(part, ())
            elif not step.failed:
                force.lost()
        return calls

    @staticmethod
    def _effect(sql: str, params: tuple[Param, ...], names: _Names, force: SettingsInForce) -> None:
        try:
            parts = statements(sql)
        except TokenError:
            force.lost()
            return
        for part in parts:
            names.ran(part)
            force.ran(part, [one.value for one in params])


class _Names:
    """The statements and portals that the server holds under each name, once it has confirmed that it took them.

    A client may send a statement under a name that the server refuses or skips: then the older one runs.
    """

    def __init__(self) -> None:
        self.prepared: dict[str, _Step] = {}
        self.portals: dict[str, tuple[_Step, _Step]] = {}

    def take(self, step: _Step) -> None:
        """Take over what a message other than Query and Execute did."""
        if step.failed:
            if step.kind == "P" and not step.name:
                self.prepared.pop("", None)
            return
        match step.kind:
            case "P":
                self.prepared[step.name] = step
            case "B":
                if step.of not in self.prepared:
                    raise CannotDecodeError("a statement was bound that was not prepared before")
                self.portals[step.name] = (step, self.prepared[step.of])
            case "D" if step.of == "S" and step.types and step.name in self.prepared:
                self.prepared[step.name].types = step.types
            case "C":
                (self.prepared if step.of == "S" else self.portals).pop(step.name, None)

    def portal(self, step: _Step) -> tuple[_Step, _Step] | None:
        """Return what an Execute ran; None if it failed and nothing is known of it."""
        steps = self.portals.get(step.name)
        if steps is None and not step.failed:
            raise CannotDecodeError("a portal was executed that was not bound before")
        return steps

    def ran(self, statement: Sequence[Token]) -> None:
        """SQL's own PREPARE and DEALLOCATE share the names."""
        if statement[0].word("deallocate", "prepare", "discard"):
            self.prepared.clear()


class _Told(NamedTuple):
    name: str
    statement: Statement | None
    values: tuple[bytes, ...]
    rows: int


# Which answers belong to a message of the client: Query, Parse, Bind, Describe, Execute, Close, Sync.
_ANSWERS = {"Q": "TDCI", "P": "1", "B": "2", "D": "tTn", "E": "DCIs", "C": "3", "S": ""}


def name_of(sql: str) -> str:
    """Return the first word of *sql*, for reports."""
    return (sql.split(None, 1) or ["(empty)"])[0][:20].upper()


def _text(body: bytes, at: int) -> tuple[str, int]:
    end = body.index(b"\0", at)
    return body[at:end].decode(), end + 1


def _columns(body: bytes) -> Sequence[bytes]:
    (count,) = struct.unpack_from(">h", body)
    at = 2
    columns = []
    for _ in range(count):
        (length,) = struct.unpack_from(">i", body, at)
        at += 4
        if length >= 0:
            if at + length > len(body):
                raise CannotDecodeError("a row that could not be read")
            columns.append(body[at : at + length])
            at += length
    return columns


def _params(bind: _Step, source: _Step) -> tuple[Param, ...]:
    types = source.types + (0,) * max(0, len(bind.raw) - len(source.types))
    return tuple(param(data, kind, binary=binary) for (data, binary), kind in zip(bind.raw, types, strict=False))
