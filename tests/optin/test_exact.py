"""Exact scores are the definition: unit by unit equal to plain gates and full passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from prunepath.errors import DataError, NumericsError, RequestError
from prunepath.methods.optin import exact
from prunepath.methods.optin.exact import exact_scores, measure
from prunepath.methods.optin.features import reading
from prunepath.methods.optin.folding import masked
from prunepath.methods.optin.rows import manifold_distance
from prunepath.methods.optin.scene import Scene
from prunepath.structure.gates import frozen, gated, new_gates
from prunepath.structure.selection import Selection
from prunepath.surgery.cut import cut
from prunepath.tasks.text_classification import TextClassification
from tests.optin.scenes import MODELS, changed, context, plain_scores, scene

every_model = pytest.mark.parametrize("name", MODELS)


class Notes:
    """A listener that remembers what it was told."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.notes: list[str] = []
        self._left = stop_after

    def track(self, items: Any, label: str, total: int | None = None) -> Any:
        for item in items:
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise KeyboardInterrupt
            yield item

    def note(self, message: str) -> None:
        self.notes.append(message)


def some(found: Scene, count: int = 3) -> dict[str, np.ndarray]:
    """A few units of every group."""
    random = np.random.default_rng(0)
    return {
        group.name: random.choice(group.num_units, min(count, group.num_units), replace=False)
        for group in found.context.structure.groups
    }


def largest(scores: dict[str, Any], which: int) -> float:
    return max(float(np.max(values[which])) for values in scores.values())


@every_model
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_folded_scores_are_those_of_plain_gates(name: str, double: bool) -> None:
    notes = Notes()
    found = changed(scene(name, double=double), progress=notes)
    wanted = some(found, 2)
    scores = measure(found, wanted, "test")
    assert notes.notes == []  # every series of every model here can be folded and replayed
    if name != "mixtral":
        assert found.candidates_at_once > 1
    md_allowed, kd_allowed, noise = (1e-10, 1e-10, 1e-12) if double else (1e-4, 1e-3, 1e-7)
    for group, units in wanted.items():
        md, kd = scores[group]
        for row, unit in enumerate(units):
            expected_md, expected_kd = plain_scores(found, group, int(unit))
            first = found.trajectory.first[group]
            assert (expected_md[:first] == 0).all()  # what lies in front of a gate never changes
            np.testing.assert_allclose(md[row], expected_md, rtol=md_allowed, atol=noise)
            np.testing.assert_allclose(kd[row], expected_kd, rtol=kd_allowed, atol=noise)
    assert largest(scores, 0) > 1e-2
    assert largest(scores, 1) > 1e-4


@every_model
def test_nothing_removed_changes_nothing(name: str) -> None:
    found = scene(name)
    groups = found.context.structure.groups
    with frozen(found.context.model), torch.no_grad():
        folder = exact._Folder(found)
        for site in folder._sites([groups[0]]) + folder._sites([groups[-1]]):
            count = 1 if site.axis is None else 2
            ones = torch.ones(count, site.gate.layout.size)
            md, kd = folder._scores(site, [{}] * len(found.parts), ones)
            assert md.max() < 1e-9
            assert kd.max() < 1e-6


