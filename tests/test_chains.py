"""No exception carries foreign text: not in its message, its arguments or notes, and nowhere in its chain."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vectoracl
from vectoracl import ALWAYS, Chunk, F, InvalidInputError, Predicate, Principal, VectorACLError, hazmat
from vectoracl.audit.sinks import JsonlSink, MemorySink
from vectoracl.errors import without_context

ROOT = Path(__file__).resolve().parents[1]
V = [1.0, 0.0, 0.0]
CANARY = "canary"


def chain(error):
    """Every exception that can be reached from *error*."""
    seen, waiting = [], [error]
    while waiting:
        one = waiting.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return seen


def check(error, *, debug=False):
    assert isinstance(error, VectorACLError), repr(error)
    if debug:
        return
    for one in chain(error):
        assert isinstance(one, VectorACLError), f"{type(one).__name__} is in the chain of {error!r}"
        assert CANARY not in f"{one} {one.args} {getattr(one, '__notes__', '')} {vars(one)}"


def fails(call, *args, debug=False, **given):
    """Return our error of a call, after a look at its chain."""
    try:
        call(*args, **given)
    except VectorACLError as error:
        caught = error
    else:
        raise AssertionError("it did not fail")
    check(caught, debug=debug)
    return caught


def nested(kind, how):
    """Return an error with more behind it, as clients raise them."""
    made = (
        kind(CANARY) if kind is not UnicodeDecodeError else UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY)
    )
    inner = ValueError(f"behind it: {CANARY}")
    if how == "cause":
        made.__cause__ = inner
    elif how == "context":
        made.__context__ = inner
    elif how == "note":
        made.add_note(CANARY)
    return made


KINDS = [ValueError, OSError, RuntimeError, TimeoutError, StopIteration, UnicodeDecodeError, KeyError, MemoryError]
errors_ = st.builds(nested, st.sampled_from(KINDS), st.sampled_from(["alone", "cause", "context", "note"]))


class Places:
    """Raises *error* wherever somebody else's code is called."""

    name, dimension, version = "places", 3, None

    def __init__(self, error):
        self.error = error

    def _raise(self, *_args, **_given):
        if isinstance(self.error, StopIteration):  # no coroutine can raise it
            raise LookupError(CANARY)
        raise self.error

    decide = embed_documents = embed_queries = write = note = _raise

    def close(self):
        pass


def operations(docs):
    chunk = Chunk("c", "d", "text", V, metadata={"lang": "en"})
    return {
        "search": lambda: docs.search(V),
        "search text": lambda: docs.search("some text"),
        "search_many": lambda: docs.search_many(["some text", V]),
        "fetch": lambda: docs.fetch(["c"]),
        "count": docs.count,
        "facets": lambda: docs.facets("lang"),
        "page": docs.page,
        "scan": lambda: list(docs.scan()),
        "upsert": lambda: docs.upsert([chunk]),
        "embedded": lambda: docs.upsert([Chunk("c", "d", "some text")]),
        "replace": lambda: docs.replace("d", [chunk]),
        "delete": lambda: docs.delete(document="d"),
        "load": lambda: docs.load([chunk]),
    }


def person(**claims):
    return Principal("ann", "acme", authenticated_by="test", **claims)


@pytest.mark.parametrize("form", ["sync", "async"])
@pytest.mark.parametrize("place", ["port", "policy", "sink", "embedder"])
@given(error=errors_, debug=st.booleans())
def test_what_others_raise_is_not_in_the_chain(make_api, form, place, error, debug):
    api, foreign = make_api(form), Places(error)
    try:
        config = {
            "version": 1,
            "debug_errors": debug,
            "stores": {"main": {"adapter": "memory", "dimension": 3, "metadata": {"lang": "keyword"}}},
        }
        given_ = {"policy": {"policy": foreign}, "sink": {"sink": foreign}, "embedder": {"embedder": foreign}}
        acl = api.connect(config, **given_.get(place, {}))
        if place == "port":
            acl.tap().answer = foreign._raise
        else:
            acl.tap()
        docs = acl.scoped(person())
        for name, call in operations(docs).items():
            if place == "embedder" and name not in ("search text", "search_many", "embedded"):
                continue
            if place == "port" and name in ("search text", "search_many", "embedded"):
                continue  # there is no embedder
            caught = fails(call, debug=debug)
            if debug and place != "embedder":
                assert any(CANARY in str(one) for one in chain(caught)), (name, place)
        if place in ("policy", "port", "sink"):
            if place != "policy":
                fails(acl.explain, person(), debug=debug)
            else:
                acl.explain(person())
    finally:
        api.close()


