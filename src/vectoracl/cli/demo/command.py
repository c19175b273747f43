"""`vectoracl demo`: the whole thing on real text, from one command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from vectoracl._util.file_lock import FileLock
from vectoracl._util.private_files import read_private, replace_atomically, take_folder
from vectoracl.adapter_api import loading
from vectoracl.adapter_api.contract import DemoStore
from vectoracl.adapter_api.demo_attacks import AttackContext
from vectoracl.adapter_api.posture import Posture
from vectoracl.cli.common import (
    CLEAN,
    DEFAULT_CONFIG,
    FINDINGS,
    JsonOption,
    Steps,
    command_line,
    done,
    out,
    print_json,
)
from vectoracl.cli.demo import attacks, run
from vectoracl.cli.demo.corpus import TenantCorpus, folder_corpus, installed_corpus
from vectoracl.cli.demo.show import show
from vectoracl.cli.init import template, write_new
from vectoracl.client.connect import VectorACL
from vectoracl.config import read
from vectoracl.errors import ConfigError, InvalidInputError, RefusedError, StoreError
from vectoracl.text.embedders import Embedder, open_embedder

FOLDER = Path(".vectoracl/demo")
_NAME = "demo"  # of the table, collection or index
DEFAULT = "pgvector"
EMBEDDER = "hashed"


def demo(
    docs: Annotated[
        Path | None,
        typer.Option(
            "--docs", metavar="FOLDER", help="Use the texts of this folder, which has a subfolder for each tenant."
        ),
    ] = None,
    embedder: Annotated[
        str,
        typer.Option(
            "--embedder",
            metavar="SPEC",
            help='"hashed" or "hashed:256" (no model, no network), "minilm" (extra `minilm`), "fastembed:MODEL" (extra '
            '`fastembed`; it is downloaded), or "package.module:attribute" of your own. Without -c.',
            show_default="hashed",
        ),
    ] = "",
    tenants: Annotated[int, typer.Option("--tenants", help="How many tenants at most.", min=2, max=1000)] = 10,
    k: Annotated[int, typer.Option("-k", help="How many chunks to ask for at a time.", min=1, max=50)] = 5,
    store: Annotated[
        str,
        typer.Option(
            "--store",
            metavar="NAME",
            help="The store: pgvector, qdrant, … With -c, the name of one of the configuration's stores.",
            show_default="pgvector",
        ),
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Fill this configuration's store, which has to be empty or a demo's, instead of the demo's own.",
        ),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """See it work on real text: about a minute on the default store.

    Starts a PostgreSQL of its own in ./.vectoracl/demo/ (no root, no Docker), fills it with the documentation inside
    the Python packages that are installed here, one tenant each, and asks as several principals: what a search without
    a scope would have returned, beside what each of them gets. Then it tries one attack of each family on the live
    store, and says what each met. `--store` shows the same on another store: on the server that the environment names
    (VECTORACL_QDRANT_URL and so on), else on what its adapter can start here (Weaviate is compiled first, which takes
    minutes, once).

    It can be run again. It writes into a store of its own, and changes nothing that no demo wrote. Texts leave this
    machine only for a server that you name. Exit codes: 0 nothing foreign came back, 1 a leak, 2 not measured.
    """
    if config is not None and embedder:
        raise InvalidInputError("--embedder is for a demo without -c: a configuration names its own.", field="embedder")
    start = time.perf_counter()
    with Steps(quiet=as_json) as steps:
        steps.step("reading documents", 0, None)
        corpora = _corpora(docs, tenants)
        steps.step("reading documents", 1, 1)
        with _prepared(config, embedder or EMBEDDER, store or DEFAULT, steps) as made:
            outcome = _run(made, corpora, k, steps, start, store=None if made.own else store or None)
    if as_json:
        print_json(outcome.as_json())
    else:
        go_on = _go_on(made.source, outcome, None if made.own else store or None) if made.kept else []
        show(out(), outcome, made.notes, go_on)
    done(FINDINGS if outcome.leaked else CLEAN)


def _corpora(docs: Path | None, tenants: int) -> list[TenantCorpus]:
    """Return the texts, at least two tenants of them. Raises: InvalidInputError."""
    found = installed_corpus(tenants) if docs is None else folder_corpus(docs)[:tenants]
    if len(found) < 2:
        raise InvalidInputError("The demo needs texts of two tenants or more; pass --docs FOLDER.", field="docs")
    return found


def _go_on(source: Path, outcome: run.Outcome, store: str | None) -> list[str]:
    """Return commands that work on what the demo made."""
    asked = min(outcome.asked, key=lambda one: len(run.name_of(one.principal)) + len(one.query))
    first = run.name_of(asked.principal)
    words = ("--hybrid",) if outcome.hybrid else ()
    return [
        command_line("search", "--as", first, asked.query, *words, config=source, store=store),
        command_line("explain", "--as", first, config=source, store=store),
        command_line("check", "--fail-on", "error", config=source, store=store),
    ]


class _Made(NamedTuple):
    """What the demo runs on: embedder, configuration, whether that is the demo's own, and what to tell at the end."""

    model: Embedder
    source: Path
    own: bool = False
    notes: tuple[str, ...] = ()
    kept: bool = True
    server: str = ""


