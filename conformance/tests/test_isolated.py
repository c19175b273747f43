"""The process that holds nothing of the kit: what it shows of itself, and what of its answers is believed."""

import base64
import functools
import os
import pickle
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from vectoracl import Chunk
from vectoracl.adapter_api import loading
from vectoracl.adapter_api.operations import Scan
from vectoracl.errors import DeniedError, StoreError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.memory.ports import Perform
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.harness import HarnessError, Needs
from vectoracl_conformance.harnesses.memory import MemoryHarness
from vectoracl_conformance.isolated import interpreter
from vectoracl_conformance.isolated.driver import Driver
from vectoracl_conformance.isolated.identity import identify
from vectoracl_conformance.isolated.interpreter import plain
from vectoracl_conformance.isolated.process import Far, PoisonError
from vectoracl_conformance.isolated.recorded import load_recorded
from vectoracl_conformance.isolated.store_service import StoreService, serve
from vectoracl_conformance.running import run_facts

MEMORY = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3}}}
LOOK = """
import importlib.metadata, os, sys
frame, seen = sys._getframe(), []
while frame is not None:
    seen.append(f"{frame.f_code.co_filename} {frame.f_code.co_name}")
    frame = frame.f_back
for process in ("self", str(os.getppid())):
    with open(f"/proc/{process}/cmdline", "rb") as file:
        seen += file.read().decode().split(chr(0))
seen += [*sys.modules, *sys.path, *sys.argv, *sys.orig_argv, *vars(sys.modules["__main__"]), os.getcwd(), sys.prefix]
seen += [f"{name}={value}" for name, value in os.environ.items()]
seen += [one.name for one in importlib.metadata.distributions()]
seen += [point.group for one in importlib.metadata.distributions() for point in one.entry_points]
try:
    __import__("vectoracl_" + "conformance")
except ImportError:
    seen.append("not importable")
raise ValueError("\\n".join(seen))
"""
TELLING = re.compile(r"conformance|pytest|nox\b|hypothesis|\btests?\b|census|faults|\bkit\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def environment():
    made = plain()
    yield made
    made.close()


@pytest.fixture
def far(environment):
    made = Far(limit=20, environment=environment)
    yield made
    made.close()


def looked(far):
    far.ask("client", 1, MEMORY, "sync", True)
    with pytest.raises(ValueError, match=r"vectoracl\.memory\.adapter") as seen:
        far.ask("source", LOOK)
    return str(seen.value).splitlines()


def test_nothing_of_the_kit_is_in_sight(far):
    lines = looked(far)
    assert "not importable" in lines
    # What a distribution says in its metadata is the same wherever it is installed; numpy has tests too.
    own = {"vectoracl.conformance", "pytest11"}
    assert not [line for line in lines if TELLING.search(line) and line not in own and not line.startswith("numpy.")]


def test_two_programs_have_different_names():
    one, other = Driver(), Driver()
    assert set(one.names) == set(other.names)
    assert one.names != other.names
    assert one.words != other.words
    assert not [name for name in one.names if re.search(rf"\b{name}\b", one.text)]


def installed_in(far):
    site = far.environment.site
    return {one.name for one in site.iterdir()}


def test_the_environment_is_that_of_an_application(far):
    names = installed_in(far)
    assert {"vectoracl", "numpy", "vectoracl_qdrant"} <= names
    assert not [name for name in names if re.search("conformance|pytest|hypothesis|nox|editable|[.]pth", name)]
    (info,) = far.environment.site.glob("vectoracl_qdrant-*.dist-info")
    assert {one.name for one in info.iterdir()} >= {"METADATA", "RECORD", "entry_points.txt"}
    assert not (info / "direct_url.json").exists()
    assert "vectoracl_qdrant/plugin.py,sha256=" in (info / "RECORD").read_text()


@pytest.fixture
def virtual(tmp_path):
    """An environment under a telling name, to be filled."""
    root = tmp_path / "conformance-pytest"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(sys.executable)
    (root / "pyvenv.cfg").write_text(
        f"home = {Path(sys._base_executable).parent}\ninclude-system-site-packages = false\nprompt = conformance\n"
    )
    site = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    return root, site


def distribution(site, name, *, requires=(), points="", files=()):
    info = site / f"{name.replace('-', '_')}-1.dist-info"
    info.mkdir()
    lines = [f"Name: {name}", "Version: 1", "Metadata-Version: 2.1", *(f"Requires-Dist: {one}" for one in requires)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "entry_points.txt").write_text(points)
    for file in files:
        (site / file).parent.mkdir(exist_ok=True)
        (site / file).write_text("")
    (info / "RECORD").write_text("\n".join([*(f"{one},," for one in files), f"{info.name}/RECORD,,"]) + "\n")


@pytest.mark.skipif(os.name == "nt", reason="on Windows an environment keeps its name")
def test_what_a_test_needs_is_left_out(virtual, tmp_path):
    root, site = virtual
    distribution(site, "vectoracl", files=["vectoracl/__init__.py"])
    distribution(site, "vectoracl-conformance", requires=["hypothesis", "rare"], files=["vectoracl_conformance/x.py"])
    distribution(site, "hypothesis", requires=["sorted"], files=["hypothesis/__init__.py"])
    distribution(site, "sorted", files=["sorted.py"])
    distribution(site, "rare", files=["rare.py"])
    distribution(site, "pytest-thing", requires=["pytest>=8", "common"], files=["thing.py"])
    distribution(site, "common", files=["common.py"])
    distribution(
        site, "the-store", requires=["vectoracl", "common", "vectoracl-conformance; extra == 'kit'"],
        points="[vectoracl]\nthestore = the_store.plugin\n",
    )  # fmt: skip
    source = tmp_path / "checkout"
    for name in ("the_store", "tests"):
        (source / name).mkdir(parents=True)
        (source / name / "__init__.py").write_text("")
    (source / "the_store" / "plugin.py").write_text("")
    (source / "helper.py").write_text("")
    (source / "harness.py").write_text("from vectoracl_conformance import Harness\n")
    (source / "conftest.py").write_text("")
    (site / "_the_store.pth").write_text(f"{source}\n")
    environment = plain(str(root / "bin" / "python"))
    try:
        names = {one.name for one in environment.site.iterdir()}
    finally:
        environment.close()
    modules = {name for name in names if not name.endswith("-info")}
    assert modules == {"vectoracl", "common.py", "the_store", "helper.py"}
    assert {name for name in names if name.endswith("-info")} == {
        "vectoracl-1.dist-info", "common-1.dist-info", "the_store-1.dist-info",
    }  # fmt: skip


@pytest.mark.skipif(os.name == "nt", reason="on Windows an environment keeps its name")
def test_a_folder_of_the_running_path_comes_along_with_an_adapter_only(tmp_path):
    for name in ("harnesses", "adapters"):
        (tmp_path / name).mkdir()
    (tmp_path / "harnesses" / "mine.py").write_text("")
    (tmp_path / "adapters" / "mystore.py").write_text("")
    (tmp_path / "adapters" / "harness_of_mystore.py").write_text("import vectoracl_conformance.harness\n")
    distribution(tmp_path / "adapters", "mystore", points="[vectoracl]\nmystore = mystore\n")
    environment = plain(paths=[str(tmp_path / "harnesses"), str(tmp_path / "adapters")])
    try:
        names = {one.name for one in environment.site.iterdir()}
    finally:
        environment.close()
    assert {"mystore.py", "mystore-1.dist-info"} <= names
    assert not {"mine.py", "harness_of_mystore.py"} & names


def test_the_digest_is_of_the_files(virtual):
    root, site = virtual
    distribution(site, "vectoracl", points="[vectoracl]\nmemory = vectoracl\n", files=["vectoracl/__init__.py"])
    digests = []
    for text in ("", "", "more = 1"):
        (site / "vectoracl" / "__init__.py").write_text(text)
        environment = plain(str(root / "bin" / "python"))
        digests.append(environment.digest(environment.offering("memory")))
        environment.close()
        assert not environment.root
    assert digests[0] == digests[1] != digests[2]
    assert (root / "bin" / "python").exists()


def test_a_question_never_shows_the_kit(far):
    from vectoracl_conformance.context.corpus import Corpus

    with pytest.raises(Abstain, match="shown the kit"):
        far.ask("call", Corpus)


def renamed(far, source):
    return source.replace("__main__._call", f"__main__.{far.driver.names['_call']}")


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("a call", "type('P', (), {'__reduce__': lambda self: (os.system, ('touch /tmp/poisoned',))})()"),
        ("code", "type('P', (), {'__reduce__': lambda self: (eval, ('1',))})()"),
        ("getattr", "type('P', (), {'__reduce__': lambda self: (getattr, (1, 'real'))})()"),
        ("a class of the adapter's", "type('P', (), {})"),
    ],
)
def test_a_poisoned_answer_is_not_opened(far, name, expression):
    far.ask("client", 1, MEMORY, "sync", True)
    poison = f"import __main__, os\n__main__._call = lambda *a: {expression}\n"
    far.ask("source", renamed(far, poison))
    with pytest.raises((Abstain, Exception)) as caught:
        far.ask("call", 1)
    assert isinstance(caught.value, Abstain) or "pickle" in str(caught.value).lower()


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import os\nos._exit(0)", "ended by itself"),
        ("import os\nos.write(2, b'out of luck')\nos._exit(3)", "its last words: 'out of luck'"),
        ("import os\nos.abort()", "Fatal Python error: Aborted"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", "most recent call"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed from outside or ended on purpose|signal 9"),
        ("import __main__\n__main__._call = lambda *a: b'x' * (300 << 20)", "answered with"),
        ("import __main__\n__main__.struct.pack = lambda *a: b'junk'", "answered with"),
    ],
)
def test_a_process_that_does_not_answer_as_agreed_is_not_measured(far, source, why):
    with pytest.raises(Exception, match=why):
        far.ask("source", renamed(far, source))
        far.ask("call", 1)


