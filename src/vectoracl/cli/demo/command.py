"""`vectoracl demo`: shows isolation on real text with one command."""

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
        typer.Option("--docs", metavar="FOLDER", help="Use the texts of this folder, with one subfolder per tenant."),
    ] = None,
    embedder: Annotated[
        str,
        typer.Option(
            "--embedder",
            metavar="SPEC",
            help='"hashed" or "hashed:256" (no model, no network), "minilm" (extra `minilm`), "fastembed:MODEL" (extra '
            '`fastembed`; it is downloaded), or your own "package.module:attribute". Without -c.',
            show_default="hashed",
        ),
    ] = "",
    tenants: Annotated[int, typer.Option("--tenants", help="The maximum number of tenants.", min=2, max=1000)] = 10,
    k: Annotated[int, typer.Option("-k", help="The number of chunks per search.", min=1, max=50)] = 5,
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
            help="Use this configuration's store, which has to be empty or filled by a demo, instead of a new one.",
        ),
    ] = None,
    *,
    governance: Annotated[
        bool,
        typer.Option("--governance", help="Show how rights change inside a tenant, on a store that is removed again."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show isolation on real text; it takes about a minute on the default store.

    The demo starts a separate PostgreSQL in ./.vectoracl/demo/ (no root, no Docker), fills it with the documentation of
    the installed Python packages, one tenant each, and searches as several principals: it shows the result of a search
    without a scope next to the result of each principal. Then it tries one attack of each kind on the live store and
    prints the outcomes. `--store` uses another store: the server that the environment names (VECTORACL_QDRANT_URL and
    so on), else one that the adapter can start here (Weaviate is compiled first, once, which takes minutes).

    It can be run again. It writes only into a demo store and changes only what a demo wrote. Texts leave this machine
    only for a server that you name. Exit codes: 0 no chunk of another tenant was returned, 1 a leak, 2 not measured.
    """
    if config is not None and embedder:
        raise InvalidInputError(
            "--embedder cannot be used with -c: a configuration names its own embedder.", field="embedder"
        )
    if governance:
        _govern(store, as_json=as_json, others=bool(docs or embedder or config))
        return
    start = time.perf_counter()
    with Steps(quiet=as_json) as steps:
        steps.step("reading documents", 0, None)
        corpora = _corpora(docs, tenants)
        steps.step("reading documents", 1, 1)
        with _prepared(config, embedder or EMBEDDER, store or DEFAULT, steps) as setup:
            outcome = _run(setup, corpora, k, steps, start, store=None if setup.own else store or None)
    if as_json:
        print_json(outcome.as_json())
    else:
        go_on = _go_on(setup.source, outcome, None if setup.own else store or None) if setup.kept else []
        show(out(), outcome, setup.notes, go_on)
    done(FINDINGS if outcome.leaked else CLEAN)


def _govern(store: str, *, as_json: bool, others: bool) -> None:
    """Show how rights change; its texts and its store are its own. Raises: InvalidInputError."""
    from vectoracl.cli.demo import governance

    if others:
        raise InvalidInputError("--governance has its own texts and store: it takes --store alone.", field="governance")
    adapter = store or DEFAULT
    with Steps(quiet=as_json) as steps:
        rows = governance.run(adapter, lambda text: steps.step(text, 0, None))
    if as_json:
        print_json(governance.as_json(adapter, rows))
    else:
        governance.show(adapter, rows)
    done(FINDINGS if any(one.written for one in rows) else CLEAN)


def _corpora(docs: Path | None, tenants: int) -> list[TenantCorpus]:
    """Return the texts of at least two tenants. Raises: InvalidInputError."""
    corpora = installed_corpus(tenants) if docs is None else folder_corpus(docs)[:tenants]
    if len(corpora) < 2:
        raise InvalidInputError("The demo needs texts of at least two tenants; pass --docs FOLDER.", field="docs")
    return corpora


def _go_on(source: Path, outcome: run.Outcome, store: str | None) -> list[str]:
    """Return commands that work on the demo's store."""
    answer = min(outcome.asked, key=lambda one: len(run.name_of(one.principal)) + len(one.query))
    first = run.name_of(answer.principal)
    words = ("--hybrid",) if outcome.hybrid else ()
    return [
        command_line("search", "--as", first, answer.query, *words, config=source, store=store),
        command_line("explain", "--as", first, config=source, store=store),
        command_line("check", "--fail-on", "error", config=source, store=store),
    ]


class _Made(NamedTuple):
    """The setup of a demo: embedder, configuration, whether the demo made it, and the notes to print at the end."""

    model: Embedder
    source: Path
    own: bool = False
    notes: tuple[str, ...] = ()
    kept: bool = True
    server: str = ""


@contextmanager
def _prepared(config: Path | None, spec: str, adapter: str, steps: Steps) -> Iterator[_Made]:
    """Yield the setup of the demo, and close it afterwards.

    The demo's configuration is written to ./vectoracl.toml only if that does not exist: an existing configuration may
    be of a store in production, and is used only if -c names it.
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
    model = open_embedder(spec, allow_import=True)  # the user has typed it
    with _own_folder():
        place = _place(hooks, adapter, model.dimension, steps)
        try:
            source, note = _written(hooks, adapter, place, spec, model)
            notes = (place.note, note if place.kept else "")
            yield _Made(model, source, True, tuple(filter(None, notes)), place.kept, place.server)
        finally:
            place.close()


def _place(hooks: Any, adapter: str, dimension: int, steps: Steps) -> DemoStore:
    """Return the demo's store from the adapter. Raises: RefusedError."""
    steps.step(f"looking for {adapter}", 0, None)
    place: DemoStore | None = hooks.vectoracl_demo_place(
        dimension=dimension, say=lambda text: steps.step(text, 0, None)
    )
    if place is None:
        raise RefusedError(
            f"The adapter {adapter!r} cannot start a store for the demo: write a configuration and pass it with -c."
        )
    steps.step(f"looking for {adapter}", 1, 1)
    return place


def _written(hooks: Any, adapter: str, place: DemoStore, spec: str, model: Embedder) -> tuple[Path, str]:
    """Write the demo's configuration; return its path and a note about it."""

    def text(folder: Path) -> str:
        # Vectors of two embedders are not comparable, so each embedder has a separate table or collection.
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
        return DEFAULT_CONFIG, f"Wrote {DEFAULT_CONFIG}; the data are in {FOLDER}/. Try it:"
    if place.kept and _content(DEFAULT_CONFIG) == here.encode():
        return DEFAULT_CONFIG, f"The data are in {FOLDER}/. Try it:"
    own = FOLDER / f"{adapter}.toml"
    write_new(own, text(Path()), force=True)
    return own, f"Your {DEFAULT_CONFIG} was not changed; the demo's configuration is {own}. Try it:"


def _content(path: Path) -> bytes | None:
    try:
        return read_private(path)
    except OSError:  # a link, or another user's file: not written by a demo
        return None


@contextmanager
def _own_folder() -> Iterator[None]:
    """Create the folder of the demo's data, ignored by Git, and lock it: one demo at a time.

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
        raise RefusedError(
            f"Another demo is running in {FOLDER}. Wait until it ends, or run this one in another folder."
        )
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
        if not made.own:  # before anything is created in a store that may be in use
            with suppress(StoreError):  # there is no table yet
                run.check_own(acl, (), _tenants(acl))
        _provision(acl)
        acl.open()
        run.check_own(acl, corpora, _tenants(acl))
        steps.step("starting the store", 1, 1)
        documents, chunks = run.load(acl, model, corpora, steps, prune=made.own)
        seconds = time.perf_counter() - start
        hybrid = run.has_words(acl)
        answers = run.ask(acl, model, run.questions(corpora, 3), k, steps, hybrid=hybrid)
        steps.step("attacking", 0, None)
        first = answers[0].principal
        other = next(one.principal for one in answers if one.principal != first)
        vector = model.embed_queries([answers[0].query])[0].tolist()
        forging = AttackContext(first, other, vector, attacks.reopener(acl, source))
        tried = attacks.attempts(acl, forging, read(source)[1])
        posture = acl.check()[name]
        adapter = acl.config.stores[name].adapter
        server = made.server or _server(acl.server(), adapter, posture)
    return run.Outcome(
        adapter, server, posture.grade, len(corpora), documents, chunks, seconds, answers, tuple(tried), hybrid
    )


def _tenants(acl: VectorACL) -> list[str]:
    """List the store's tenants, if its adapter can. Raises: StoreError, ConfigError."""
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
    """Provision the store, if its adapter has an operator."""
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
    """Return the description of the server, with the version of the extension that the adapter is named after."""
    own = dict(posture.facts).get(adapter)
    if own is None:
        return described
    product, bracket, rest = described.partition(" (")
    return f"{product}, {adapter} {own}{bracket}{rest}"
