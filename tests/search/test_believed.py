"""Interactions of units count as far as the samples vouch for them."""

from __future__ import annotations

import torch

from prunepath.methods.believed import believed_block, believed_diagonal
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


def _moments(gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    sizes = gradients.abs()
    return sizes.square().mean(0), sizes.mean(0), sizes.pow(4).mean(0), len(gradients)


def _heavy(terms: int, units: int, scale: torch.Tensor, seed: int) -> torch.Tensor:
    """Gradients of one shape with heavy tails: a few terms are loud for every unit alike."""
    loud = _drawn(terms, 1, seed + 100).mul(1.5).exp()
    return _drawn(terms, units, seed) * loud * scale


def test_a_unit_is_moved_by_its_own_error_and_the_spread_of_its_group() -> None:
    squares, sizes, fourths, terms = _moments(_heavy(60, 5, torch.ones(5), 0))
    own = squares.log() - 2 * sizes.log()
    error = (fourths / squares.square() - 1) / terms
    spread = max(0.0, float(own.var() - error.mean()))
    expected = squares.log() - error / (error + spread) * (own - own.mean())
    torch.testing.assert_close(believed_diagonal(squares, sizes, fourths, terms).log(), expected)


def test_few_heavy_terms_are_not_believed() -> None:
    scale = torch.linspace(0.2, 2, 64, dtype=torch.float64)
    raw, believed = [], []
    for seed in range(5):
        found = _moments(_heavy(80, 64, scale, seed))
        for values, errors in ((found[0], raw), (believed_diagonal(*found), believed)):
            away = values.log() - 2 * scale.log()  # but for a factor all have in common
            errors.append(float((away - away.mean()).square().mean()))
    assert sum(believed) < 0.5 * sum(raw)


def test_true_differences_of_shape_stay_where_terms_are_many() -> None:
    gradients = _drawn(20000, 8)
    seldom = torch.rand(20000, 4, generator=torch.Generator().manual_seed(1)) < 0.1
    gradients[:, 4:] *= seldom * 10**0.5
    squares, sizes, fourths, terms = _moments(gradients)  # of one size, half of them seldom
    assert float((sizes[4:].mean() / sizes[:4].mean()).square()) < 0.2
    found = believed_diagonal(squares, sizes, fourths, terms)
    torch.testing.assert_close(found, squares, rtol=0.05, atol=0)


def test_silent_units_and_small_groups_keep_what_was_measured() -> None:
    gradients = _heavy(40, 6, torch.ones(6), 0)
    gradients[:, 2] = 0
    found = _moments(gradients)
    assert float(believed_diagonal(*found)[2]) == 0
    few = _moments(gradients[:, :2])
    assert torch.equal(believed_diagonal(*few), few[0])