def test_a_process_that_hangs_is_ended(environment):
    far = Far(limit=1.5, environment=environment)
    started = time.monotonic()
    try:
        with pytest.raises(Abstain, match="did not answer within"):
            far.ask("source", "import time\ntime.sleep(60)")
    finally:
        far.close()
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("reading", [False, True])
def test_a_late_answer_is_not_taken_for_that_of_the_next_question(environment, reading):
    far = Far(limit=1.5, environment=environment)
    try:
        if reading:  # by a thread, once something was asked for along with others
            far.later("count")[1].result(10)
        with pytest.raises(Abstain, match="did not answer within"):
            far.ask("source", "import time\ntime.sleep(2.5)")
        time.sleep(2)
        with pytest.raises(Abstain, match="did not answer within"):
            far.ask("count")
    finally:
        far.close()


def test_errors_come_back_as_what_they_are(far):
    far.ask("client", 1, MEMORY, "sync", True)
    claims = {"id": "u", "tenant": "a", "authenticated_by": "a test", "expires_at": 1.0}
    with pytest.raises(DeniedError) as denied:
        far.ask("call", 1, claims, [], "search", ([1.0, 0.0, 0.0],), {})
    assert denied.value.action == "search"
    failing = "def fail(*a):\n    raise StoreError('x', code='conflict', sent='no')\n__main__._call = fail"
    far.ask("source", renamed(far, f"from vectoracl.errors import StoreError\nimport __main__\n{failing}"))
    with pytest.raises(StoreError) as failed:
        far.ask("call", 1)
    assert (failed.value.code, failed.value.sent) == ("conflict", "no")


