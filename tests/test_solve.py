"""Cholesky factors of moments that rounding has left indefinite."""

from __future__ import annotations

import pytest
import torch

from prunepath.errors import NumericsError
from prunepath.statistics.solve import factor


def test_a_definite_matrix_is_not_touched() -> None:
    root = torch.tril(torch.rand(5, 5, dtype=torch.float64) + torch.eye(5))
    assert torch.allclose(factor(root @ root.T, 1e3), root)


def test_a_slightly_indefinite_matrix_gets_more_ridge() -> None:
    system = torch.diag(torch.tensor([1e6, 1.0, -1e-3], dtype=torch.float64))
    lower = factor(system, 1e-3)
    assert torch.isfinite(lower).all()
    assert torch.allclose(lower @ lower.T, system, atol=0.1)


def test_not_a_number_is_named() -> None:
    with pytest.raises(NumericsError, match="more windows"):
        factor(torch.full((2, 2), torch.nan, dtype=torch.float64), 1e-3)
