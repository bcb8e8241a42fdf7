"""How the samples of a search are shared out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import prunepath
from prunepath.api.plan import Plan, require_counts
from prunepath.data.samples import Samples
from prunepath.errors import RequestError
from prunepath.structure.matrices import out_width
from prunepath.tasks.causal_lm import CAUSAL_LM
from tests.api.fixtures import SEARCH

NOTHING = {"windows": None, "refit": None, "holdout": None, "moments": None}


def plan(batch: int, **counts: int) -> Plan:
    values = {"windows": 10, "refit": 5, "holdout": 2, "moments": 3, **counts}
    return Plan(**values, batch=batch)


def test_the_task_says_what_the_user_does_not() -> None:
    found = Plan.of(CAUSAL_LM, **NOTHING)
    usual = CAUSAL_LM.counts
    assert (found.windows, found.refit, found.holdout) == (32, usual.refit, 2)
    assert Plan.of(CAUSAL_LM, **{**NOTHING, "windows": 4}).refit == 4, "no more than there are"


def test_the_refit_takes_whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(CAUSAL_LM.__class__, "counts", replace(CAUSAL_LM.counts, batch=4))
    found = Plan.of(CAUSAL_LM, windows=10, refit=5, holdout=2, moments=3)
    assert (found.refit, found.refit_batches) == (8, 2)
    found = Plan.of(CAUSAL_LM, windows=6, refit=5, holdout=2, moments=3)
    assert (found.refit, found.refit_batches) == (6, 2)


def test_parts_share_nothing_but_calibration_and_refit() -> None:
    samples = Samples(inputs={"x": torch.arange(14)})
    parts = plan(1).parts(samples)
    assert parts.refit is not None
    assert parts.moments is not None
    found = [part.inputs["x"].tolist() for part in (parts.calibration, parts.refit)]
    assert found == [list(range(10)), list(range(5))]
    assert parts.holdout.inputs["x"].tolist() == [10, 11]
    assert parts.moments.inputs["x"].tolist() == [12, 13]
    assert plan(1, refit=0).parts(samples).refit is None
    assert plan(1).parts(samples.rows(0, 12)).moments is None


def test_the_bytes_of_kept_outputs_are_known_before(path_folder: Path, model_folder: Path) -> None:
    path = prunepath.SolutionPath.from_pretrained(path_folder)
    model = prunepath.load(model_folder)
    names = {group.consumer for group in path.structure.groups if group.consumer}
    widths = {name: out_width(model.get_submodule(name)) for name in names}
    samples = Samples(inputs={"input_ids": torch.zeros(3, SEARCH["window"], dtype=torch.int64)})
    refit = SEARCH["refit_windows"]
    wanted = plan(1, refit=refit).outputs_bytes(widths, path.structure, samples)
    written = [
        tensor.numel() * tensor.element_size()
        for file in path_folder.glob("outputs-*.safetensors")
        for tensor in load_file(file).values()
    ]
    assert wanted == sum(written)


def test_small_counts_are_refused() -> None:
    require_counts(windows=(None, 1), window=(2, 2))
    with pytest.raises(RequestError, match="window is 1; it must be at least 2"):
        require_counts(windows=(1, 1), window=(1, 2))
