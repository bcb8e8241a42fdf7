"""Figures against numbers worked out by hand, or by scipy where it is installed."""

from __future__ import annotations

import pytest
import torch

from prunepath.errors import DataError
from prunepath.tasks.scores import accuracy, macro_f1, pearson, spearman


def test_accuracy_and_macro_f1() -> None:
    predicted, labels = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    assert accuracy(predicted, labels) == 75
    assert macro_f1(predicted, labels) == pytest.approx(100 * (2 / 3 + 4 / 5) / 2)


def test_macro_f1_counts_only_classes_that_occur() -> None:
    assert macro_f1(torch.tensor([5, 5]), torch.tensor([5, 5])) == 100


def test_spearman_with_ties() -> None:
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4
    found = spearman(torch.tensor([0.1, 0.4, 0.4, 0.9]), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert found == pytest.approx(100 * 4.5 / (4.5 * 5) ** 0.5)


def test_as_scipy_has_it() -> None:
    stats = pytest.importorskip("scipy.stats")
    own = torch.randn(50, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    other = torch.randn(50, generator=torch.Generator().manual_seed(1)).round(decimals=1)
    assert spearman(own, other) == pytest.approx(100 * stats.spearmanr(own, other).statistic)
    assert pearson(own, other) == pytest.approx(100 * stats.pearsonr(own, other).statistic)


def test_collapsed_model_correlates_with_nothing() -> None:
    assert spearman(torch.ones(3), torch.tensor([1.0, 2.0, 3.0])) == 0


def test_labels_that_do_not_differ_are_refused() -> None:
    with pytest.raises(DataError, match="the 2 labels do not differ; give rows with different"):
        pearson(torch.tensor([1.0, 2.0]), torch.ones(2))
