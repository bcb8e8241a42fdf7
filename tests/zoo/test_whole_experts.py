"""Whole experts as units: what stays true of the router, the files, the costs and the budgets.

That gate and cut agree, what is counted and what comes back is tested on the `choosy` models of the
zoo, as for every other kind (test_zoo.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import prunepath
from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget
from prunepath.allocation.steps import StepOptions, build_steps, default_kinds
from prunepath.checkpoint.save import is_stock, save_model
from prunepath.data.samples import Samples
from prunepath.errors import BudgetError, RequestError
from prunepath.evaluation.latency import latency_table
from prunepath.methods import method as registry
from prunepath.methods.method import total_order
from prunepath.methods.scope import scored_part
from prunepath.statistics.collect import Wanted, recording
from prunepath.statistics.sums import Statistics
from prunepath.structure.cost import cost_of, unit_cost
from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen, gated, gates_of, new_gates
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import Structure
from prunepath.surgery.cut import cut
from prunepath.surgery.experts import Experts, fuse_experts_, unfuse_experts_
from prunepath.surgery.refit import cut_consumers
from prunepath.tasks.causal_lm import CAUSAL_LM
from tests.conformance.methods import DEPTH, METHODS
from tests.conformance.paths import random_path
from tests.search.problems import context_of
from tests.zoo.build import furthest, text
from tests.zoo.models.experts import OPTIONS, apart, stock

TOKENS = 12
CHOOSY = tuple(name for name in OPTIONS if "choosy" in name)
every_model = pytest.mark.parametrize("name", CHOOSY)
ONLY = StepOptions(kinds=("expert",))


def model_of(name: str, **changes: Any) -> Any:
    return apart(**{**OPTIONS[name], **changes})


def read(model: Any) -> Structure:
    return discover(model, probe=lambda length: model(**text(1, length)))


def without(structure: Structure, *units: tuple[int, int]) -> Selection:
    """Everything but some experts: (layer in order, expert)."""
    groups = structure.of_kind("expert")
    return everything(structure).without([(groups[at], np.array([unit])) for at, unit in units])


def answer(model: Any, rows: int = 3) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**text(rows, TOKENS, mask=False)).logits
    return found


@every_model
def test_uniform_loads_in_stock_transformers(name: str, tmp_path: Path) -> None:
    import transformers

    model = model_of(name)
    structure = read(model)
    path = random_path(structure)
    options = StepOptions(layout="uniform", kinds=("expert",))
    smallest = build_steps(path, options)
    assert len(smallest) == 2  # four experts, two per token: every layer can lose two
    experts = sum(len(step.removed) for step in smallest)
    saved = experts * unit_cost(structure, structure.of_kind("expert")[0]).params
    selection = allocate(path, Budget.from_ratio(saved / structure.block_params), options).selection
    smaller: Any = cut(model, structure, selection)
    expected = answer(smaller)
    assert is_stock(smaller)
    assert smaller.config.num_experts == 2
    save_model(smaller, None, tmp_path)
    assert not any(isinstance(module, Experts) for module in smaller.modules())
    loaded = getattr(transformers, OPTIONS[name]["architecture"]).from_pretrained(tmp_path)
    assert loaded.config.num_experts == 2
    assert float((answer(loaded.eval()) - expected).abs().max()) < 1e-5


@every_model
def test_the_balancing_loss_counts_the_experts_that_are_left(name: str) -> None:
    model = model_of(name)
    structure = read(model)
    layers = range(len(structure.of_kind("expert")))
    smaller: Any = cut(model, structure, without(structure, *((layer, 1) for layer in layers)))
    fuse_experts_(smaller)
    batch = text(2, TOKENS, mask=False)
    found = smaller(**batch, labels=batch["input_ids"], output_router_logits=True)
    assert torch.isfinite(found.aux_loss)
    assert all(logits.shape[-1] == 3 for logits in found.router_logits)


def test_layers_may_keep_different_experts(tmp_path: Path) -> None:
    model = model_of("mixtral-choosy")
    structure = read(model)
    selection = without(structure, (0, 1), (0, 3), (1, 0))
    smaller: Any = cut(model, structure, selection)
    places = smaller.config.prunepath["places"]
    assert places["model.layers.0.mlp"]["members"] == ["experts.0", "experts.2"]
    assert places["model.layers.1.mlp"]["members"] == ["experts.1", "experts.2", "experts.3"]
    save_model(smaller, None, tmp_path)
    loaded: Any = prunepath.load(tmp_path)
    assert torch.equal(answer(loaded), answer(smaller))
    batch = text(1, TOKENS, mask=False)
    made = loaded.generate(**batch, max_new_tokens=4, do_sample=False)
    assert torch.equal(made, smaller.generate(**batch, max_new_tokens=4, use_cache=False))
    import transformers

    body = transformers.AutoModel.from_pretrained(tmp_path)  # another head, other paths
    with torch.no_grad():
        difference = furthest(body(**batch), smaller.model(**batch))
    assert difference < 1e-6


def test_an_expert_that_was_narrowed_can_leave_later(tmp_path: Path) -> None:
    model = model_of("mixtral-choosy")
    structure = read(model)
    keep = dict(everything(structure).keep)
    keep["layers.0.experts.1.expert_channel"] = np.arange(24) < 8
    narrowed: Any = cut(model, structure, Selection(keep))
    again = read(narrowed)
    smaller: Any = cut(narrowed, again, without(again, (0, 1)))
    assert "model.layers.0.mlp.experts.1" in narrowed.config.prunepath["places"]
    assert "model.layers.0.mlp.experts.1" not in smaller.config.prunepath["places"]
    save_model(smaller, None, tmp_path)
    assert torch.equal(answer(prunepath.load(tmp_path)), answer(smaller))
    final = read(smaller)
    assert final.groups_by_name["layers.0.expert"].members == tuple(
        f"model.layers.0.mlp.experts.{number}" for number in (0, 2, 3)
    )


@every_model
def test_a_closed_gate_is_never_picked_and_an_open_one_changes_nothing(name: str) -> None:
    model = model_of(name)
    structure = read(model)
    group = structure.of_kind("expert")[0]
    router = model.get_submodule(group.gate.module)
    hidden = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = router(hidden)
        with gated(model, structure, new_gates(structure)):
            assert all(torch.equal(*pair) for pair in zip(router(hidden), plain, strict=True))
        with gated(model, structure, gates_of(without(structure, (0, 2)), structure)):
            _, shares, picked = router(hidden)
    assert (plain[2] == 2).any()
    assert not (picked == 2).any()
    assert torch.isfinite(shares).all()
    assert "forward" not in vars(router)


@every_model
def test_the_gradient_in_the_gates_is_right(name: str) -> None:
    model = model_of(name).double()
    structure = read(model)
    ids = text(2, TOKENS, mask=False)["input_ids"]

    def loss(gates: dict[str, Tensor]) -> Tensor:
        with gated(model, structure, gates):
            logits = model(ids).logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    generator = torch.Generator().manual_seed(1)
    gates = {
        group.name: 0.9 + 0.2 * torch.rand(group.num_units, generator=generator)
        for group in structure.of_kind("expert")
    }
    with frozen(model):
        opened = {key: gate.clone().requires_grad_() for key, gate in gates.items()}
        loss(opened).backward()
        step = 2e-4  # small: the loss jumps where a token changes its experts
        with torch.no_grad():
            for key, gate in gates.items():
                for unit in range(len(gate)):
                    moved = [gate.clone(), gate.clone()]
                    moved[0][unit] += step
                    moved[1][unit] -= step
                    ends = [float(loss({**gates, key: value})) for value in moved]
                    found = opened[key].grad
                    assert found is not None
                    assert float(found[unit]) == pytest.approx(
                        (ends[0] - ends[1]) / (2 * step), rel=0.02, abs=2e-3
                    )
        closed = {key: (torch.arange(len(gate)) != 1).float() for key, gate in gates.items()}
        leaves = {key: gate.requires_grad_() for key, gate in closed.items()}
        loss(leaves).backward()
    assert all(gate.grad is not None and gate.grad.isfinite().all() for gate in leaves.values())


@every_model
def test_the_statistics_are_those_of_the_gates(name: str) -> None:
    """Sums of a pass without gates against the gradients of gates that are there."""
    model = model_of(name)
    structure, sums = read(model), Statistics()
    samples = Samples(inputs=text(2, TOKENS, mask=False))

    def loss(batch: Samples) -> Tensor:
        total: Tensor = model(**batch.inputs, use_cache=False).logits.square().sum()
        return total

    by_window = []
    with frozen(model):
        for window in samples.batches(1):
            gates = new_gates(structure)
            with gated(model, structure, gates):
                loss(window).backward()
            by_window.append({key: gate.grad for key, gate in gates.items()})
        with recording(model, structure, Wanted(), sums) as told:
            told.begin(samples)
            loss(samples).backward()
    for group in structure.of_kind("expert"):
        gradients = torch.stack([found[group.name] for found in by_window])
        close = {"rtol": 1e-3, "atol": 1e-2}
        torch.testing.assert_close(sums.gradient[group.name], gradients.sum(0), **close)
        windows = sums.gradient_windows[group.name]
        torch.testing.assert_close(windows, gradients.abs().sum(0), **close)
        assert (sums.fisher[group.name] > 0).all()
        block = sums.fisher_blocks[group.name]
        torch.testing.assert_close(block.diagonal(), sums.fisher[group.name])


def test_a_router_with_one_choice_and_shares_that_sum_to_one_has_no_slope() -> None:
    """What docs/method.md says of the local derivative: a single share is 1, whatever its odds."""
    model = model_of("mixtral-choosy", num_experts_per_tok=1)
    structure, sums = read(model), Statistics()
    samples = Samples(inputs=text(1, TOKENS, mask=False))
    with frozen(model), recording(model, structure, Wanted(), sums) as told:
        told.begin(samples)
        model(**samples.inputs, use_cache=False).logits.square().sum().backward()
    for group in structure.of_kind("expert"):
        assert float(sums.fisher[group.name].abs().max()) < 1e-9
        assert group.least == 1


@every_model
def test_work_goes_to_the_experts_that_are_left(name: str) -> None:
    model = model_of(name)
    structure = read(model)
    dense = cost_of(structure, everything(structure), TOKENS)
    layers = structure.of_kind("expert")
    selection = without(structure, *((at, unit) for at in range(len(layers)) for unit in (0, 3)))
    cost = cost_of(structure, selection, TOKENS)
    smaller = cut(model, structure, selection)
    assert cost.params == sum(p.numel() for p in smaller.parameters())
    assert cost.weight_bytes == dense.weight_bytes - 4 * (dense.params - cost.params)
    rows_of_routers = 2 * len(layers) * 32  # two rows of 32 in every layer, met by every token
    assert dense.macs - cost.macs == rows_of_routers * TOKENS
    for at, group in enumerate(layers):
        left = cost_of(structure, without(structure, (at, 0)), TOKENS)
        one = unit_cost(structure, group, TOKENS)
        assert (dense.params - left.params, dense.macs - left.macs) == (one.params, one.macs)


def test_experts_leave_only_when_they_are_asked_for() -> None:
    structure = read(model_of("qwen3-moe-choosy"))
    for layout in ("per-layer", "uniform"):
        kinds = default_kinds(structure, layout)
        assert "expert_channel" in kinds
        assert "expert" not in kinds
    assert {group.kind for group in structure.finest_groups} == set(
        default_kinds(structure, "per-layer")
    )


@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
def test_as_many_stay_as_a_token_is_sent_to(layout: str) -> None:
    structure = read(model_of("mixtral-choosy"))
    path = random_path(structure)
    for kinds in (("expert",), ("expert", "expert_channel")):
        options = StepOptions(layout=layout, kinds=kinds, floor=0)
        steps = build_steps(path, options)
        gone = [pair for step in steps for pair in step.removed]
        left = everything(structure).without(gone)
        left.validate(structure)
        assert [left.of(group).sum() for group in structure.of_kind("expert")] == [2, 2]
    with pytest.raises(
        BudgetError,
        match=r"ask for at least that, or cut other kinds, too, with --kinds \(a router needs 2 "
        r"units of the kind 'expert' in every layer\)",
    ):
        allocate(path, Budget.from_ratio(0.9), replace(options, kinds=("expert",)))
    with pytest.raises(BudgetError, match=r"or lower --floor \(a router needs 2 units of the kind"):
        allocate(path, Budget.parse("params", "1%"), options)


def test_fewer_than_a_token_is_sent_to_are_refused() -> None:
    model = model_of("mixtral-choosy")
    structure = read(model)
    with pytest.raises(
        RequestError,
        match=r"keeps 1 of 4 units in 'layers.1.expert', and the model's code runs with 2 or more "
        r"\(a router sends every token to as many\); keep at least 2",
    ):
        cut(model, structure, without(structure, (1, 0), (1, 1), (1, 3)))


def test_where_every_token_goes_to_all_experts_none_can_leave() -> None:
    structure = read(apart(**OPTIONS["mixtral"]))
    assert "expert" not in structure.kinds
    reasons = {left.module: left.reason for left in structure.left_alone}
    assert (
        "runs with 3 units of the kind 'expert' or more, and has no others"
        in (reasons["model.layers.0.mlp.gate"])
    )


def test_experts_in_one_tensor_are_left_alone() -> None:
    structure = read(stock(**OPTIONS["mixtral-choosy"]))
    assert not {"expert", "expert_channel"} & set(structure.kinds)
    reasons = {left.module: left.reason for left in structure.left_alone}
    assert "its 4 units leave with one module each" in reasons["model.layers.0.mlp.gate"]
    assert "once they lie apart" in reasons["model.layers.0.mlp.experts"]


def test_nested_budgets_with_experts_and_channels() -> None:
    structure = read(model_of("mixtral-choosy"))
    for seed in range(3):
        path = random_path(structure, seed)
        options = StepOptions(kinds=("expert", "expert_channel", "vo_coordinate"))
        before = everything(structure)
        for ratio in (0.1, 0.3, 0.5):
            got = allocate(path, Budget.from_ratio(ratio), options)
            assert got.reached <= got.limit
            assert got.selection.issubset(before, structure)
            smaller = cut(model_of("mixtral-choosy"), structure, got.selection)
            assert got.cost.params == sum(p.numel() for p in smaller.parameters())
            before = got.selection


@pytest.mark.parametrize("row", METHODS)
def test_every_method_orders_experts(row: str, tmp_path: Path) -> None:
    method, settings = METHODS[row]
    chosen = registry.METHODS[method]
    context = context_of(
        model_of("olmoe-choosy"), text(3, 20, mask=False)["input_ids"], state_folder=tmp_path
    )
    scorer = chosen(chosen.Config.from_dict(settings))
    experts = context.structure.of_kind("expert")
    if method == "block-influence" and scorer.config.unit == "layer":  # routed ones stay
        with pytest.raises(RequestError, match="those of layers that can leave whole"):
            scored_part(context.structure, scorer)
        return
    context = replace(context, structure=scored_part(context.structure, scorer))
    order = total_order(context.structure, scorer.rank(context))
    if not all(scorer.scores(group) for group in experts) or method in DEPTH:  # said, not scored
        left = {item.module for item in context.structure.left_alone}
        assert {f"{group.place}#expert" for group in experts} <= left
        assert not context.structure.of_kind("expert")
        return
    for group in experts:
        assert np.isfinite(order["damage"][group.name]).all()
        assert (order["damage"][group.name] > 0).all()
        assert len(np.unique(order["damage"][group.name])) == group.num_units


def test_magnitude_is_the_product_of_all_norms_of_an_expert() -> None:
    model = model_of("mixtral-choosy")
    context = context_of(model, text(1, 8, mask=False)["input_ids"])
    group = context.structure.of_kind("expert")[0]
    found = registry.METHODS["magnitude"]().rank(context).damage[group.name]
    router = model.get_submodule(group.gate.module).weight.detach().double()
    for unit, path in enumerate(group.members):
        expert = model.get_submodule(path)
        norms = [
            router[unit].norm(),
            expert.gate_up.weight.detach().double().norm(),
            expert.down.weight.detach().double().norm(),
        ]
        expected = float(torch.stack(norms).prod()) ** (2 / 3)
        assert found[unit] == pytest.approx(expected, rel=1e-6)


def test_a_refit_passes_over_experts_that_are_gone() -> None:
    model = model_of("mixtral-choosy")
    structure = read(model)
    keep = dict(without(structure, (0, 1)).keep)
    for group in structure.of_kind("expert_channel"):
        keep[group.name] = np.arange(group.num_units) < 12
    names = [consumer.name for consumer in cut_consumers(structure, Selection(keep))]
    assert "model.layers.0.mlp.experts.0.down" in names
    assert "model.layers.0.mlp.experts.1.down" not in names
    assert len(names) == 7


def test_a_latency_budget_is_refused() -> None:
    model = model_of("mixtral-choosy")
    with pytest.raises(RequestError, match="a router decides what runs, so that time depends on"):
        latency_table(model, CAUSAL_LM, 16)


def test_a_search_and_an_extraction_on_files(
    tmp_path: Path, tiny_tokenizer: Any, tiny_text: str
) -> None:
    from tests.api.fixtures import SEARCH

    dense = stock(**{**OPTIONS["qwen2-moe-choosy"], "vocab_size": 300})
    dense.save_pretrained(tmp_path / "dense")
    tiny_tokenizer.save_pretrained(tmp_path / "dense")
    (tmp_path / "text.txt").write_text(tiny_text, encoding="utf-8")
    data = tmp_path / "text.txt"
    found = prunepath.search(tmp_path / "dense", output=tmp_path / "path", data=data, **SEARCH)
    assert "expert" in found.structure.kinds
    made = prunepath.extract(
        tmp_path / "path",
        output=tmp_path / "cut",
        ratio=0.45,
        kinds=("expert", "expert_channel", "ffn_channel"),
        multiple=1,
        floor=1,
    )
    assert made.verification is not None  # read back in a fresh process
    assert made.verification.difference <= made.verification.allowed
    assert made.allocation.reached <= made.allocation.limit
    (group,) = found.structure.of_kind("expert")
    assert 2 <= made.allocation.selection.of(group).sum() < 4


def test_taken_apart_again_after_losing_experts() -> None:
    model = model_of("olmoe-choosy")
    structure = read(model)
    smaller: Any = cut(model, structure, without(structure, (0, 0), (1, 2)))
    expected = answer(smaller)
    assert fuse_experts_(smaller)
    torch.testing.assert_close(answer(smaller), expected, rtol=1e-5, atol=1e-5)
    assert unfuse_experts_(smaller)
    assert [group.num_units for group in read(smaller).of_kind("expert")] == [3, 3]
