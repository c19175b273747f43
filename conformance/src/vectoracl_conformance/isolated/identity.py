"""The adapter that a process runs: its distribution, version and files, asked of the process and seen from outside."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.isolated.process import Far


@dataclass(frozen=True, slots=True)
class Identity:
    """The code that was measured. `digest` is the SHA-256 over the distribution's installed files."""

    adapter: str
    distribution: str
    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.adapter} {self.version} ({self.distribution}, sha256 {self.digest[:16]}…)"


def identify(far: Far, adapter: str) -> Identity:
    """Return which code *far* runs as *adapter*.

    Raises: Abstain unless one distribution offers it, the process names the same one with the same files, and each
    module that it has loaded comes from its environment or from Python's own library.
    """
    environment = far.environment
    site = environment.site
    if site is None:
        raise Abstain("this system has no environment for the adapter's process, so its files cannot be named")
    one = environment.offering(adapter)
    if one is None:
        raise Abstain(f"not exactly one installed distribution offers the adapter {adapter!r}")
    names, files = far.ask("about", adapter)
    if [tuple(each) for each in names] != [(one.name, one.version)]:
        raise Abstain(f"the adapter's process does not run {one.name} {one.version}")
    before = environment.digest(one)
    if far.ask("digest", str(site), environment.entries(one)) != before or environment.digest(one) != before:
        raise Abstain(f"the files of {one.name} are not the same for the adapter's process")
    known = [site.resolve(), environment.library.resolve()]
    packages = {name.partition(".")[0] for name in environment.entries(one)}
    for name, file in dict(files).items():
        if not file or str(name).partition(".")[0] not in packages:
            continue
        if not any(Path(str(file)).resolve().is_relative_to(folder) for folder in known):
            raise Abstain(f"the adapter's process loaded {name} from {file}, which is not installed")
    return Identity(adapter, one.name, one.version, before)
