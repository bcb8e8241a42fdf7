"""Interactions of units count as far as the samples vouch for them."""

from __future__ import annotations

import torch

from prunepath.methods.believed import believed_block
from prunepath.methods.elimination import eliminate


def _sums(gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    squares, count = gradients.square(), len(gradients)
    return gradients.T @ gradients / count, squares.T @ squares / count, count


def _drawn(terms: int, units: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(terms, units, generator=generator, dtype=torch.float64)


def test_an_entry_loses_its_own_standard_errors() -> None:
    gradients = _drawn(50, 4)
    gradients[:, 1] += 2 * gradients[:, 0]
    block, fourths, terms = _sums(gradients)
    found = believed_block(block, fourths, terms, 1.5)
    products = gradients[:, 0] * gradients[:, 1]
    error = products.std(correction=0) / terms**0.5
    torch.testing.assert_close(found[0, 1], products.mean() - 1.5 * error)
    torch.testing.assert_close(found, found.T)
    assert torch.equal(found.diagonal(), block.diagonal())
    assert torch.equal(believed_block(block, fourths, terms, 0), block)


def test_chance_is_not_believed_and_a_true_interaction_is() -> None:
    gradients = _drawn(200, 64)
    gradients[:, 1] = -gradients[:, 0] + 0.1 * gradients[:, 1]
    found = believed_block(*_sums(gradients), 2.0)
    off = found - found.diagonal().diag()
    assert (off == 0).double().mean() > 0.9
    assert found[0, 1] < -0.7


def test_units_removed_by_chance_cost_more_on_other_samples() -> None:
    """What the removal of a half costs on samples that no block has seen: of few samples the
    block as it is chooses worse than what is left of it."""
    held = {0.0: 0.0, 2.0: 0.0}
    for seed in range(4):
        gradients = _drawn(120, 96, seed) * torch.linspace(0.2, 2, 96, dtype=torch.float64)
        seen, other = gradients[:80], _drawn(4000, 96, seed + 9) * torch.linspace(0.2, 2, 96)
        for errors in held:
            order = torch.argsort(eliminate(believed_block(*_sums(seen), errors), 1))
            held[errors] += float(other[:, order[:48]].sum(1).square().mean())
    assert held[2.0] < 0.8 * held[0.0]
