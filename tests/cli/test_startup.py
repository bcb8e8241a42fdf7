"""`prunepath --help` answers at once: nothing heavy is imported before a verb is called."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "numpy")
PROGRAM = f"""
import sys, time
start = time.process_time()
from prunepath.cli.main import run
sys.argv = ["prunepath", *sys.argv[1:]]
try:
    run()
except SystemExit as end:
    seconds = time.process_time() - start
    found = [name for name in {HEAVY!r} if name in sys.modules]
    print(end.code, seconds, *found, sep="|", file=sys.stderr)
"""


def run(*arguments: str) -> tuple[str, float, list[str]]:
    """Exit code, processor seconds and heavy modules of a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    code, seconds, *found = done.stderr.strip().splitlines()[-1].split("|")
    return code, float(seconds), found


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["search", "--help"], ["extract", "--help"]],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code, _, found = run(*arguments)
    assert (code, found) == ("0", [])


def test_a_malformed_budget_is_refused_without_torch() -> None:
    code, _, found = run("extract", "path", "--ratio", "1.3", "-o", "small")
    assert code == "2"
    assert "torch" not in found


def test_the_check_itself_notices_a_heavy_package() -> None:
    _, _, found = run("methods")
    assert "numpy" in found


def test_help_is_fast() -> None:
    # The best of three, so that a busy machine does not fail the test.
    assert min(run("--help")[1] for _ in range(3)) < 1.0
