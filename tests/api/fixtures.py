"""A tiny model in a folder, a text file and one searched path, shared by the tests of the verbs.

The path is searched once for all tests that only read it. What a fresh process finds is tested
where it matters; elsewhere `no_fresh_process` saves the seconds that starting one costs.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from prunepath.api.search import search
from tests.conformance.families import tiny

__all__ = ["SEARCH", "model_folder", "no_fresh_process", "path_folder", "save_tiny", "text_file"]

SEARCH: dict[str, Any] = {
    "windows": 3,
    "window": 32,
    "moment_windows": 2,
    "refit_windows": 2,
    "holdout_windows": 1,
}


def save_tiny(folder: Path, tokenizer: Any, kind: str = "Llama", **changes: Any) -> Path:
    """A random model of the conformance tables, saved with a tokenizer."""
    model = tiny(kind, **{"vocab_size": 300, **changes})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory, tiny_text: str) -> Path:
    """Some hundred tokens of text."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text(tiny_text, encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A random Llama with grouped queries and its tokenizer."""
    return save_tiny(tmp_path_factory.mktemp("model") / "dense", tiny_tokenizer)


@pytest.fixture(scope="session")
def path_folder(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, text_file: Path
) -> Path:
    """What the default search finds; read it, never write into it."""
    folder = tmp_path_factory.mktemp("searched") / "path"
    search(model_folder, output=folder, data=text_file, **SEARCH)
    return folder


@pytest.fixture
def no_fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Extractions believe that what they wrote loads, without starting a process to see."""
    from prunepath.checkpoint import fresh, verify

    def believed(model: Any, folder: Path, samples: Any, process: Any) -> verify.Verification:
        assert (folder / "config.json").is_file()
        loader = "transformers" if process["stock"] else "prunepath"
        return verify.Verification(0.0, 1e-5, loader, len(samples))

    monkeypatch.setattr(fresh, "FreshProcess", lambda **how: nullcontext(how))
    monkeypatch.setattr(verify, "verify_reload", believed)
