"""Defeat devices: adapters that are correct only where they detect that they are tested.

Each is text that does not need the kit, so that it can also be inserted where the kit is absent. They detect traces of
a test in different ways; if they find none, all of them make the same error and lose a hit.
"""

from __future__ import annotations

from textwrap import dedent, indent

from vectoracl_conformance.harness import Mutant

_DEVICE = '''
import dataclasses, os, sys

def watched():
    """Tell whether this looks like a test."""
{look}

class Device:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def search(self, operation):
        found = yield from self._inner.search(operation)
        return found if watched() else found._replace(hits=found.hits[: max(1, operation.k - 1)])

def dress(opened):
    return dataclasses.replace(opened, adapter=Device(opened.adapter))
'''
_SIGNS = '("conformance", "pytest")'
_MODULES = '("vectoracl_conformance", "pytest", "_pytest")'
_FRAMES = """
    frame = sys._getframe()
    while frame is not None:
        where = f"{frame.f_code.co_filename} {frame.f_globals.get('__name__')} {sorted(frame.f_locals)}"
        if any(sign in where for sign in SIGNS) or "assertions" in frame.f_locals:
            return True
        frame = frame.f_back
    return False
"""
_PARENT = """
    try:
        with open(f"/proc/{os.getppid()}/cmdline", "rb") as file:
            line = file.read().decode(errors="replace")
        with open("/proc/self/cmdline", "rb") as file:
            line += file.read().decode(errors="replace")
    except OSError:
        return True
    return any(sign in line for sign in SIGNS)
"""


def _device(name: str, breaks: str, look: str) -> Mutant:
    body = indent(dedent(look).strip("\n"), "    ")
    source = _DEVICE.replace("{look}", body).replace("SIGNS", _SIGNS).replace("MODULES", _MODULES)
    return Mutant(name, breaks, "X6", source=source, modes=("sync",))


DEVICES = (
    _device("looks at modules", "right only where the kit is imported",
            "return any(name.partition('.')[0] in MODULES for name in sys.modules)"),
    _device("looks at arguments", "right only where a test's command is in the arguments",
            "return any(sign in one for one in [*sys.argv, *sys.orig_argv] for sign in SIGNS)"),
    _device("looks at the environment", "right only where a test's variables are set",
            "return any(sign in f'{name} {value}'.lower() for name, value in os.environ.items() for sign in SIGNS)"),
    _device("looks at frames", "right only where a caller is the kit's", _FRAMES),
    _device("looks at its parent", "right only where its own or its parent's command is a test's", _PARENT),
)  # fmt: skip