@contextmanager
def _prepared(config: Path | None, spec: str, adapter: str, steps: Steps) -> Iterator[_Made]:
    """Give what the demo runs on, until it has run.

    The demo's own goes to ./vectoracl.toml, but only where there is none: a configuration that exists is somebody's,
    perhaps of a store in production, and is used only where -c names it.
    """
    if config is not None:
        own, _ = read(config)
        if own.embedder is None:
            raise ConfigError(f"{config} names no embedder, which the demo needs; add [embedder].")
        one = own.embedder
        model = open_embedder(one.use, dimension=one.dimension, allow_import=one.allow_import)
        yield _Made(model, config)
        return
    hooks = loading.load(adapter)
    model = open_embedder(spec, allow_import=True)  # typed by the one who runs it
    with _own_folder():
        place = _place(hooks, adapter, model.dimension, steps)
        try:
            source, told = _written(hooks, adapter, place, spec, model)
            notes = (place.note, told if place.kept else "")
            yield _Made(model, source, True, tuple(filter(None, notes)), place.kept, place.server)
        finally:
            place.close()


def _place(hooks: Any, adapter: str, dimension: int, steps: Steps) -> DemoStore:
    """Return where the demo's store is. Raises: RefusedError."""
    steps.step(f"looking for {adapter}", 0, None)
    place: DemoStore | None = hooks.vectoracl_demo_place(
        dimension=dimension, say=lambda text: steps.step(text, 0, None)
    )
    if place is None:
        raise RefusedError(
            f"The adapter {adapter!r} cannot be shown without a store: write a configuration and pass it with -c."
        )
    steps.step(f"looking for {adapter}", 1, 1)
    return place


def _written(hooks: Any, adapter: str, place: DemoStore, spec: str, model: Embedder) -> tuple[Path, str]:
    """Write the demo's configuration; return its path and what to say about it."""

    def text(folder: Path) -> str:
        # Vectors of two embedders are not comparable, so each has a table or collection of its own.
        name = _NAME if spec == "hashed" else f"{_NAME}_{blake2b(model.name.encode(), digest_size=4).hexdigest()}"
        return template(
            hooks,
            settings={key: folder / one if isinstance(one, Path) else one for key, one in place.settings.items()},
            name=name,
            embedder=spec,
            dimension=model.dimension,
            allow_import=spec.partition(":")[0] not in ("hashed", "fastembed"),
            audit=(folder / "audit.jsonl").as_posix(),
        )

    here = text(FOLDER)
    if place.kept and not DEFAULT_CONFIG.exists():
        write_new(DEFAULT_CONFIG, here)
        return DEFAULT_CONFIG, f"Wrote {DEFAULT_CONFIG}; the data are in {FOLDER}/. Now you:"
    if place.kept and _content(DEFAULT_CONFIG) == here.encode():
        return DEFAULT_CONFIG, f"The data are in {FOLDER}/. Now you:"
    beside = FOLDER / f"{adapter}.toml"
    write_new(beside, text(Path()), force=True)
    return beside, f"Your {DEFAULT_CONFIG} was not touched; the demo's is {beside}. Now you:"