@pytest.mark.parametrize("step", ["vectoracl_open", "port", "posture", "places", "operator", "close"])
def test_opening_and_closing(api, monkeypatch, step):
    """What an adapter raises before there is a flow."""
    import dataclasses

    from vectoracl.memory import plugin

    real, foreign = plugin.vectoracl_open, Places(nested(RuntimeError, "cause"))

    class Port:
        parallel = 1

        def __init__(self, inner):
            self.inner = inner

        def execute(self, request, timeout):
            if step == "posture" and type(request).__name__ == "Look":
                foreign._raise()
            return self.inner.execute(request, timeout)

        def close(self):
            if step == "close":
                foreign._raise()

    class AsyncPort(Port):
        async def execute(self, request, timeout):
            return Port.execute(self, request, timeout)

        async def close(self):
            Port.close(self)

    def opened(config, context):
        if step == "vectoracl_open":
            foreign._raise()
        made = real(config=config, context=context)
        return dataclasses.replace(
            made,
            port=foreign._raise if step == "port" else lambda: Port(made.port()),
            aport=foreign._raise if step == "port" else lambda: AsyncPort(made.port()),
            identity=foreign._raise if step == "places" else made.identity,
            operator=foreign._raise,
        )

    monkeypatch.setattr("vectoracl.client.connect.load", lambda *_: Hooks(plugin, opened))
    config = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3}}}
    if step in ("vectoracl_open", "port", "posture"):
        fails(api.connect, config)
        return
    acl = api.connect(config)
    api._opened.remove(acl.real)
    if step == "close":
        fails(acl.close)
    elif not api.is_async:
        fails(acl.store_identity, "main") if step == "places" else fails(acl.operator)


class Hooks:
    """A plug-in whose `vectoracl_open` is another."""

    def __init__(self, plugin, opened):
        self._plugin, self.vectoracl_open = plugin, opened

    def __getattr__(self, name):
        return getattr(self._plugin, name)


BAD_TEXT = f"{CANARY}\ud800"


class Liar:
    """An object that raises wherever it is read."""

    def __getattr__(self, name):
        raise RuntimeError(CANARY)

    def __float__(self):
        raise RuntimeError(CANARY)

    def __iter__(self):
        raise RuntimeError(CANARY)


def chunk(**given):
    return Chunk(**{"id": "c", "document": "d", "text": "t", "vector": V, **given})


INPUTS = {
    "a text": lambda docs: docs.upsert([chunk(text=BAD_TEXT)]),
    "an id": lambda docs: docs.upsert([chunk(id=BAD_TEXT)]),
    "a document": lambda docs: docs.replace(BAD_TEXT, []),
    "metadata": lambda docs: docs.upsert([chunk(metadata={"free": BAD_TEXT})]),
    "a key": lambda docs: docs.upsert([chunk(metadata={BAD_TEXT: 1})]),
    "a declared field": lambda docs: docs.upsert([chunk(metadata={"lang": BAD_TEXT})]),
    "a moment": lambda docs: docs.upsert([chunk(metadata={"seen": CANARY})]),
    "a moment that is none": lambda docs: docs.upsert([chunk(metadata={"seen": "2026-02-30T00:00:00Z"})]),
    "a vector": lambda docs: docs.upsert([chunk(vector=[1.0, CANARY, 0.0])]),
    "a vector that raises": lambda docs: docs.search([1.0, Liar(), 0.0]),
    "a filter": lambda docs: docs.count(F.lang == BAD_TEXT),
    "a JSON filter": lambda docs: docs.count(Predicate.from_dict({"field": "seen", "op": "gt", "value": CANARY})),
    "a moment of a filter": lambda docs: docs.count(F.seen == "2026-02-30T00:00:00Z"),
    "an id that is fetched": lambda docs: docs.fetch([BAD_TEXT]),
    "a cursor": lambda docs: docs.page(after=BAD_TEXT),
    "another cursor": lambda docs: docs.page(after="Y2FuYXJ5"),
    "a query": lambda docs: docs.search(BAD_TEXT),
    "a principal": lambda docs: person(attributes={"x": BAD_TEXT}),
    "a reason": lambda docs: Principal.service("ann", "acme", BAD_TEXT),
    "a stream": lambda docs: docs.load([chunk(text=BAD_TEXT)]),
}


