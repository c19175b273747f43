"""Every example runs as it is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SAYS = {
    "two_tenants.py": ["ann of acme", "Initech", "cartel office"],
    "agent_tool.py": ["booked by the office", "1998 is out", "refused: 'tenant_id'"],
    "own_transaction.py": ["inside the transaction: 1 - outside: 0", "after the rollback: 0", "Thirty days"],
}


def test_every_example_is_named_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(SAYS)


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for words in SAYS[name]:
        assert words in done.stdout
    if name == "two_tenants.py":
        bob = done.stdout.partition("bob of beta")[2]
        assert "Lyon" in bob
        assert "Initech" not in bob
