"""The process that holds nothing of the kit: what it shows of itself, and what of its answers is believed."""

import os
import pickle
import sys
import time
from pathlib import Path

import pytest

from vectoracl.errors import DeniedError, StoreError
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.isolated.process import Far

MEMORY = {"version": 1, "stores": {"main": {"adapter": "memory", "dimension": 3}}}
LOOK = """
import os, sys
frame, frames = sys._getframe(), []
while frame is not None:
    frames.append(f"{frame.f_code.co_filename} {frame.f_code.co_name}")
    frame = frame.f_back
with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
    parent = file.read().decode()
words = [*sys.modules, *frames, *sys.argv, *sys.orig_argv, *os.environ, *os.environ.values(), parent]
raise ValueError("\\n".join(words))
"""


@pytest.fixture
def far():
    made = Far(limit=20)
    yield made
    made.close()


def test_nothing_of_the_kit_is_in_sight(far):
    far.ask("client", 1, MEMORY, "sync", True)
    with pytest.raises(ValueError, match=r"vectoracl\.memory\.adapter") as seen:
        far.ask("source", LOOK)
    lines = [line for line in str(seen.value).splitlines() if "_pytesttester" not in line]
    told = [line for line in lines if "conformance" in line.lower() or "pytest" in line.lower()]
    # The folder of a checkout is in its interpreter's path; no variable or argument names the kit.
    assert not [line for line in told if "/" not in line], told


@pytest.mark.skipif(os.name == "nt", reason="on Windows an environment keeps its name")
def test_the_name_of_an_environment_tells_nothing(tmp_path):
    root = tmp_path / "conformance-pytest"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(sys.executable)
    (root / "pyvenv.cfg").write_text(
        f"home = {Path(sys._base_executable).parent}\ninclude-system-site-packages = false\nprompt = conformance\n"
    )
    (root / "lib").symlink_to(Path(sys.prefix) / "lib")
    site = root / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    far = Far(str(root / "bin" / "python"), [str(site)], limit=20)
    try:
        far.ask("client", 1, MEMORY, "sync", True)
        with pytest.raises(ValueError, match="prefix") as seen:
            far.ask(
                "source",
                "import sys\nraise ValueError(f'prefix {sys.prefix} {sys.orig_argv} {sys.executable} {sys.path}')",
            )
    finally:
        far.close()
    assert "conformance-pytest" not in str(seen.value)
    assert str(tmp_path) not in str(seen.value)
    assert (root / "bin" / "python").exists()
    assert not Path(far._place.python).exists()


def test_a_question_never_shows_the_kit(far):
    from vectoracl_conformance.context.corpus import Corpus

    with pytest.raises(Abstain, match="shown the kit"):
        far.ask("call", Corpus)


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
    far.ask("source", poison)
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
        far.ask("source", source)
        far.ask("call", 1)


def test_a_process_that_hangs_is_ended():
    far = Far(limit=1.5)
    started = time.monotonic()
    try:
        with pytest.raises(Abstain, match="did not answer within"):
            far.ask("source", "import time\ntime.sleep(60)")
    finally:
        far.close()
    assert time.monotonic() - started < 20


def test_errors_come_back_as_what_they_are(far):
    far.ask("client", 1, MEMORY, "sync", True)
    claims = {"id": "u", "tenant": "a", "authenticated_by": "a test", "expires_at": 1.0}
    with pytest.raises(DeniedError) as denied:
        far.ask("call", 1, claims, [], "search", ([1.0, 0.0, 0.0],), {})
    assert denied.value.action == "search"
    far.ask("source", "from vectoracl.errors import StoreError\nimport __main__\n"
            "def fail(*a):\n    raise StoreError('x', code='conflict', sent='no')\n__main__._call = fail")  # fmt: skip
    with pytest.raises(StoreError) as failed:
        far.ask("call", 1)
    assert (failed.value.code, failed.value.sent) == ("conflict", "no")


def test_answers_of_the_library_are_read(far):
    far.ask("client", 1, MEMORY, "async", True)
    claims = {"id": "u", "tenant": "a", "authenticated_by": "a test"}
    from vectoracl import Chunk

    far.ask("call", 1, claims, [], "upsert", ([Chunk("c", "d", "text", [1.0, 0.0, 0.0])],), {})
    (hit,) = far.ask("call", 1, claims, [], "search", ([1.0, 0.0, 0.0],), {"include": {"text", "vector"}})
    assert (hit.id, hit.text, hit.vector.tolist()) == ("c", "text", [1.0, 0.0, 0.0])
    assert pickle.loads(pickle.dumps(hit)).tag == hit.tag


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
