"""Dense answers are thinned evenly, and the distance of any model is a mean over what is left."""

from __future__ import annotations

import pytest
import torch

from prunepath.statistics.dense_answers import DenseAnswers
from prunepath.surgery.cut import cut
from tests.conformance.selections import select
from tests.rules.models import MODELS, ready

MANY = 10**9


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_mean_over_batches(name: str) -> None:
    tiny = ready(name)
    smaller = cut(tiny.model, tiny.structure, select(tiny.structure, "all kinds", "ratio 0.3"))
    answers = DenseAnswers(tiny.model, tiny.task, tiny.samples, batch=1)
    single = []
    for batch in tiny.samples.batches(1):
        with torch.no_grad():
            own, dense = (tiny.task.output(m, batch.to("cpu")) for m in (smaller, tiny.model))
        single.append(float(tiny.task.distance(own, dense, batch)))
    everywhere = answers.distance(smaller, answers.first())
    assert everywhere == pytest.approx(sum(single) / len(single), rel=1e-5)
    answers.thin_(samples=2, num_bytes=MANY)  # of four: the first and the third
    assert answers.samples == len(answers.first()) == 2
    assert answers.distance(smaller, answers.first()) == pytest.approx(
        (single[0] + single[2]) / 2, rel=1e-5
    )
    answers.thin_(samples=MANY, num_bytes=1)
    assert answers.distance(smaller, answers.first()) == pytest.approx(single[0], rel=1e-5)


def test_what_is_few_enough_stays() -> None:
    tiny = ready("encoder")
    answers = DenseAnswers(tiny.model, tiny.task, tiny.samples, batch=3)
    answers.thin_(samples=4, num_bytes=MANY)
    assert [len(each) for each in answers.first()] == [3, 1]
    assert answers.passes == 2, "the answer that told the size is not asked for again"
