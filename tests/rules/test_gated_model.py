"""The distance of gated answers is that of the cut model's, and leaves no trace."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from prunepath.errors import NumericsError, RequestError
from prunepath.statistics import dense_answers as module
from prunepath.statistics.gated_model import GatedModel
from prunepath.structure.selection import Selection, everything
from prunepath.surgery.cut import cut
from tests.conformance.selections import select
from tests.rules.models import MODELS, Tiny, ready


def cut_distance(tiny: Tiny, selection: Selection) -> float:
    smaller = cut(tiny.model, tiny.structure, selection)
    with torch.no_grad():
        own = tiny.task.output(smaller, tiny.samples.to("cpu"))
        dense = tiny.task.output(tiny.model, tiny.samples.to("cpu"))
    return float(tiny.task.distance(own, dense, tiny.samples))


@pytest.mark.parametrize("kind", ["ffn_channel", "vo_coordinate", "expert", "attention", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_that_of_the_cut_model(name: str, kind: str) -> None:
    tiny = ready(name)
    if kind not in (*tiny.structure.kinds, "all"):
        pytest.skip(f"no {kind} here")
    cases = ("one group emptied",) if kind == "attention" else ("ratio 0.3", "ratio 0.7")
    trial = GatedModel(tiny.model, tiny.structure, tiny.task, tiny.samples)
    for case in cases:
        selection = select(tiny.structure, "all kinds" if kind == "all" else kind, case)
        expected = cut_distance(tiny, selection)
        assert expected > 1e-4
        assert trial.distance(selection) == pytest.approx(expected, abs=1e-5)


def test_batches_are_averaged_and_the_worst_is_found() -> None:
    tiny = ready("encoder")
    selection = select(tiny.structure, "ffn_channel", "ratio 0.7")
    single = [
        GatedModel(tiny.model, tiny.structure, tiny.task, tiny.samples.rows(i, i + 1)).distance(
            selection
        )
        for i in range(4)
    ]
    trial = GatedModel(tiny.model, tiny.structure, tiny.task, tiny.samples, batch=1)
    assert trial.distance(selection) == pytest.approx(np.mean(single), rel=1e-5)
    assert trial.distance(selection, worst=True) == pytest.approx(max(single), rel=1e-5)
    assert trial.distance(selection, 2) == pytest.approx(np.mean(single[:2]), rel=1e-5)
    assert trial.passes == 4 + 4 + 4 + 2, "dense answers are asked for once"


def test_answers_that_do_not_fit_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ready("encoder")
    selection = select(tiny.structure, "ffn_channel", "ratio 0.3")
    kept = GatedModel(tiny.model, tiny.structure, tiny.task, tiny.samples)
    expected = [kept.distance(selection) for _ in range(2)]
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    again = GatedModel(tiny.model, tiny.structure, tiny.task, tiny.samples)
    assert [again.distance(selection) for _ in range(2)] == expected
    assert again.passes > kept.passes


@pytest.mark.parametrize("name", MODELS)
def test_nothing_removed_is_no_distance_and_no_trace_is_left(name: str) -> None:
    tiny = ready(name)
    before = {key: value.clone() for key, value in tiny.model.state_dict().items()}
    trial = GatedModel(tiny.model, tiny.structure, tiny.task, tiny.samples)
    assert trial.distance(everything(tiny.structure)) == pytest.approx(0, abs=1e-6)
    with pytest.raises(KeyboardInterrupt), trial.showing(Selection({})):
        raise KeyboardInterrupt
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in tiny.model.modules()
    )
    assert all(torch.equal(before[key], value) for key, value in tiny.model.state_dict().items())


def test_what_does_not_fit_or_is_not_finite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ready("encoder")
    trial = GatedModel(tiny.model, tiny.structure, tiny.task, tiny.samples)
    with pytest.raises(RequestError, match="names the group 'nowhere', which this model does not"):
        trial.distance(Selection({"nowhere": np.ones(3, dtype=np.bool_)}))
    broken = torch.full((), math.nan)
    monkeypatch.setattr(type(tiny.task), "distance", lambda *_: broken)
    match = "a gated or cut model hold NaN or infinity; check the model"
    with pytest.raises(NumericsError, match=match):
        trial.distance(everything(tiny.structure))