def test_samples_that_run_in_parts_score_as_they_do_together() -> None:
    whole, parts = scene("bert"), scene("bert", candidates_tokens=9)
    assert len(whole.parts) == 1
    assert len(parts.parts) == 3
    wanted = some(whole)
    one, other = measure(whole, wanted, "a"), measure(parts, wanted, "b")
    for name in wanted:
        for left, right in zip(one[name], other[name], strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", ["ffn_channel", "head"])
def test_a_masked_unit_is_a_cut_one(kind: str) -> None:
    found = scene("bert", double=True)
    there = found.context
    group = there.structure.of_kind(kind)[1]
    keep = np.ones(group.num_units, dtype=np.bool_)
    keep[1] = False
    inputs = found.samples.inputs
    with torch.no_grad(), frozen(there.model):
        small = cut(there.model, there.structure, Selection({group.name: keep}))
        with masked(there.model, group.gate, torch.from_numpy(keep[owners(group)])[None], None):
            gate = there.task.output(there.model, inputs)
        assert torch.allclose(there.task.output(small, inputs), gate, atol=1e-10)
        assert not torch.allclose(there.task.output(there.model, inputs), gate, atol=1e-6)


def owners(group: Any) -> np.ndarray:
    return np.asarray(group.gate.layout.owner(group.unit))


def test_heads_are_heard() -> None:
    found = scene("vit")
    there = found.context
    heads = there.structure.of_kind("head")
    with torch.no_grad():
        dense = there.task.output(there.model, found.samples.inputs)
        none = {group.name: torch.zeros(group.num_units) for group in heads}
        with gated(there.model, there.structure, none):
            without = there.task.output(there.model, found.samples.inputs)
    assert float((dense - without).abs().max()) > 1e-2
    scores = measure(found, {group.name: np.arange(group.num_units) for group in heads}, "heads")
    assert min(float(md.sum(1).min()) for md, _ in scores.values()) > 0


def test_the_order_of_candidates_does_not_matter() -> None:
    found = scene("llama", double=True)
    wanted = some(found, 8)
    turned = {name: units[::-1] for name, units in reversed(wanted.items())}
    one, other = measure(found, wanted, "a"), measure(found, turned, "b")
    for name in wanted:
        for left, right in zip(one[name], other[name], strict=True):
            np.testing.assert_allclose(left, right[::-1], rtol=1e-6, atol=1e-9)


def test_scores_follow_permuted_channels() -> None:
    from tests.optin.scenes import MODELS

    found = scene("bert", double=True)
    model = MODELS["bert"][0]().double()
    layer = model.bert.encoder.layer[0]
    order = torch.randperm(layer.intermediate.dense.out_features)
    with torch.no_grad():
        layer.intermediate.dense.weight.copy_(layer.intermediate.dense.weight[order])
        layer.intermediate.dense.bias.copy_(layer.intermediate.dense.bias[order])
        layer.output.dense.weight.copy_(layer.output.dense.weight[:, order])
    with frozen(model):
        other = Scene.of(changed(found, model=model).context, found.config)
    name = "layers.0.ffn_channel"
    everything = {name: np.arange(len(order))}
    one, permuted = measure(found, everything, "a")[name], measure(other, everything, "b")[name]
    for left, right in zip(one, permuted, strict=True):
        np.testing.assert_allclose(left[order.numpy()], right, rtol=1e-5, atol=1e-9)


def test_both_losses_are_flat_at_the_dense_model() -> None:
    """So first-order saliency of them says nothing at all."""
    found = scene("bert", double=True)
    there = found.context
    gates = new_gates(there.structure, dtype=torch.float64)
    with frozen(there.model), gated(there.model, there.structure, gates):
        with reading(there.model, found.trajectory.sites) as features:
            answer = there.task.output(there.model, found.samples.inputs)
        dense = [
            manifold_distance(found.rows.rows(i, feature), found.teachers[i])
            for i, feature in enumerate(features)
        ]
        kd = there.task.distance(answer, answer.detach(), found.samples)
        losses = {"md": torch.stack(dense).sum(), "kd": kd}
        for name, loss in losses.items():
            slopes = torch.autograd.grad(loss, list(gates.values()), retain_graph=True)
            assert max(float(slope.abs().max()) for slope in slopes) < 1e-7, name


def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path: Any) -> None:
    found = scene("bert")
    expected = exact_scores(found)
    layer = sum(group.num_units for group in found.context.structure.groups) // 2
    with pytest.raises(KeyboardInterrupt):
        exact_scores(changed(found, state_folder=tmp_path, progress=Notes(stop_after=layer + 5)))
    assert [file.name for file in tmp_path.iterdir()] == ["optin-exact.safetensors"]
    rest = Notes(stop_after=layer)  # the first layer is not scored again
    again = exact_scores(changed(found, state_folder=tmp_path, progress=rest))
    assert again.checksum == expected.checksum
    other = scene("bert", tokens=5)
    notes = Notes()
    fresh = exact_scores(changed(other, state_folder=tmp_path, progress=notes))
    assert "belongs to a search with other settings" in notes.notes[0]
    assert fresh.checksum != expected.checksum


class Nan(TextClassification):
    """Answers NaN at its n-th comparison."""

    def __init__(self, after: int) -> None:
        self._left = after

    def distance(self, output: Any, dense: Any, samples: Any) -> Any:
        self._left -= 1
        return super().distance(output, dense, samples) * (float("nan") if not self._left else 1)