def test_answers_of_the_library_are_read(far):
    far.ask("client", 1, MEMORY, "async", True)
    claims = {"id": "u", "tenant": "a", "authenticated_by": "a test"}
    far.ask("call", 1, claims, [], "upsert", ([Chunk("c", "d", "text", [1.0, 0.0, 0.0])],), {})
    (hit,) = far.ask("call", 1, claims, [], "search", ([1.0, 0.0, 0.0],), {"include": {"text", "vector"}})
    assert (hit.id, hit.text, hit.vector.tolist()) == ("c", "text", [1.0, 0.0, 0.0])
    assert pickle.loads(pickle.dumps(hit)).tag == hit.tag


MAPPINGS = """
from collections import ChainMap, OrderedDict
from types import MappingProxyType
import __main__

class Row(dict):
    pass

def answer(*a):
    return [MappingProxyType({"a": MappingProxyType({"b": 1})}), OrderedDict(c=True), ChainMap({"d": 1.0}), Row(e=[])]

__main__._call = answer
"""


def test_any_mapping_comes_as_a_dictionary_with_values_of_the_same_types(far):
    far.ask("client", 1, MEMORY, "sync", True)
    far.ask("source", renamed(far, MAPPINGS))
    answer = far.ask("call", 1)
    assert repr(answer) == "[{'a': {'b': 1}}, {'c': True}, {'d': 1.0}, {'e': []}]"


