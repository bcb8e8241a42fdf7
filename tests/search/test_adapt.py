"""Layer-adaptive increments: gated statistics are those of the cut model, steps as published."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunepath.data.samples import Samples
from prunepath.errors import ModelError, NumericsError, RequestError
from prunepath.methods import adapt as module
from prunepath.methods.adapt import Adapt, AdaptConfig
from prunepath.methods.gated_sums import gated_sums
from prunepath.methods.increments import grown, layer_cosines, layer_importance
from prunepath.methods.method import Ranking, SearchContext, total_order
from prunepath.path import SolutionPath
from prunepath.statistics.collect import Wanted
from prunepath.statistics.sums import Statistics
from prunepath.structure.cost import unit_cost
from prunepath.structure.selection import Selection
from prunepath.surgery.cut import cut
from tests.conformance.families import dense, random_tokens, tiny
from tests.conformance.paths import PROVENANCE
from tests.listening import Interrupting
from tests.search.problems import context_of

GRADIENTS = Wanted(gradients=True, moments=True, output_gradients=False, influence=True)


@cache
def context() -> SearchContext:
    model = tiny("Llama", num_hidden_layers=3, num_key_value_heads=2).double()
    return replace(context_of(model, random_tokens(4, 20)), objective="task")


def rank(context: SearchContext, **settings: Any) -> Ranking:
    return Adapt(AdaptConfig(**settings)).rank(context)


def half_gone() -> Selection:
    """Every second unit of each lane of the finest groups."""
    keep = {}
    for group in context().structure.finest_groups:
        keep[group.name] = np.arange(group.num_units) % group.lane_width % 2 == 1
    return Selection(keep)


def test_gated_statistics_are_those_of_the_cut_model() -> None:
    from prunepath.structure.discover import discover

    here, selection = context(), half_gone()
    smaller = cut(here.model, here.structure, selection)
    sums = gated_sums(here, here.samples, GRADIENTS, selection.keep)
    own = replace(here, model=smaller, structure=discover(smaller))
    expected = gated_sums(own, here.samples, GRADIENTS, {})
    compared = 0
    for group in own.structure.finest_groups:
        kept = torch.from_numpy(selection.keep[group.name])
        for table in ("fisher", "gradient"):
            found = sums.mean(table, group.name)
            assert (found[~kept] == 0).all()
            torch.testing.assert_close(found[kept], expected.mean(table, group.name))
            compared += 1
    assert compared == 2 * len(here.structure.finest_groups)
    layers = [f"model.layers.{i}" for i in range(3)]
    assert layer_cosines(sums, layers) == pytest.approx(layer_cosines(expected, layers))


def test_cosines_are_those_of_real_tokens() -> None:
    model = dense("llama-untied")
    ids, mask = random_tokens(2, 6), torch.ones(2, 6, dtype=torch.int64)
    mask[1, 3:] = 0
    samples = Samples(inputs={"input_ids": ids, "attention_mask": mask})
    here = replace(context_of(model, random_tokens(1, 4)), samples=samples)
    sums = gated_sums(here, samples, Wanted(False, False, False, influence=True), {})
    layers = [f"model.layers.{i}" for i in range(3)]
    means = layer_cosines(sums, layers)
    with torch.no_grad():
        states = [
            model(**b.inputs, output_hidden_states=True).hidden_states for b in samples.batches(1)
        ]
    for index, layer in enumerate(layers[:-1]):  # the last state is normed
        rows = [
            torch.cosine_similarity(each[index], each[index + 1], dim=-1)[m[None].bool()]
            for each, m in zip(states, mask, strict=True)
        ]
        assert means[layer] == pytest.approx(float(torch.cat(rows).mean()), abs=1e-6)


def test_layers_that_cannot_be_compared_are_named() -> None:
    with pytest.raises(ModelError, match="the layer 'layer' did not run on the calibration data"):
        layer_cosines(Statistics(), ["layer"])
    broken = Statistics(influence={"layer": torch.tensor([torch.nan, 0.0, 3.0])})
    with pytest.raises(NumericsError, match="the cosine between input and output of the layer"):
        layer_cosines(broken, ["layer"])


def test_importance_is_centred_and_falls_with_the_cosine() -> None:
    found = layer_importance({"a": 0.9, "b": 0.2, "c": 0.7})
    assert sum(found.values()) == pytest.approx(0, abs=1e-12)
    assert max(found.values()) == found["b"] == 1.0
    assert found["a"] < found["c"] < found["b"]
    assert layer_importance({"a": 0.5, "b": 0.5}) == {"a": 0.0, "b": 0.0}
    assert layer_importance({"only": 0.3}) == {"only": 0.0}


def test_shares_grow_by_a_step_on_average_and_never_fall() -> None:
    importance = layer_importance({"a": 0.9, "b": 0.2, "c": 0.7})
    shares = dict.fromkeys(importance, 0.0)
    for step in range(1, 26):  # nothing is capped yet
        shares = grown(shares, importance, steps=50, amplitude=0.02, cap=0.99)
        assert np.mean(list(shares.values())) == pytest.approx(step / 50)
    assert shares["b"] == pytest.approx(0)
    steep = grown({"a": 0.3}, {"a": 1.0}, steps=50, amplitude=0.1, cap=0.99)
    assert steep == {"a": 0.3}
    assert grown({"a": 0.98}, {"a": -1.0}, steps=50, amplitude=0.02, cap=0.99) == {"a": 0.99}


@pytest.mark.parametrize("amplitude", [0.0, 0.1])
def test_the_order_up_to_a_step_is_the_state_of_that_step(amplitude: float) -> None:
    """Of every layer as many parameters are gone as its share says, to half a unit."""
    settings = {"steps": 10, "amplitude": amplitude, "rescoring": False}
    here = context()
    ranking = rank(here, **settings)
    importance = layer_importance(ranking.extra["layer_cosines"])
    shares = dict.fromkeys(importance, 0.0)
    for step in range(1, 9):
        shares = grown(shares, importance, steps=10, amplitude=amplitude, cap=0.99)
        for layer, share in shares.items():
            groups = [
                group
                for group in here.structure.finest_groups
                if here.structure.places_by_path[group.place].layer_path == layer
            ]
            params = [unit_cost(here.structure, group).params for group in groups]
            gone = [int((ranking.damage[group.name] <= step).sum()) for group in groups]
            whole = sum(p * g.num_units for p, g in zip(params, groups, strict=True))
            removed = sum(p * n for p, n in zip(params, gone, strict=True))
            largest = max(p * g.num_lanes for p, g in zip(params, groups, strict=True))
            assert abs(removed / whole - share) <= 0.51 * largest / whole


def test_the_first_step_takes_the_lowest_scores_of_every_layer() -> None:
    here = context()
    damage = rank(here, base="fisher", steps=20, amplitude=0.0).damage
    for layer in range(3):
        gone, kept = [], []
        for group in here.structure.finest_groups:
            if group.layer != layer:
                continue
            fisher = here.statistics.mean("fisher", group.name).numpy() / 2
            scores = fisher / unit_cost(here.structure, group).params
            lanes = np.sort(scores.reshape(group.num_lanes, -1), axis=1).mean(axis=0)
            when = np.sort(damage[group.name].reshape(group.num_lanes, -1), axis=1)[0]
            gone += lanes[when <= 1].tolist()
            kept += lanes[when > 1].tolist()
        assert 0 < len(gone) < len(kept)
        assert max(gone) <= min(kept)


def test_scoring_anew_changes_the_order_and_stops_where_it_is_told() -> None:
    here = context()
    runs = {
        "once": rank(here, steps=6, rescoring=False),
        "short": rank(here, steps=6, until=0.1),
        "anew": rank(here, steps=6),
    }
    first = {name: np.concatenate(list(run.damage.values())) for name, run in runs.items()}
    assert not np.array_equal(first["once"], first["anew"])
    assert not np.array_equal(first["short"], first["anew"])
    for values in first.values():  # the first step knows the dense model alone
        assert np.array_equal(values <= 1, first["once"] <= 1)


def test_lanes_shrink_together_at_every_step() -> None:
    ranking = rank(context(), steps=7, amplitude=0.1)
    for group in context().structure.finest_groups:
        lanes = np.sort(ranking.damage[group.name].reshape(group.num_lanes, -1), axis=1)
        assert (lanes == lanes[0]).all()


def test_allocation_makes_nested_sizes_of_it() -> None:
    from prunepath.allocation.allocate import allocate
    from prunepath.allocation.budget import Budget
    from prunepath.allocation.steps import StepOptions

    here = context()
    ranking = rank(here, steps=8, amplitude=0.1)
    path = SolutionPath(
        structure=here.structure,
        **total_order(here.structure, ranking),
        provenance=replace(PROVENANCE, extra=ranking.extra),
    )
    assert path.order == "damage"
    options = StepOptions(multiple=1, floor=1)
    sizes = [allocate(path, Budget.from_ratio(r), options).selection for r in (0.2, 0.4, 0.6)]
    assert sizes[2].issubset(sizes[1], here.structure)
    assert sizes[1].issubset(sizes[0], here.structure)


@pytest.mark.parametrize("base", ["taylor:reduction=sum", "residual:repair=bias,rounds=1"])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(base: str, tmp_path: Path) -> None:
    here = context()
    scorer = Adapt(AdaptConfig(base=base, steps=6, step_windows=3))
    from prunepath.methods.scope import scored_part

    here = replace(here, structure=scored_part(here.structure, scorer))
    whole = scorer.rank(here)
    kept = replace(here, state_folder=tmp_path)
    listener = Interrupting(3, "pruning")
    with pytest.raises(KeyboardInterrupt):
        scorer.rank(replace(kept, progress=listener))
    assert listener.notes == []
    assert [file.name for file in tmp_path.iterdir()] == ["adapt.safetensors"]
    again = scorer.rank(kept)
    assert again.extra == whole.extra
    for name, values in whole.damage.items():
        np.testing.assert_array_equal(again.damage[name], values)


def test_numbers_that_are_none_name_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(context: Any, samples: Any, wanted: Any, keep: Any) -> Any:
        sums = gated_sums(context, samples, wanted, keep)
        for values in sums.gradient.values():
            values[0] = torch.nan
        return sums

    monkeypatch.setattr(module, "gated_sums", broken)
    match = r"in step 2 of 4, with 25% of the units gated: the sums 'gradient' of .* hold NaN"
    with pytest.raises(NumericsError, match=match):
        rank(context(), steps=4)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"amplitude": -1.0}, "amplitude is -1.0; it must be 0 or above"),
        ({"cap": 1.5}, "cap is 1.5; it is a part of a layer"),
        ({"until": 0.0}, "until is 0.0; it is a part of a layer"),
        ({"step_windows": -1}, "step_windows is -1; give a number of samples, or 0"),
        ({"base": "taylro"}, "unknown method 'taylro'"),
        ({"base": "taylor:sum"}, "'sum' is not KEY=VALUE; write for example base=taylor:reduct"),
        ({"base": "taylor:reduction=max"}, "base is 'taylor:reduction=max': unknown reduction"),
        ({"base": "optin"}, "base is 'optin', and that method runs the model itself"),
        ({"base": "adapt"}, "base is 'adapt', and that method runs the model itself"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        AdaptConfig(**settings)
