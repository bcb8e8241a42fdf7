"""`finercut`: replayed answers are those of whole passes, for half the work, in greedy order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prunepath.allocation.steps import StepOptions, build_steps
from prunepath.data.samples import Samples
from prunepath.errors import NumericsError, RequestError
from prunepath.methods.depth.distance import output_distance
from prunepath.methods.depth.finercut import FinerCutConfig, shortened
from prunepath.methods.depth.greedy import Greedy
from prunepath.methods.method import Ranking, SearchContext
from prunepath.structure.gates import frozen, gated
from prunepath.tasks import TASKS
from tests.conformance.families import random_tokens, tiny
from tests.depth.problems import context, made, path_of, scored
from tests.listening import Interrupting
from tests.optin.scenes import MODELS
from tests.search.problems import context_of

FAR = 1e-6
LAYERS = 6


def distances(found: SearchContext) -> tuple[str, ...]:
    return ("js", "kl", "angular") if found.task.distribution else ("kl", "angular")


@pytest.fixture(scope="module")
def deep() -> SearchContext:
    return context_of(tiny("Llama", num_hidden_layers=LAYERS), random_tokens(3, 16))


def rank(found: SearchContext, **settings: Any) -> Ranking:
    method = made("finercut", **settings)
    return method.rank(scored(found, method))


def by_hand(found: SearchContext, gates: list[str], distance: str) -> float:
    """The definition: plain gates, one whole pass, everything in float64."""
    closed = {name: torch.zeros(1) for name in gates}
    inputs = found.samples.inputs
    with torch.no_grad(), frozen(found.model):
        dense = found.task.output(found.model, inputs).double()
        with gated(found.model, found.structure, closed):
            own = found.task.output(found.model, inputs).double()
    if distance == "kl":
        return float(found.task.distance(own, dense, found.samples))
    keep = found.task.counted(own, found.samples)
    if keep is not None:
        own, dense = own[keep], dense[keep]
    if distance == "angular":
        cosine = torch.nn.functional.cosine_similarity(own, dense, dim=-1)
        return float(cosine.clamp(-1, 1).arccos().mean() / torch.pi)
    p, q = dense.softmax(-1), own.softmax(-1)
    m = (p + q) / 2
    halves = [(x * (x / m).log()).sum(-1) for x in (p, q)]
    return float((halves[0] + halves[1]).mean() / 2)


@pytest.mark.parametrize("name", MODELS)
def test_replayed_answers_are_those_of_whole_passes_and_of_the_definition(name: str) -> None:
    listener = Interrupting()
    found = replace(context(name), progress=listener)
    groups = made("finercut").scored_groups(found.structure)
    for distance in distances(found):
        with frozen(found.model):
            fast = Greedy(found, found.samples, groups, distance)
            plain = Greedy(found, found.samples, groups, distance, replay=False)
        assert listener.notes == []
        for removed in ([], [groups[0].name], [groups[-1].name, groups[1].name]):
            with frozen(found.model):
                quick, slow = fast.step(removed), plain.step(removed)
            assert list(quick) == [g.name for g in groups if g.name not in removed]
            for group, value in quick.items():
                assert value == pytest.approx(slow[group], abs=FAR)
                expected = by_hand(found, [*removed, group], distance)
                assert value == pytest.approx(expected, abs=FAR, rel=1e-4)


def runs_of(greedy: Greedy, found: SearchContext, removed: list[str]) -> int:
    """Sub-layers that ran in one step."""
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += 1

    consumers = [group.consumer for group in found.structure.groups if group.is_sublayer]
    handles = [found.model.get_submodule(name).register_forward_hook(hook) for name in consumers]
    with frozen(found.model):
        greedy.step(removed)
    for handle in handles:
        handle.remove()
    return count


def test_a_step_runs_half_of_what_whole_passes_run(deep: SearchContext) -> None:
    groups = made("finercut").scored_groups(deep.structure)
    with frozen(deep.model):
        fast = Greedy(deep, deep.samples, groups, "js")
        plain = Greedy(deep, deep.samples, groups, "js", replay=False)
    whole = 2 * LAYERS
    assert runs_of(plain, deep, []) == whole * whole
    # Two candidates in layer l, which run 2 (L - l) sub-layers each, and one pass that is kept up
    # to the last layer.
    assert runs_of(fast, deep, []) == 2 * LAYERS * (LAYERS + 1) + whole - 2
    assert runs_of(fast, deep, []) == whole * whole // 2 + 2 * whole - 2


def test_the_order_is_greedy(deep: SearchContext) -> None:
    ranking = rank(deep, distance="kl")
    order = ranking.extra["removals"]
    assert sorted(order) == sorted(g.name for g in deep.structure.groups if g.is_sublayer)
    removed: list[str] = []
    for name, distance in zip(order[:4], ranking.extra["distances"], strict=False):
        tried = {
            other: by_hand(deep, [*removed, other], "kl") for other in order if other not in removed
        }
        assert name == min(tried, key=lambda other: tried[other])
        assert distance == pytest.approx(tried[name], rel=1e-4)
        removed.append(name)
    path = path_of(deep, made("finercut", distance="kl"))
    assert [name for name, _ in path.removal_order] == order
    steps = build_steps(path, StepOptions())
    assert [step.removed[0][0].name for step in steps] == order


def test_a_removal_that_undoes_damage_keeps_its_place() -> None:
    from prunepath.methods.depth.finercut import _damages
    from prunepath.methods.depth.greedy import Removals

    found = context("llama")
    groups = made("finercut").scored_groups(found.structure)
    names = [group.name for group in groups]
    removals = Removals(tuple(names[:3]), (0.5, 0.25, 0.5), {names[3]: 0.1})
    damage = _damages(groups, removals)
    values = [np.float32(damage[name][0]) for name in names]
    assert values == sorted(values)
    assert len(set(values)) == len(values)


def test_steps_end_and_the_rest_follows_as_the_last_one_ranks_it(deep: SearchContext) -> None:
    whole, short = rank(deep), rank(deep, steps=3)
    assert short.extra["removals"] == whole.extra["removals"][:3]
    first = path_of(deep, made("finercut", steps=3)).removal_order
    removed = short.extra["removals"]
    rest = {
        name: by_hand(deep, [*removed[:2], name], "js")
        for name in whole.damage
        if name not in removed
    }
    assert [name for name, _ in first[3:]] == sorted(rest, key=lambda name: rest[name])


def test_first_layers_may_be_protected(deep: SearchContext) -> None:
    path = path_of(deep, made("finercut", protect=0.5))
    assert {group.layer for group in path.structure.groups} == {3, 4, 5}
    left = {item.module for item in path.structure.left_alone}
    assert {f"model.layers.{index}.mlp#ffn" for index in range(3)} <= left


@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_one_kind_alone(deep: SearchContext, kind: str) -> None:
    path = path_of(deep, made("finercut", units=kind, steps=2))
    assert {group.kind for group in path.structure.groups} == {kind}
    assert path.structure.num_layers == LAYERS


@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(
    deep: SearchContext, tmp_path: Path, at: int
) -> None:
    whole = rank(deep)
    kept = replace(deep, state_folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        rank(replace(kept, progress=Interrupting(at, "removing sub-layers")))
    listener = Interrupting()
    again = rank(replace(kept, progress=listener))
    assert listener.notes == []
    assert again.extra == whole.extra  # bit for bit
    for name, value in whole.damage.items():
        np.testing.assert_array_equal(again.damage[name], value)
    other = Interrupting()
    rank(replace(kept, progress=other), distance="kl", steps=1)
    assert "belongs to a search with other settings" in other.notes[0]


def test_what_is_not_finite_is_named() -> None:
    found = context_of(tiny("Llama", num_hidden_layers=2), random_tokens(2, 8))
    task = found.task

    class Breaking(type(task)):  # type: ignore[misc]
        calls = 0

        def output(self, model: Any, inputs: Any) -> Tensor:
            answer: Tensor = super().output(model, inputs)
            hooks = model.model.layers[1].mlp.down_proj._forward_pre_hooks
            return answer * torch.nan if hooks else answer

    broken = replace(found, task=Breaking())
    with pytest.raises(NumericsError, match="without 'layers.1.ffn', after 0 other sub-layers"):
        rank(broken)


def test_a_dense_model_that_is_not_finite_is_refused() -> None:
    found = context_of(tiny("Llama", num_hidden_layers=2), random_tokens(2, 8))
    found.model.model.norm.weight.data[0] = torch.nan
    with pytest.raises(NumericsError, match="the dense model's answer holds NaN"):
        rank(found)


def test_answers_that_are_no_distribution_have_no_js() -> None:
    with pytest.raises(RequestError, match="'image-text' is none; use distance=kl"):
        rank(context("clip"), distance="js")
    assert rank(context("clip")).extra["distance"] == "kl"
    assert rank(context("llama")).extra["distance"] == "js"
    one = torch.ones(3, 1)
    samples = Samples(inputs={"input_ids": torch.ones(3, 2, dtype=torch.int64)})
    with pytest.raises(RequestError, match="the model answers with one number a sample"):
        output_distance(TASKS["text-classification"], "js", one, one, samples)


@pytest.mark.parametrize("distance", ["js", "kl", "angular"])
def test_padding_does_not_count(distance: str) -> None:
    task = TASKS["causal-lm"]
    generator = torch.Generator().manual_seed(0)
    own, dense = (torch.randn(1, 6, 11, generator=generator) for _ in range(2))
    ids, mask = torch.ones(1, 6, dtype=torch.int64), torch.tensor([[1, 1, 1, 1, 0, 0]])
    padded = Samples(inputs={"input_ids": ids, "attention_mask": mask})
    short = Samples(inputs={"input_ids": ids[:, :4], "attention_mask": mask[:, :4]})
    found = output_distance(task, distance, own, dense, padded)
    assert found[1] == 4
    assert found[0] == pytest.approx(
        output_distance(task, distance, own[:, :4], dense[:, :4], short)[0], rel=1e-6
    )


def test_texts_are_shortened_with_all_that_belongs_to_them() -> None:
    ids = torch.arange(24).view(2, 12)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.zeros(2, 3, 12, 12),
        "decoder_input_ids": ids[:, :7],
        "decoder_attention_mask": torch.ones(2, 7),
    }
    samples = Samples(inputs=inputs, labels=ids)
    found = shortened(samples, 5)
    shapes = {name: tuple(value.shape) for name, value in found.inputs.items()}
    assert shapes == {
        "input_ids": (2, 5),
        "attention_mask": (2, 5),
        "pixel_values": (2, 3, 12, 12),
        "decoder_input_ids": (2, 5),
        "decoder_attention_mask": (2, 5),
    }
    assert found.labels is not None
    assert found.labels.shape == (2, 5)
    assert shortened(samples, 0) is samples


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"distance": "l2"}, "unknown distance 'l2' .* use auto or js or kl or angular"),
        ({"units": "head"}, "unknown units 'head' .* use all or attention or ffn"),
        ({"samples": 0}, "samples is 0; it must be at least 1"),
        ({"tokens": 1}, "tokens is 1; give the longest text, at least 2, or 0"),
        ({"steps": -1}, "steps is -1; give a number of sub-layers, or 0"),
        ({"protect": 1.0}, "protect is 1.0; it is the share of layers that stay"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        FinerCutConfig(**settings)