def test_a_question_that_cannot_be_read_is_answered(far):
    """It ended the process before, as if the adapter had."""
    module = type(os)("made_here")
    module.Thing = type("Thing", (), {"__module__": "made_here"})
    sys.modules["made_here"] = module
    try:
        with pytest.raises(Exception, match="made_here"):
            far.ask("call", module.Thing())
    finally:
        del sys.modules["made_here"]
    far.ask("client", 1, MEMORY, "sync", True)


class Local:
    """Both sides of the service, in one process."""

    def __init__(self, harness):
        self.harness = harness
        self.lines, self.answers = queue.Queue(), queue.Queue()
        self.thread = threading.Thread(target=serve, args=(harness, iter(self.lines.get, "done"), self.answers.put))
        self.thread.start()

    def __call__(self, line):
        self.lines.put(line)
        return self.answers.get(timeout=20)

    def end(self):
        self.lines.put("done")
        self.thread.join()


class Recorded(MemoryHarness):
    def __init__(self):
        self.seen = []

    def fresh(self, needs):
        self.seen.append(needs)
        if needs.dimension == 5:
            raise HarnessError("There are four rows at most.")
        store = super().fresh(needs)
        store.admit = lambda tenant: self.seen.append(tenant)
        store.close = lambda: self.seen.append("closed")
        return store


@pytest.fixture
def local():
    made = Local(Recorded())
    yield made
    made.end()


def test_stores_are_served(local):
    service = StoreService(local, ["inner", "other"])
    assert service.metrics == ("inner",)
    assert service.thousands
    needs = Needs(4, {"year": "number"}, "inner")
    store = service.fresh(needs)
    assert store.config["adapter"] == "memory"
    assert (store.config["dimension"], store.config["metric"]) == (4, "inner")
    store.admit("acme")
    store.settle()
    assert store.parts() == frozenset()
    store.close()
    second = service.fresh(needs)
    assert second.config["name"] != store.config["name"]
    local.end()
    assert local.harness.seen == [needs, "acme", "closed", needs, "closed"]


def test_what_a_harness_raises_is_an_error_of_the_harness(local):
    service = StoreService(local)
    with pytest.raises(HarnessError, match="four rows at most"):
        service.fresh(Needs(5, {}))
    with pytest.raises(HarnessError, match="a store has no __init__"):
        service.ask(service.fresh(Needs(4, {}))._number, "__init__")


