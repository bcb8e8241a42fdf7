"""Every family x every unit kind x every selection: counted costs are those of the cut model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from prunepath.structure.cost import Cost, cost_of, unit_cost
from prunepath.structure.discover import discover
from prunepath.structure.selection import everything
from prunepath.surgery.cut import cut
from tests.conformance.cases import TOKENS, every_case, every_family, smaller
from tests.conformance.families import FAMILIES, dense, random_tokens, structure_of
from tests.conformance.selections import select


def counted(family: str, kind: str, name: str) -> Cost:
    structure = structure_of(family)
    return cost_of(structure, select(structure, kind, name), TOKENS)


@every_case
def test_params_and_bytes_are_those_of_the_saved_tensors(
    family: str, kind: str, name: str, tmp_path: Path
) -> None:
    smaller(family, kind, name).save_pretrained(tmp_path)
    params = weight_bytes = 0
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        for key in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(key)
            if tensor.is_floating_point():  # the indices of kept rotary pairs are no parameters
                params += tensor.numel()
                weight_bytes += tensor.nbytes
    cost = counted(family, kind, name)
    assert (cost.params, cost.weight_bytes) == (params, weight_bytes)


@every_case
def test_kv_bytes_are_those_of_the_cache(family: str, kind: str, name: str) -> None:
    with torch.no_grad():
        cache = smaller(family, kind, name)(random_tokens(2, TOKENS), use_cache=True)
    measured = sum(
        tensor.nbytes / (tensor.shape[0] * tensor.shape[-2])
        for layer in cache.past_key_values.layers
        for tensor in (layer.keys, layer.values)
    )
    assert counted(family, kind, name).kv_bytes_per_token == measured


@every_case
def test_macs_are_those_of_torch_s_counter(family: str, kind: str, name: str) -> None:
    # Eager attention: the counter does not see inside the fused kernel on the CPU.
    model = smaller(family, kind, name, "eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(random_tokens(1, TOKENS), use_cache=False)
    measured = counter.get_total_flops() / 2
    assert counted(family, kind, name).macs == pytest.approx(measured, rel=0.01)


@every_family
def test_unit_cost_is_what_cutting_one_unit_saves(family: str) -> None:
    structure = structure_of(family)
    params = sum(p.numel() for p in dense(family).parameters())
    for group in structure.groups:
        row = torch.arange(group.num_lanes) * group.lane_width  # one unit of every lane
        one_row = everything(structure).without([(group, row.numpy())])
        left = sum(p.numel() for p in cut(dense(family), structure, one_row).parameters())
        assert unit_cost(structure, group).params * group.num_lanes == params - left, group.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_bytes_follow_the_stored_type(dtype: torch.dtype) -> None:
    family = next(iter(FAMILIES))
    model = FAMILIES[family]().to(dtype)
    structure = discover(model)
    cost = cost_of(structure, everything(structure))
    assert cost.weight_bytes == cost.params * dtype.itemsize
    full = cost_of(structure_of(family), everything(structure))
    assert cost.kv_bytes_per_token * 4 == full.kv_bytes_per_token * dtype.itemsize


def test_memory_is_weights_plus_cache() -> None:
    cost = Cost(params=10, macs=7, weight_bytes=40, kv_bytes_per_token=3)
    assert cost.memory_bytes(5) == 55
    assert cost + cost - cost == cost
