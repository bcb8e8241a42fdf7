"""`import prunepath` costs next to nothing, and its public names load on demand.

Each check runs in its own process: in this one, torch is long since imported.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

import prunepath

HEAVY = ("torch", "transformers", "datasets", "matplotlib", "rich", "numpy", "typer")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_import_loads_no_heavy_package() -> None:
    found = run(f"import sys, prunepath; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert found == "[]"


def test_the_check_itself_notices_a_heavy_package() -> None:
    found = run(f"import sys, prunepath, numpy; print([m for m in {HEAVY!r} if m in sys.modules])")
    assert found == "['numpy']"


def test_import_is_fast() -> None:
    # Measured inside the process, so that starting Python does not count; processor time, and the
    # best of three, so that a busy machine does not fail the test.
    code = "import time; t = time.process_time(); import prunepath; print(time.process_time() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.2


def test_data_and_report_import_without_torch() -> None:
    rooms = "prunepath.data, prunepath.report, prunepath.files, prunepath.registry"
    found = run(f"import sys, {rooms}; print([m for m in ('torch', 'rich') if m in sys.modules])")
    assert found == "[]"


def test_version_and_public_names_resolve() -> None:
    assert prunepath.__version__ == "0.1.0"
    for name in prunepath.__all__:
        assert getattr(prunepath, name) is not None
        assert name in dir(prunepath)


def test_a_name_is_loaded_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prunepath._PUBLIC, "RequestError", "prunepath.errors")
    from prunepath.errors import RequestError

    assert prunepath.RequestError is RequestError
    monkeypatch.delattr(prunepath, "RequestError", raising=False)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'prunepath' has no attribute 'prune'"):
        _ = prunepath.prune
