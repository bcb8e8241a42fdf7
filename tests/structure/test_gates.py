"""Gates: the only thing that requires gradients, and their gradients are right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen, gated, new_gates
from tests.conformance.families import FAMILIES, random_tokens, structure_of

KINDS = ["ffn_channel", "qk_coordinate", "vo_coordinate", "query_head", "kv_group"]
every_family = pytest.mark.parametrize("family", FAMILIES)


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Cross entropy in the model's own type; transformers' would be in float32."""
    logits: Tensor = model(ids).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@every_family
def test_only_gates_get_gradients(family: str) -> None:
    model, structure = FAMILIES[family](), structure_of(family)
    gates = new_gates(structure)
    with frozen(model), gated(model, structure, gates):
        assert not any(p.requires_grad for p in model.parameters())
        loss_of(model, random_tokens(2, 12)).backward()
    assert all(p.grad is None for p in model.parameters())
    for name, gate in gates.items():
        assert gate.grad is not None, name
        assert gate.grad.abs().max() > 0, name


def test_no_weight_gradient_is_ever_allocated() -> None:
    """Not even for a moment: no gradient node of a parameter is in the graph."""
    family = "llama-gqa-tied-biases"
    model, structure = FAMILIES[family](), structure_of(family)
    gates = new_gates(structure)
    with frozen(model), gated(model, structure, gates):
        loss = loss_of(model, random_tokens(1, 8))
    leaves, queue, seen = set(), [loss.grad_fn], set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        queue.extend(parent for parent, _ in node.next_functions)
    assert leaves == {id(gate) for gate in gates.values()}


@pytest.mark.parametrize("fails", [False, True], ids=["leaves", "raises"])
def test_frozen_restores(fails: bool) -> None:
    model = FAMILIES["llama-untied"]()
    model.train()
    model.model.norm.eval()
    model.lm_head.weight.requires_grad_(False)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    modes = {name: m.training for name, m in model.named_modules()}
    try:
        with frozen(model):
            assert not any(m.training for m in model.modules())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert {name: m.training for name, m in model.named_modules()} == modes


def test_hooks_go_away_on_exceptions() -> None:
    family = "llama-untied"
    model, structure = FAMILIES[family](), structure_of(family)
    gates = {name: torch.zeros_like(gate) for name, gate in new_gates(structure).items()}
    ids = random_tokens(1, 8)
    with torch.no_grad():
        before = model(ids).logits
        with pytest.raises(KeyboardInterrupt), gated(model, structure, gates):
            raise KeyboardInterrupt
        assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize("kind", KINDS)
@every_family
def test_gradients_match_finite_differences(family: str, kind: str) -> None:
    model = _in_float64(FAMILIES[family])
    structure = discover(model)
    ids = random_tokens(2, 12)
    generator = torch.Generator().manual_seed(1)
    gates = {
        name: (0.5 + torch.rand(gate.shape, generator=generator, dtype=torch.float64))
        for name, gate in new_gates(structure, dtype=torch.float64).items()
    }
    names = [group.name for group in structure.of_kind(kind)]
    direction = {
        n: torch.randn(gates[n].shape, generator=generator, dtype=torch.float64) for n in names
    }

    def loss_at(step: float) -> Tensor:
        moved = {n: gate + step * direction[n] if n in names else gate for n, gate in gates.items()}
        with gated(model, structure, moved):
            return loss_of(model, ids)

    with frozen(model):
        for name in names:
            gates[name].requires_grad_(True)
        loss_at(0.0).backward()
        slope = sum(float((gates[n].grad * direction[n]).sum()) for n in names)  # type: ignore[operator]
        with torch.no_grad():
            step = 1e-4
            measured = float(loss_at(step) - loss_at(-step)) / (2 * step)
    assert abs(slope) > 1e-4
    assert slope == pytest.approx(measured, rel=1e-5)


def _in_float64(factory: Callable[[], Any]) -> Any:
    """The model in float64, its norms too, which transformers computes in float32."""
    model = factory().double()

    def norm(module: Any, args: tuple[Tensor, ...], _: Tensor) -> Tensor:
        (x,) = args
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
        return module.weight * x * scale

    for module in model.modules():
        if hasattr(module, "variance_epsilon"):
            module.register_forward_hook(norm)
    return model
