"""`vectoracl demo`: the whole thing on real text, from one command."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Annotated

import typer

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
    store, and says what each met.

    It can be run again. Nothing leaves this machine. Exit codes: 0 nothing foreign came back, 1 a leak, 2 not measured.
    """
    start = time.perf_counter()
    with Steps(quiet=as_json) as steps:
        steps.step("reading documents", 0, None)
        corpora = _corpora(docs, tenants)
        steps.step("reading documents", 1, 1)
        model, source, notes = _prepare(config, embedder)
        outcome = _run(source, model, corpora, k, steps, start, own=config is None)
    first = demo_run.name_of(outcome.asked[0].principal)
    given = "" if source == DEFAULT_CONFIG else f" -c {source}"
    notes += [
        f'vectoracl search --as {first} "{outcome.asked[0].query}"{given}',
        f"vectoracl explain --as {first}{given}",
        f"vectoracl check{given}",
    ]
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


def _prepare(config: Path | None, spec: str) -> tuple[Embedder, Path, list[str]]:
    """Return the embedder, the configuration's path, and what to tell about it.

    The demo's own goes to ./vectoracl.toml, but only where there is none: a configuration that exists is somebody's,
    perhaps of a store in production, and is used only where -c names it.
    """
    if config is not None:
        own, _ = read(config)
        if own.embedder is None:
            raise ConfigError(f"{config} names no embedder, which the demo needs; add [embedder].")
        one = own.embedder
        return open_embedder(one.use, dimension=one.dimension, allow_import=one.allow_import), config, []
    model = open_embedder(spec, allow_import=True)  # typed by the one who runs it
    text = _text(spec, model, ".vectoracl/pg")
    _make_folder()
    if not DEFAULT_CONFIG.exists():
        write_new(DEFAULT_CONFIG, text)
        return model, DEFAULT_CONFIG, [f"Wrote {DEFAULT_CONFIG}; the data are in {FOLDER}/. Now you:"]
    if DEFAULT_CONFIG.read_bytes() == text.encode():
        return model, DEFAULT_CONFIG, [f"The data are in {FOLDER}/. Now you:"]
    beside = FOLDER / "demo.toml"
    write_new(beside, _text(spec, model, "pg"), force=True)
    return model, beside, [f"Your {DEFAULT_CONFIG} was not touched; the demo's is {beside}. Now you:"]


def _make_folder() -> None:
    """Make the folder of the demo's data, which no commit should pick up. Raises: ConfigError."""
    try:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The folder {FOLDER} cannot be made here: {error.strerror}.") from None


def _text(spec: str, model: Embedder, embedded: str) -> str:
    """Return the demo's configuration. Vectors of two embedders are not comparable, so each has its own table."""
    table = "chunks" if spec == "hashed" else f"demo_{hashlib.blake2b(model.name.encode(), digest_size=4).hexdigest()}"
    imported = spec.partition(":")[0] not in ("hashed", "fastembed")
    return template(
        embedded=embedded,
        embedder=spec,
        dimension=model.dimension,
        table=table,
        allow_import=imported,
        audit=str(Path(embedded).parent / "audit.jsonl"),
    )


def _run(
    source: Path, model: Embedder, corpora: list[TenantCorpus], k: int, steps: Steps, start: float, *, own: bool
) -> demo_run.Outcome:
    with VectorACL(source, embedder=model) as acl:
        name = acl.config.default
        steps.step("starting the store", 0, None)
        _provision(acl)
        acl.open()
        steps.step("starting the store", 1, 1)
        documents, chunks = demo_run.load(acl, model, corpora, steps, prune=own)
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
        server = _server(acl.server(), adapter, posture)
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