@pytest.mark.parametrize("answer", ["", "no base64", base64.b64encode(pickle.dumps(os.system)).decode()])
def test_an_answer_that_is_none_is_not_believed(answer):
    with pytest.raises(Abstain, match="the harness"):
        StoreService(lambda _: answer).fresh(Needs(4, {}))


def test_an_in_process_census_is_read_in_the_adapters_process(far, local):
    store = StoreService(local).fresh(Needs(3, {}))
    with pytest.raises(Abstain, match="in the adapter's process"):
        store.census()
    far.ask("client", 1, {"version": 1, "stores": {"main": dict(store.config)}}, "sync", True)
    for tenant in ("a", "b"):
        claims = {"id": "u", "tenant": tenant, "authenticated_by": "the application"}
        chunk = Chunk("c", "d", f"text of {tenant}", [1.0, 0.0, 0.0], metadata={"year": 1})
        far.ask("call", 1, claims, [], "upsert", ([chunk],), {})
    far.ask("source", store.census_source)
    rows = far.ask("census", None)
    assert [(row.tag.tenant, row.text, row.metadata, row.vector.tolist()) for row in rows] == [
        ("a", "text of a", {"year": 1}, [1.0, 0.0, 0.0]),
        ("b", "text of b", {"year": 1}, [1.0, 0.0, 0.0]),
    ]
    assert [row.tag.tenant for row in far.ask("census", ["b"])] == ["b"]


def test_the_code_that_is_measured_is_named(far):
    far.ask("client", 1, MEMORY, "sync", True)
    one = identify(far, "memory")
    assert (one.adapter, one.distribution) == ("memory", "vectoracl")
    assert one.digest == far.environment.digest(far.environment.offering("memory"))
    with pytest.raises(Abstain, match="not exactly one"):
        identify(far, "nothing")


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import importlib.metadata\nimportlib.metadata.entry_points = lambda **_: ()", "does not run"),
        ("import hashlib\nhashlib.sha256 = hashlib.sha512", "files of vectoracl"),
        ("import sys\nsys.modules['vectoracl'].__file__ = '/tmp/vectoracl/__init__.py'", "not installed"),
    ],
)
def test_code_that_is_not_what_is_installed_is_not_measured(far, source, why):
    far.ask("client", 1, MEMORY, "sync", True)
    far.ask("source", source)
    with pytest.raises(Abstain, match=why):
        identify(far, "memory")


LEFT = """
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
from vectoracl_conformance.isolated.interpreter import plain
plain("", [path for path in sys.path if path])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="an adapter's environment is not made on Windows")
def test_what_a_killed_run_has_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    subprocess.run([sys.executable, "-c", LEFT, str(tmp_path)], timeout=120, check=False)
    (left,) = tmp_path.glob("app-*")
    unknown = tmp_path / "app-of-another-program"
    unknown.mkdir()
    own = plain("", [path for path in sys.path if path])
    try:
        interpreter.remove_abandoned.__wrapped__()
        assert not left.exists()
        assert unknown.exists()
        assert own.root.exists()
    finally:
        own.close()


class Poison:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "poison",
    [
        Poison(os.system, ("false",)),
        Poison(getattr, ("", "join")),
        Poison(functools.partial, (os.system, "false")),
        Poison(subprocess.Popen, (["false"],)),
        Poison(run_facts.run_facts, ()),
        Poison(loading.installed, ()),
    ],
    ids=lambda one: one.call[0].__name__,
)
def test_a_recorded_request_is_only_data(poison):
    with pytest.raises(PoisonError, match="a recorded request holds"):
        load_recorded(pickle.dumps((poison, None, None)), "memory")


def test_a_recorded_request_is_read():
    operation = Scan("a", ALWAYS, ALWAYS, 5, None, frozenset({"text"}))
    data = pickle.dumps((Perform("a", operation), [np.eye(2), datetime.now(UTC)], None))
    request, (vectors, _), error = load_recorded(data, "memory")
    assert (request.operation, error) == (operation, None)
    assert vectors.tolist() == [[1, 0], [0, 1]]