@pytest.mark.parametrize("name", INPUTS)
def test_what_the_caller_gave_is_not_in_the_chain(api, name):
    acl = api.connect()
    fails(INPUTS[name], acl.scoped(person()))


def test_files_and_parsers(tmp_path, monkeypatch):
    docs = vectoracl.connect({"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 3}}}).scoped(person())
    file = tmp_path / "file"
    for content in (
        f'{{"written": "{CANARY}"',
        f'{{"written": "{CANARY}", "digest": 1}}',
        f"\xff{CANARY}",
        f'["{CANARY}"]',
    ):
        file.write_bytes(content.encode("latin-1"))
        fails(docs.load, [chunk()], resume=file)
    toml = tmp_path / "v.toml"
    for text in (
        f"{CANARY} = = 1",
        f'version = "{CANARY}"',
        f'version = 1\n[stores.m]\nadapter = "memory"\ndsn = "{CANARY}"',
    ):
        toml.write_text(text)
        caught = fails(vectoracl.connect, toml)
        assert caught.code == "config"
    toml.write_bytes(b"\xff" + CANARY.encode())
    fails(vectoracl.connect, toml)
    fails(vectoracl.connect, tmp_path / "missing.toml")
    secret = vectoracl.config.Secret(file=file)
    file.write_bytes(b"\xff" + CANARY.encode())
    fails(secret.reveal)
    fails(vectoracl.config.Secret(file=tmp_path / "missing").reveal)
    monkeypatch.delenv("NOT_SET", raising=False)
    fails(vectoracl.config.Secret(env="NOT_SET").reveal)
    (tmp_path / "link").symlink_to(file)
    fails(JsonlSink, tmp_path / "link")
    fails(JsonlSink, file / "below")
    fails(vectoracl.filters.validation.check_fields, {"x": CANARY})
    module = tmp_path / "broken_policy.py"
    module.write_text(f"def policy():\n    raise RuntimeError({CANARY!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = {
        "version": 1,
        "stores": {"m": {"adapter": "memory", "dimension": 3}},
        "policy": {"use": "broken_policy:policy", "allow_import": True},
    }
    fails(vectoracl.connect, config)
    assert CANARY in str(fails(vectoracl.connect, {**config, "debug_errors": True}, debug=True).__cause__)


def test_a_full_disk_is_not_in_the_chain(tmp_path, monkeypatch):
    sink = JsonlSink(tmp_path / "audit.jsonl")
    acl = vectoracl.connect({"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 3}}}, sink=sink)
    sink.note({"decision": "1"})

    def full(file, data):
        raise OSError(errno.ENOSPC, CANARY)

    monkeypatch.setattr("vectoracl.audit.sinks.os.write", full)
    fails(acl.scoped(person()).count)
    assert isinstance(sink, JsonlSink)


def test_the_doors_past_the_scope():
    acl = vectoracl.connect({"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 3}}}, sink=MemorySink())
    door = hazmat.operate(acl, reason="a test of the chain")
    acl._named("m").ports["store"] = AdapterWrapper(nested(RuntimeError, "context"))
    acl._named("m").port = acl._named("m").ports["store"]
    fails(door.read, "acme", 10)
    fails(door.count, "acme")
    fails(door.clear, "acme")
    fails(hazmat.unscoped(acl, reason="a test of the chain").search, V)


class AdapterWrapper:
    parallel = 1

    def __init__(self, error):
        self.error = error

    def execute(self, request, timeout):
        raise self.error

    def close(self):
        pass


def test_apart_takes_the_chain_away():
    class OursError(InvalidInputError):
        pass

    @without_context
    def call(cause):
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise OursError("x") from (error if cause else None)

    @without_context
    async def acall():
        try:
            raise ValueError(CANARY)
        except ValueError:
            raise OursError("x") from None

    with pytest.raises(OursError) as caught:
        call(cause=False)
    check(caught.value)
    with pytest.raises(OursError) as caught:
        call(cause=True)
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(OursError) as caught:
        asyncio.run(acall())
    check(caught.value)
    assert ALWAYS is not None
    assert os.sep


# Generators cannot take the chain away: the block that they serve is still handling the error when they raise. Who uses
# them is `without_context`, or are flows, whose errors `Pipeline.failure` looks through.
GENERATORS = {
    "src/vectoracl/client/connect.py": {"_foreign"},
    "adapters/qdrant/src/vectoracl_qdrant/operator.py": {"_owner", "_mapping"},
    "adapters/weaviate/src/vectoracl_weaviate/operator.py": {"_owner", "_mapping"},
    "adapters/pinecone/src/vectoracl_pinecone/operator.py": {"_owner", "_mapping"},
    "adapters/pgvector/src/vectoracl_pgvector/operator.py": {"_owner", "_mapping"},
    "adapters/pgvector/src/vectoracl_pgvector/tiers/base.py": {"_explaining_lock_timeout"},
}
# What is raised here is not ours, or is ended by whoever calls: the command line, the kit's harnesses and mutants.
OTHERS = {
    "src/vectoracl/__init__.py",
    "src/vectoracl/__main__.py",
    "src/vectoracl/_util/lazy_exports.py",
    "src/vectoracl/_util/private_files.py",
    "src/vectoracl/adapter_api/local_servers/start.py",
    "src/vectoracl/testing.py",
    "src/vectoracl/cli/common.py",
    "src/vectoracl/cli/demo/command.py",
    "src/vectoracl/cli/init.py",
    "src/vectoracl/cli/conformance.py",
    "adapters/pgvector/src/vectoracl_pgvector/connection/liveness.py",
    "adapters/pgvector/src/vectoracl_pgvector/connection/wire.py",
    "adapters/pgvector/src/vectoracl_pgvector/conformance/harness.py",
    "adapters/pgvector/src/vectoracl_pgvector/conformance/mutants.py",
    "adapters/qdrant/src/vectoracl_qdrant/conformance/harness.py",
    "adapters/qdrant/src/vectoracl_qdrant/conformance/mutants.py",
    "adapters/pinecone/src/vectoracl_pinecone/conformance/harness.py",
    "adapters/pinecone/src/vectoracl_pinecone/conformance/mutants.py",
    "adapters/weaviate/src/vectoracl_weaviate/conformance/harness.py",
    "adapters/weaviate/src/vectoracl_weaviate/conformance/mutants.py",
}
# The traceback of code that cannot be imported is what its author needs, and no data was touched yet.
IMPORTS = {"src/vectoracl/adapter_api/loading.py"}


def raising(tree):
    """The functions that raise something new within an `except` block, with the line."""
    found = []

    def walk(node, handler, function):
        for child in ast.iter_child_nodes(node):
            now, inside = handler, function
            if isinstance(child, ast.ExceptHandler):
                now = child
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                now, inside = None, child
            if (
                isinstance(child, ast.Raise)
                and handler is not None
                and child.exc is not None
                and not (isinstance(child.exc, ast.Name) and child.exc.id == handler.name)
            ):
                found.append((function, child.lineno))
            walk(child, now, inside)

    walk(tree, None, None)
    return found


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("src/vectoracl/**/*.py"), *ROOT.glob("adapters/*/src/**/*.py")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_what_is_raised_in_an_except_block_is_without_context(path):
    name = path.relative_to(ROOT).as_posix()
    if name in OTHERS | IMPORTS:
        return
    for function, line in raising(ast.parse(path.read_text(encoding="utf-8"))):
        assert function is not None, f"{path}:{line}"
        marks = {ast.unparse(one) for one in function.decorator_list}
        known = function.name in GENERATORS.get(name, ())
        assert known or "without_context" in marks, (
            f"{path}:{line}: put @without_context on {function.name}, or raise after the block"
        )


def test_the_exceptions_exist():
    for name in {*GENERATORS, *OTHERS, *IMPORTS}:
        assert (ROOT / name).is_file(), name


def test_the_rule_is_not_empty():
    tree = ast.parse("def f():\n try:\n  g()\n except ValueError as e:\n  raise OurError('x') from None\n")
    assert [(one.name, line) for one, line in raising(tree)] == [("f", 5)]
    assert not raising(ast.parse("def f():\n try:\n  g()\n except ValueError as e:\n  raise\n"))
