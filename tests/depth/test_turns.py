"""What is measured of layers and sub-layers is what enters and leaves them, by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from prunepath.data.samples import Samples
from prunepath.statistics.collect import Wanted, recording
from prunepath.statistics.influence import mean_distances, turn_of
from prunepath.statistics.residual_adds import ResidualAdds
from prunepath.statistics.sums import Statistics
from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen
from tests.conformance.families import dense, random_tokens
from tests.depth.problems import INFLUENCE, context, measured
from tests.search.problems import context_of
from tests.zoo.build import text
from tests.zoo.models import CASES

ADDITIVE = ("gpt2", "falcon", "phi3", "t5", "vit", "swin", "clip", "whisper", "qwen2-moe")


def mean_cosine(before: Tensor, after: Tensor) -> float:
    cosine = functional.cosine_similarity(before.double(), after.double(), dim=-1)
    return float(1 - cosine.mean())


def mean_angle(before: Tensor, after: Tensor) -> float:
    cosine = functional.cosine_similarity(before.double(), after.double(), dim=-1)
    return float(cosine.clamp(-1, 1).arccos().mean() / torch.pi)


def heard(
    model: Any, names: list[str], batch: dict[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """First tensors in and out of modules."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Any:
        def keep(_: Any, args: Any, kwargs: Any, output: Any) -> None:
            first = args[0] if args else next(iter(kwargs.values()))
            found[name] = (first, output[0] if isinstance(output, tuple) else output)

        return keep

    handles = [
        model.get_submodule(name).register_forward_hook(hook(name), with_kwargs=True)
        for name in names
    ]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("name", CASES)
def test_every_layer_and_sub_layer_of_every_family_is_measured(name: str) -> None:
    case = CASES[name]
    model = case.build()
    structure = discover(model, probe=lambda length: model(**case.inputs(1, length)))
    sums = measured(case, case.inputs(2, 10))
    layers = {place.layer_path for place in structure.places}
    inside = {group.place for group in structure.groups if group.is_sublayer}
    assert set(sums.influence) == layers | inside
    assert set(sums.blocks) == {place.stack for place in structure.places}
    for value in sums.influence.values():
        assert torch.isfinite(value).all()
        assert value[2] > 0
        assert (value[:2] > 0).all()


def test_a_layer_is_compared_with_what_enters_it() -> None:
    model, ids = dense("llama-untied"), random_tokens(3, 20)
    sums = context_of(model, ids).statistics
    layers = [f"model.layers.{index}" for index in range(3)]
    states = heard(model, layers, {"input_ids": ids})
    for layer in layers:
        before, after = states[layer]
        cosine, angle = (mean_distances(sums.influence[layer], d) for d in ("cosine", "angular"))
        assert float(cosine) == pytest.approx(mean_cosine(before, after), rel=1e-5)
        assert float(angle) == pytest.approx(mean_angle(before, after), rel=1e-5)
    blocks = mean_distances(sums.blocks["model.layers"], "angular")
    for first in range(3):
        for last in range(3):
            if last < first:
                assert blocks[first, last].isnan()
                continue
            expected = mean_angle(states[layers[first]][0], states[layers[last]][1])
            assert float(blocks[first, last]) == pytest.approx(expected, rel=1e-5)


def test_a_sub_layer_is_compared_before_and_behind_its_residual_add() -> None:
    model, ids = dense("llama-untied"), random_tokens(3, 20)
    sums = context_of(model, ids).statistics
    names = [
        name
        for index in range(3)
        for name in (f"model.layers.{index}", f"model.layers.{index}.self_attn")
    ]
    states = heard(model, names, {"input_ids": ids})
    for index in range(3):
        layer = f"model.layers.{index}"
        entering, leaving = states[layer]
        between = entering + states[f"{layer}.self_attn"][1]
        for place, pair in (("self_attn", (entering, between)), ("mlp", (between, leaving))):
            found = mean_distances(sums.influence[f"{layer}.{place}"], "cosine")
            assert float(found) == pytest.approx(mean_cosine(*pair), rel=1e-5)


def test_where_norms_come_last_the_sum_is_taken_before_its_norm() -> None:
    case = CASES["bert-classifier"]
    model, batch = case.build(), text(3, 9)
    mask = batch["attention_mask"].bool()
    assert not mask.all(), "some of it is padding"
    sums = measured(case, batch)
    prefix = next(name for name in sums.influence if name.endswith("layer.0"))
    names = ["attention.output.dense", "attention.output.LayerNorm", "output.dense", "intermediate"]
    states = heard(model, [prefix, *(f"{prefix}.{name}" for name in names)], batch)
    entering, leaving = states[prefix]
    between = states[f"{prefix}.intermediate"][0]
    summed = entering + states[f"{prefix}.attention.output.dense"][1]
    torch.testing.assert_close(states[f"{prefix}.attention.output.LayerNorm"][0], summed)
    said = states[f"{prefix}.output.dense"][1]
    for key, before, after in (
        (prefix, entering, leaving),
        (f"{prefix}.attention", entering, summed),
        (f"{prefix}#ffn", between, between + said),
    ):
        assert int(sums.influence[key][2]) == int(mask.sum()), "padding does not count"
        found = float(mean_distances(sums.influence[key], "cosine"))
        assert found == pytest.approx(mean_cosine(before[mask], after[mask]), rel=1e-5)