def test_a_candidate_that_ends_in_nan_is_named() -> None:
    found = changed(scene("bert"), task=Nan(after=7))
    name = "layers.1.ffn_channel"
    with pytest.raises(NumericsError, match=rf"without unit 6 of '{name}' the model's"):
        measure(found, {name: np.arange(20)}, "nan")


def test_too_many_candidates_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene("bert")
    assert found.candidates_at_once > 4
    wanted = some(found, 9)
    expected = measure(found, wanted, "a")

    def small(students: Any, teacher: Any) -> Any:
        if len(students) > 4:
            raise RuntimeError("CUDA out of memory. Tried to allocate 3.00 GiB")
        return manifold_distance(students, teacher)

    monkeypatch.setattr(exact, "manifold_distance", small)
    notes = Notes()
    scores = measure(changed(found, progress=notes), wanted, "b")
    assert "do not fit into memory; going on with" in notes.notes[0]
    for name in wanted:
        np.testing.assert_allclose(scores[name][0], expected[name][0], rtol=1e-4, atol=1e-8)

    def never(students: Any, teacher: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 3.00 GiB")

    monkeypatch.setattr(exact, "manifold_distance", never)
    with pytest.raises(RequestError, match="one pass without a unit needs more memory"):
        measure(found, wanted, "c")


def test_a_model_that_mixes_samples_is_scored_one_by_one() -> None:
    """Its answers to one candidate would depend on the others in the pass."""
    found = scene("bert")
    notes = Notes()
    handle = found.context.model.classifier.register_forward_hook(
        lambda _, __, output: output - output.mean(0)
    )
    try:
        with frozen(found.context.model):
            mixed = Scene.of(changed(found, progress=notes).context, found.config)
        wanted = some(found, 2)
        scores = measure(mixed, wanted, "mixed")
        for group, units in wanted.items():
            for row, unit in enumerate(units):
                md, kd = plain_scores(mixed, group, int(unit))
                np.testing.assert_allclose(scores[group][0][row], md, rtol=1e-4, atol=1e-8)
                np.testing.assert_allclose(scores[group][1][row], kd, rtol=1e-3, atol=1e-7)
    finally:
        handle.remove()
    assert len(notes.notes) == 3  # once for the gates of a layer, not once a layer
    assert "are scored one candidate a pass" in notes.notes[0]


def test_one_token_has_nothing_to_relate_to() -> None:
    there = context("bert")
    inputs = {name: value[:1, :1] for name, value in there.samples.inputs.items()}
    from dataclasses import replace

    from prunepath.data.samples import Samples
    from prunepath.methods.optin.config import OptinConfig

    with pytest.raises(DataError, match=r"has 1 rows over 1 samples.*give more samples"):
        Scene.of(replace(there, samples=Samples(inputs=inputs)), OptinConfig())


def test_a_search_leaves_no_hook_behind() -> None:
    found = scene("t5")
    model = found.context.model
    exact_scores(found)
    for name, module in model.named_modules():
        assert "forward" not in module.__dict__, name
        assert not module._forward_hooks, name
        assert not module._forward_pre_hooks, name


def test_a_layer_is_recorded_from_where_the_one_before_was() -> None:
    """And no further than its last gate: every layer is computed once, not once for each layer."""
    found = scene("bert", candidates_tokens=9999)
    model, task = found.context.model, found.context.task
    layers = list(model.bert.encoder.layer)
    assert len(found.parts) == 1
    calls: list[int] = []
    handles = [
        layer.intermediate.dense.register_forward_hook(lambda *_, index=index: calls.append(index))
        for index, layer in enumerate(layers)
    ]
    try:
        with frozen(model), torch.no_grad():
            folder = exact._Folder(found)
            groups = found.context.structure.groups
            by_layer = [[g for g in groups if g.layer == index] for index in range(len(layers))]
            sites = [folder._sites(own) for own in by_layer]  # tries folding out on the model
            calls.clear()
            for own in sites:
                folder._dense(own)
            assert sorted(calls) == list(range(len(layers)))
            task.output(model, found.samples.inputs)
            assert len(calls) == 2 * len(layers)
    finally:
        for handle in handles:
            handle.remove()
