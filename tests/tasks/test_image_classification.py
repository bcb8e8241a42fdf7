"""Image classification: the draw is the curvature of the distance, accuracy counts."""

from __future__ import annotations

import pytest
import torch

from prunepath.data.samples import Samples
from prunepath.errors import ModelError, NumericsError, RequestError
from prunepath.tasks.image_classification import IMAGE_CLASSIFICATION as TASK
from prunepath.tasks.task import DataRequest
from tests.tasks.pictures import SIDE, TOWER, opened, picture, seeded, vit


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_draw_has_the_curvature_of_the_distance() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5, 0.0]])
    samples = TASK.dummy(vit(), 1)
    draws = torch.stack(
        [TASK.draw(logits.clone(), samples, "kl", _generator(seed))[0] for seed in range(4000)]
    )
    curvature = torch.autograd.functional.hessian(
        lambda own: TASK.distance(own, logits, samples), logits
    )[0, :, 0]
    torch.testing.assert_close(draws.T @ draws / len(draws), curvature, atol=0.02, rtol=0)


def test_labels_give_the_gradient_of_the_loss() -> None:
    samples = Samples(inputs={"pixel_values": torch.zeros(2, 1)}, labels=torch.tensor([1, 0]))
    logits = torch.randn(2, 3, generator=_generator(), requires_grad=True)
    (wanted,) = torch.autograd.grad(2 * TASK.loss(logits, samples), logits)
    found = TASK.draw(logits.detach().clone(), samples, "task", _generator())
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        TASK.loss(logits, samples), torch.nn.functional.cross_entropy(logits, torch.tensor([1, 0]))
    )


def test_what_cannot_be_drawn_is_said() -> None:
    samples = Samples(inputs={"pixel_values": torch.zeros(1, 1)}, description="a set")
    with pytest.raises(RequestError, match="labels are needed, but a set have none"):
        TASK.draw(torch.zeros(1, 3), samples, "task", _generator())
    with pytest.raises(RequestError, match="unknown objective 'mse'"):
        TASK.draw(torch.zeros(1, 3), samples, "mse", _generator())
    with pytest.raises(NumericsError, match="not finite in 1 of 1 rows"):
        TASK.draw(torch.full((1, 3), torch.nan), samples, "kl", _generator())


def test_accuracy_counts_the_right_ones_whatever_the_batches() -> None:
    model = vit([f"class {index}" for index in range(7)])
    samples = TASK.dummy(model, 19, seed=3)
    with torch.no_grad():
        logits = TASK.output(model, samples.inputs)
    labels = logits.argmax(1)
    labels[:4] = logits[:4].topk(5).indices[:, 4]
    labels[4:6] = logits[4:6].argmin(1)
    model.train()
    found = TASK.evaluate(model, Samples(inputs=samples.inputs, labels=labels))
    assert model.training
    assert found.name == "accuracy"
    assert found.higher_is_better
    assert found.samples == 19
    assert found.value == pytest.approx(100 * 13 / 19)
    assert found.others["top-5"] == pytest.approx(100 * 17 / 19)
    few = TASK.evaluate(vit(), Samples(inputs=samples.inputs, labels=labels.clamp(max=2)))
    assert "top-5" not in few.others


@pytest.mark.parametrize("name", ["DeiT", "Swin", "Dinov2", "Beit"])
def test_other_classifiers_answer_and_take_dummies(name: str) -> None:
    import transformers

    cls = f"{name}ForImageClassification" + ("WithTeacher" if name == "DeiT" else "")
    shape = dict(TOWER)
    if name == "Swin":
        shape = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
    config = getattr(transformers, f"{name}Config")(
        **shape, image_size=SIDE, patch_size=4, num_labels=3
    )
    model = seeded(getattr(transformers, cls), config)
    samples = TASK.dummy(model, 2)
    with torch.no_grad():
        found = TASK.output(model, samples.inputs)
    assert found.shape == (2, 3)
    assert TASK.draw(found, samples, "kl", _generator()).shape == (2, 3)
    if name == "DeiT":
        both = model(**samples.inputs)
        torch.testing.assert_close(found, (both.cls_logits + both.distillation_logits) / 2)
    assert any(cls.endswith(ending) for ending in TASK.architectures)


def test_a_bfloat16_model_is_fed_and_measured() -> None:
    model = vit().to(torch.bfloat16)
    samples = TASK.dummy(model, 3)
    output = TASK.output(model, samples.inputs)
    output.backward(TASK.draw(output, samples, "kl", _generator()))
    assert torch.isfinite(model.classifier.weight.grad).all()
    labelled = Samples(inputs=samples.inputs, labels=torch.tensor([0, 1, 2]))
    assert 0 <= TASK.evaluate(model, labelled).value <= 100


def test_heads_that_choose_no_class_are_refused() -> None:
    request = DataRequest(count=None)
    with pytest.raises(ModelError, match="at least 2 classes, and the model has 1"):
        TASK.samples(opened(vit(["all"])), [picture()], request)
    several = vit(problem_type="multi_label_classification")
    with pytest.raises(ModelError, match="any number of classes"):
        TASK.samples(opened(several), [picture()], request)
    assert len(TASK.samples(opened(vit()), [picture()], request)) == 1