def _content(path: Path) -> bytes | None:
    try:
        return read_private(path)
    except OSError:  # a link, or another user's: not what a demo wrote
        return None


@contextmanager
def _own_folder() -> Iterator[None]:
    """Make the folder of the demo's data, which no commit should pick up, and hold it: one demo at a time.

    Raises: ConfigError, RefusedError.
    """
    try:
        for folder in (FOLDER.parent, FOLDER):
            take_folder(folder, lambda _: True)
        replace_atomically(FOLDER / ".gitignore", b"*\n", sync=False)
        lock = FileLock(str(FOLDER / "demo.lock"))
    except OSError as error:
        raise ConfigError(f"The folder {FOLDER} cannot be used: {error.strerror} ({error.filename}).") from None
    if not lock.held:
        raise RefusedError(f"Another demo runs in {FOLDER}. Wait for its end, or run this one in another folder.")
    try:
        yield
    finally:
        lock.release()


def _run(
    made: _Made, corpora: list[TenantCorpus], k: int, steps: Steps, start: float, *, store: str | None
) -> run.Outcome:
    model, source = made.model, made.source
    with VectorACL(source, store=store, embedder=model) as acl:
        name = acl.config.default
        steps.step("starting the store", 0, None)
        if not made.own:  # before anything is made in a store that may be somebody's
            with suppress(StoreError):  # there is no table yet
                run.check_own(acl, (), _tenants(acl))
        _provision(acl)
        acl.open()
        run.check_own(acl, corpora, _tenants(acl))
        steps.step("starting the store", 1, 1)
        documents, chunks = run.load(acl, model, corpora, steps, prune=made.own)
        seconds = time.perf_counter() - start
        hybrid = run.has_words(acl)
        asked = run.ask(acl, model, run.questions(corpora, 3), k, steps, hybrid=hybrid)
        steps.step("attacking", 0, None)
        first = asked[0].principal
        other = next(one.principal for one in asked if one.principal != first)
        vector = model.embed_queries([asked[0].query])[0].tolist()
        forging = AttackContext(first, other, vector, attacks.reopener(acl, source))
        tried = attacks.attempts(acl, forging, read(source)[1])
        posture = acl.check()[name]
        adapter = acl.config.stores[name].adapter
        server = made.server or _server(acl.server(), adapter, posture)
    return run.Outcome(
        adapter, server, posture.grade, len(corpora), documents, chunks, seconds, asked, tuple(tried), hybrid
    )


def _tenants(acl: VectorACL) -> list[str]:
    """List the store's tenants, where its adapter can. Raises: StoreError, ConfigError."""
    try:
        operator = acl.operator()
    except ConfigError:
        raise
    except RefusedError:
        return []
    try:
        return [one.tenant for one in operator.tenants()]
    finally:
        operator.close()


def _provision(acl: VectorACL) -> None:
    """Make what the store needs, where its adapter has anything to make."""
    try:
        operator = acl.operator()
    except ConfigError:
        raise
    except RefusedError:
        return
    try:
        operator.provision()
    finally:
        operator.close()


def _server(described: str, adapter: str, posture: Posture) -> str:
    """Describe the server with the version of the part of it that the adapter is named after, where there is one."""
    own = dict(posture.facts).get(adapter)
    if own is None:
        return described
    product, bracket, rest = described.partition(" (")
    return f"{product}, {adapter} {own}{bracket}{rest}"
