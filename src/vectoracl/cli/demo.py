"""`vectoracl demo`: the whole thing on real text, from one command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from vectoracl import plugins
from vectoracl.adapter import DemoPlace
from vectoracl.attempts import Forging
from vectoracl.cli import demo_attempts, demo_run
from vectoracl.cli.common import CLEAN, DEFAULT_CONFIG, FINDINGS, JsonOption, Steps, done, out, print_json
from vectoracl.cli.corpus import TenantCorpus, folder_corpus, installed_corpus
from vectoracl.cli.demo_show import show
from vectoracl.cli.init import template, write_new
from vectoracl.client import VectorACL
from vectoracl.config import read
from vectoracl.embed import Embedder, open_embedder
from vectoracl.errors import ConfigError, InvalidInputError, RefusedError
from vectoracl.findings import Posture

FOLDER = Path(".vectoracl")
DEFAULT = "pgvector"


def demo(
    docs: Annotated[
        Path | None,
        typer.Option("--docs", metavar="FOLDER", help="Use the texts of this folder: a tenant per subfolder."),
    ] = None,
    embedder: Annotated[
        str,
        typer.Option(
            "--embedder",
            metavar="SPEC",
            help='"hashed" (no model, no network), "fastembed:MODEL", or "package.module:attribute" of your own.',
        ),
    ] = "hashed",
    tenants: Annotated[int, typer.Option("--tenants", help="How many tenants at most.", min=2, max=1000)] = 10,
    k: Annotated[int, typer.Option("-k", help="How many chunks to ask for.", min=1, max=50)] = 5,
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
            "--config", "-c", metavar="FILE", help="Fill this configuration's store instead of the demo's own."
        ),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """See it work on real text, in under a minute.

    Starts a PostgreSQL of its own in ./.vectoracl/ (no root, no Docker), fills it with the documentation inside the
    Python packages that are installed here, one tenant each, and asks as several principals: what a search without a
    scope would have returned, beside what each of them gets. Then it tries one attack of each family on the live
    store, and says what each met. `--store` shows the same on another store: on the server that the environment names
    (VECTORACL_QDRANT_URL and so on), else on what its adapter can start here.

    It can be run again. Nothing leaves this machine. Exit codes: 0 nothing foreign came back, 1 a leak, 2 not measured.
    """
    start = time.perf_counter()
    with Steps(quiet=as_json) as steps:
        steps.step("reading documents", 0, None)
        corpora = _corpora(docs, tenants)
        steps.step("reading documents", 1, 1)
        with _prepared(config, embedder, store or DEFAULT, steps) as made:
            outcome = _run(made, corpora, k, steps, start, store=None if made.own else store or None)
    first = demo_run.name_of(outcome.asked[0].principal)
    given = "" if made.source == DEFAULT_CONFIG else f" -c {made.source}"
    notes = list(made.notes)
    if made.kept:
        notes += [line.format(first=first, query=outcome.asked[0].query, given=given) for line in _GO_ON]
    if as_json:
        print_json(outcome.as_json())
    else:
        show(out(), outcome, notes)
    done(FINDINGS if outcome.leaked else CLEAN)


def _corpora(docs: Path | None, tenants: int) -> list[TenantCorpus]:
    """Return the texts, at least two tenants of them. Raises: InvalidInputError."""
    found = installed_corpus(tenants) if docs is None else folder_corpus(docs)[:tenants]
    if len(found) < 2:
        raise InvalidInputError("The demo needs texts of two tenants or more; pass --docs FOLDER.", field="docs")
    return found


_GO_ON = (
    'vectoracl search --as {first} "{query}"{given}',
    "vectoracl explain --as {first}{given}",
    "vectoracl check{given}",
)


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
    hooks = plugins.load(adapter)
    model = open_embedder(spec, allow_import=True)  # typed by the one who runs it
    place = _place(hooks, adapter, model.dimension, steps)
    try:
        source, told = _written(hooks, adapter, place, spec, model)
        notes = (place.note, told if place.kept else "")
        yield _Made(model, source, True, tuple(filter(None, notes)), place.kept, place.server)
    finally:
        place.close()


def _place(hooks: Any, adapter: str, dimension: int, steps: Steps) -> DemoPlace:
    """Return where the demo's store is. Raises: RefusedError."""
    steps.step(f"looking for {adapter}", 0, None)
    place: DemoPlace | None = hooks.vectoracl_demo_place(
        dimension=dimension, say=lambda text: steps.step(text, 0, None)
    )
    if place is None:
        raise RefusedError(
            f"The adapter {adapter!r} cannot be shown without a store: write a configuration and pass it with -c."
        )
    steps.step(f"looking for {adapter}", 1, 1)
    return place


def _written(hooks: Any, adapter: str, place: DemoPlace, spec: str, model: Embedder) -> tuple[Path, str]:
    """Write the demo's configuration; return its path and what to say about it."""

    def text(folder: Path) -> str:
        # Vectors of two embedders are not comparable, so each has a table or collection of its own.
        name = "chunks" if spec == "hashed" else f"demo_{blake2b(model.name.encode(), digest_size=4).hexdigest()}"
        return template(
            hooks,
            settings={key: folder / one if isinstance(one, Path) else one for key, one in place.settings.items()},
            name=name,
            embedder=spec,
            dimension=model.dimension,
            allow_import=spec.partition(":")[0] not in ("hashed", "fastembed"),
            audit=(folder / "audit.jsonl").as_posix(),
        )

    _make_folder()
    here = text(FOLDER)
    if place.kept and not DEFAULT_CONFIG.exists():
        write_new(DEFAULT_CONFIG, here)
        return DEFAULT_CONFIG, f"Wrote {DEFAULT_CONFIG}; the data are in {FOLDER}/. Now you:"
    if place.kept and DEFAULT_CONFIG.read_bytes() == here.encode():
        return DEFAULT_CONFIG, f"The data are in {FOLDER}/. Now you:"
    beside = FOLDER / f"{adapter}.toml"
    write_new(beside, text(Path()), force=True)
    return beside, f"Your {DEFAULT_CONFIG} was not touched; the demo's is {beside}. Now you:"


def _make_folder() -> None:
    """Make the folder of the demo's data, which no commit should pick up. Raises: ConfigError."""
    try:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The folder {FOLDER} cannot be made here: {error.strerror}.") from None


def _run(
    made: _Made, corpora: list[TenantCorpus], k: int, steps: Steps, start: float, *, store: str | None
) -> demo_run.Outcome:
    model, source = made.model, made.source
    with VectorACL(source, store=store, embedder=model) as acl:
        name = acl.config.default
        steps.step("starting the store", 0, None)
        _provision(acl)
        acl.open()
        steps.step("starting the store", 1, 1)
        documents, chunks = demo_run.load(acl, model, corpora, steps, prune=made.own)
        seconds = time.perf_counter() - start
        asked = demo_run.ask(acl, model, demo_run.questions(corpora, 3), k, steps)
        steps.step("attacking", 0, None)
        first = asked[0].principal
        other = next(one.principal for one in asked if one.principal != first)
        vector = model.embed_queries([asked[0].query])[0].tolist()
        forging = Forging(first, other, vector, demo_attempts.reopener(acl, source))
        tried = demo_attempts.attempts(acl, forging, read(source)[1])
        posture = acl.check()[name]
        adapter = acl.config.stores[name].adapter
        server = made.server or _server(acl.server(), adapter, posture)
    return demo_run.Outcome(
        adapter, server, posture.grade, len(corpora), documents, chunks, seconds, asked, tuple(tried)
    )


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