@pytest.mark.parametrize("name", ADDITIVE)
def test_what_sub_layers_add_makes_a_layer_s_output(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    model, batch = case.build(), case.inputs(2, 10)
    structure = discover(model, probe=lambda length: model(**case.inputs(1, length)))
    added: dict[str, list[tuple[Tensor, Tensor]]] = {}
    plain = ResidualAdds.__init__

    def watched(self: ResidualAdds, take: Any) -> None:
        def tell(place: str, stream: Tensor, said: Tensor) -> None:
            layer = structure.places_by_path[place].layer_path
            added.setdefault(layer, []).append((stream.clone(), said.clone()))
            take(place, stream, said)

        plain(self, tell)

    monkeypatch.setattr(ResidualAdds, "__init__", watched)
    sums = Statistics()
    layers = list({place.layer_path for place in structure.places})
    with torch.no_grad(), frozen(model), recording(model, structure, INFLUENCE, sums) as recorder:
        recorder.begin(Samples(inputs=batch))
        states = heard(model, layers, batch)
    for layer in layers:
        entering, leaving = states[layer]
        streams = added[layer]
        torch.testing.assert_close(streams[0][0].reshape(entering.shape), entering)
        if name == "qwen2-moe":  # routed experts add, too, and are no unit
            continue
        total = entering + sum(said.reshape(entering.shape) for _, said in streams)
        torch.testing.assert_close(total, leaving, rtol=1e-4, atol=1e-4)


def test_an_expert_that_all_tokens_share_is_not_compared_with_other_experts() -> None:
    case = CASES["qwen2-moe"]
    model, batch = case.build(), case.inputs(2, 10)
    sums = measured(case, batch)
    key = next(key for key in sums.influence if key.endswith("shared_expert"))
    block, layer = key.removesuffix(".shared_expert"), key.removesuffix(".mlp.shared_expert")
    attention, gate = f"{layer}.self_attn", f"{block}.shared_expert_gate"
    states = heard(model, [layer, attention, gate, key], batch)
    stream = (states[layer][0] + states[attention][1]).flatten(0, 1)
    share = (torch.sigmoid(states[gate][1]) * states[key][1]).reshape(stream.shape)
    real = batch["attention_mask"].bool().flatten()
    expected = mean_cosine(stream[real], (stream + share)[real])
    found = mean_distances(sums.influence[key], "cosine")
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_backward_pass_changes_nothing() -> None:
    ids = random_tokens(3, 20)
    with_gradients = context_of(dense("llama-untied"), ids).statistics  # layers run twice
    sums = Statistics()
    model = dense("llama-untied")
    recorded = recording(model, discover(model), INFLUENCE, sums)
    with torch.no_grad(), frozen(model), recorded as recorder:
        for batch in Samples(inputs={"input_ids": ids}).batches(1):
            recorder.begin(batch)
            model(**batch.inputs)
    for table in ("influence", "blocks"):
        for key, value in getattr(sums, table).items():
            torch.testing.assert_close(getattr(with_gradients, table)[key], value)


def test_an_encoder_and_a_decoder_are_apart() -> None:
    found = context("t5")
    assert set(found.statistics.blocks) == {"encoder.block", "decoder.block"}
    masks = [found.samples.inputs[f"{side}attention_mask"] for side in ("", "decoder_")]
    for side, mask in zip(("encoder", "decoder"), masks, strict=True):
        assert int(found.statistics.influence[f"{side}.block.0"][2]) == int(mask.sum())


def test_nothing_is_measured_that_nobody_wants() -> None:
    case = CASES["vit"]
    for flags in ({}, {"influence": True}, {"blocks": True}):
        wanted = Wanted(gradients=False, moments=False, output_gradients=False, **flags)
        sums = measured(case, case.inputs(2, 0), wanted)
        tables = {table for table, _, _ in sums.items()}
        assert tables == set(flags)


def test_the_model_is_as_before() -> None:
    model = CASES["vit"].build()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    sums = Statistics()
    structure = discover(model, probe=lambda length: model(**CASES["vit"].inputs(1, length)))
    with recording(model, structure, INFLUENCE, sums):
        pass
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


@pytest.mark.parametrize("angle", [1e-4, 0.3, torch.pi / 2, 3.0])
def test_small_turns_are_told_apart(angle: float) -> None:
    one = torch.tensor([[3.0, 0.0]])
    two = torch.tensor([[5 * torch.tensor(angle).cos(), 5 * torch.tensor(angle).sin()]])
    cosine, found, count = turn_of(one, two).tolist()
    assert count == 1
    assert found == pytest.approx(angle / torch.pi, rel=1e-4)
    assert cosine == pytest.approx(2 * float(torch.tensor(angle / 2).sin()) ** 2, rel=1e-3)


def test_a_vector_of_zeros_is_half_way() -> None:
    zeros, ones = torch.zeros(1, 4), torch.ones(1, 4)
    assert turn_of(zeros, ones).tolist() == [0.5, 0.5, 1.0]
    assert turn_of(zeros, zeros).tolist() == [0.0, 0.0, 1.0]
