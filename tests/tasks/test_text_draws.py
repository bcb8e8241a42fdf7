"""A draw's mean outer product is the Gauss-Newton matrix of the distance it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.errors import NumericsError, RequestError
from prunepath.tasks.draws import fisher_probe, sign_probe, similarity_probe
from prunepath.tasks.masked_lm import MASKED_LM
from prunepath.tasks.sentence_embedding import SENTENCE_EMBEDDING
from prunepath.tasks.seq2seq_lm import SEQ2SEQ_LM
from prunepath.tasks.speech import SPEECH
from prunepath.tasks.task import Task
from prunepath.tasks.text_classification import TEXT_CLASSIFICATION

NUM_DRAWS = 6000


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def text(rows: int, labels: Tensor | None = None, **inputs: Tensor) -> Samples:
    ids = torch.ones(rows, 3, dtype=torch.int64)
    return Samples(
        inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids), **inputs}, labels=labels
    )


HIDDEN = torch.tensor([[-100, 2, 1], [0, -100, -100]])
WRITTEN = torch.tensor([[1, 1, 0], [1, 0, 0]])

# task, output, samples, rows the distance is a mean over
CASES: dict[str, tuple[Task, Tensor, Samples, int]] = {
    "classes": (TEXT_CLASSIFICATION, random(2, 3), text(2), 2),
    "number": (TEXT_CLASSIFICATION, random(3, 1), text(3), 3),
    "embedding": (
        SENTENCE_EMBEDDING,
        torch.nn.functional.normalize(random(4, 3), dim=-1),
        text(4),
        4,
    ),
    "hidden tokens": (MASKED_LM, random(2, 3, 4), text(2, HIDDEN), 3),
    "written tokens": (SEQ2SEQ_LM, random(2, 3, 4), text(2, decoder_attention_mask=WRITTEN), 3),
    "heard tokens": (SPEECH, random(2, 3, 4), text(2, decoder_attention_mask=WRITTEN), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_mean_outer_product_is_the_curvature_of_the_distance(name: str) -> None:
    task, output, samples, rows = CASES[name]

    def total(answer: Tensor) -> Tensor:
        return rows * task.distance(answer.view(output.shape), output, samples)

    curvature = torch.autograd.functional.hessian(total, output.flatten())  # type: ignore[no-untyped-call]
    source = generator()
    draws = torch.stack(
        [task.draw(output.clone(), samples, "kl", source).flatten() for _ in range(NUM_DRAWS)]
    )
    found = draws.T @ draws / NUM_DRAWS
    assert (found - curvature).abs().max() < 0.07 * curvature.abs().max()


@pytest.mark.parametrize("name", CASES)
def test_distance_is_zero_at_the_dense_answer_and_positive_elsewhere(name: str) -> None:
    task, output, samples, _ = CASES[name]
    assert float(task.distance(output, output, samples)) == pytest.approx(0, abs=1e-6)
    assert float(task.distance(output.flip(-1) + 1, output, samples)) > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_same_seed_same_draw(name: str) -> None:
    task, output, samples, _ = CASES[name]
    first, again, *others = (
        task.draw(output.clone(), samples, "kl", generator(seed)) for seed in (3, 3, 4, 5, 6, 7)
    )
    assert torch.equal(first, again)
    assert first.shape == output.shape
    assert not all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("name", ["hidden tokens", "written tokens", "heard tokens"])
def test_rows_that_do_not_count_have_no_gradient(name: str) -> None:
    task, output, samples, rows = CASES[name]
    drawn = task.draw(output.clone(), samples, "kl", generator()).abs().sum(-1)
    assert int((drawn > 0).sum()) == rows


@pytest.mark.parametrize("name", CASES)
def test_output_that_is_not_finite_is_refused(name: str) -> None:
    task, output, samples, _ = CASES[name]
    broken = output.clone()
    broken.view(-1)[1 if name != "hidden tokens" else 5] = torch.nan
    with pytest.raises(NumericsError, match="check its weights"):
        task.draw(broken, samples, "kl", generator())


@pytest.mark.parametrize("name", CASES)
def test_unknown_objective_is_refused(name: str) -> None:
    task, output, samples, _ = CASES[name]
    with pytest.raises(RequestError, match="'kl'"):
        task.draw(output.clone(), samples, "best", generator())


LABELLED: dict[str, tuple[Task, Tensor, Samples, int]] = {
    "classes": (TEXT_CLASSIFICATION, random(2, 3), text(2, torch.tensor([2, 0])), 2),
    "number": (TEXT_CLASSIFICATION, random(3, 1), text(3, torch.tensor([1.0, 0.5, 2.0])), 3),
    "hidden tokens": CASES["hidden tokens"],
    "written tokens": (
        SEQ2SEQ_LM,
        random(2, 3, 4),
        text(2, torch.tensor([[1, 2, -100], [3, -100, -100]]), decoder_attention_mask=WRITTEN),
        3,
    ),
}


@pytest.mark.parametrize("name", LABELLED)
def test_task_objective_is_the_gradient_of_the_loss(name: str) -> None:
    task, output, samples, rows = LABELLED[name]
    leaf = output.clone().requires_grad_()
    (rows * task.loss(leaf, samples)).backward()  # type: ignore[no-untyped-call]
    drawn = task.draw(output.clone(), samples, "task", generator())
    assert leaf.grad is not None
    torch.testing.assert_close(drawn, leaf.grad)


@pytest.mark.parametrize("name", ["classes", "written tokens"])
def test_task_objective_without_labels_is_refused(name: str) -> None:
    task, output, samples, _ = CASES[name]
    with pytest.raises(RequestError, match="read without"):
        task.draw(output.clone(), samples, "task", generator())


def test_embeddings_have_no_task_objective() -> None:
    task, output, samples, _ = CASES["embedding"]
    with pytest.raises(RequestError, match="sentence-embedding has no objective 'task'"):
        task.draw(output, samples, "task", generator())


def test_similarity_probe_is_the_gradient_of_signed_similarities() -> None:
    embeddings = random(5, 3).requires_grad_()
    bits = torch.randint(0, 2, (5, 5), generator=generator(7), dtype=torch.int8)
    signs = (bits * 2 - 1).float().triu(1)
    scale = (2 / 4) ** 0.5
    (scale * (signs * (embeddings @ embeddings.T)).sum()).backward()
    assert embeddings.grad is not None
    torch.testing.assert_close(similarity_probe(embeddings, generator(7)), embeddings.grad)


def test_one_sentence_has_no_similarities() -> None:
    assert float(similarity_probe(random(1, 3), generator()).abs().sum()) == 0


@pytest.mark.parametrize("probe", [fisher_probe, sign_probe])
def test_probe_keeps_type_and_passes_over_rows(probe: Callable[..., Any]) -> None:
    values = random(3, 4).to(torch.bfloat16)
    values[1] = torch.nan
    keep = torch.tensor([True, False, True])
    drawn = probe(values, generator(), keep)
    assert drawn.dtype == torch.bfloat16
    assert (drawn.abs().sum(-1) > 0).tolist() == [True, False, True]
    with pytest.raises(NumericsError, match="not finite in 1 of 3 rows"):
        probe(values, generator())
