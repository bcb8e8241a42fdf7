"""Image-text retrieval: similarities, their curvature, and recall."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from prunepath.data.samples import Samples
from prunepath.errors import ModelError, NumericsError, RequestError
from prunepath.tasks.image_text import IMAGE_TEXT as TASK
from prunepath.tasks.retrieval import recalls
from prunepath.tasks.task import DataRequest
from tests.tasks.pictures import SIDE, TOWER, opened, picture, seeded, vit
from tests.tasks.tiny import word_tokenizer

TEXT = {**TOWER, "vocab_size": 50, "max_position_embeddings": 12, "eos_token_id": 49}
VISION = {**TOWER, "image_size": SIDE, "patch_size": 8}


def _model(name: str) -> Any:
    import transformers

    text = dict(TEXT)
    if name == "Blip":
        text |= {"encoder_hidden_size": 16, "pad_token_id": 0, "bos_token_id": 1}
        text |= {"projection_dim": 16, "sep_token_id": 2}
    config = getattr(transformers, f"{name}Config")(
        text_config=text,
        vision_config=dict(VISION),
        projection_dim=16,
        image_text_hidden_size=16,
    )
    cls = "BlipForImageTextRetrieval" if name == "Blip" else f"{name}Model"
    return seeded(getattr(transformers, cls), config)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["CLIP", "Siglip", "Blip"])
def test_the_output_is_the_scaled_similarity_of_the_towers(name: str) -> None:
    model = _model(name)
    samples = TASK.dummy(model, 3)
    assert samples.inputs["input_ids"].shape == (3, 12)
    assert TASK.dummy(model, 1, window=5).inputs["input_ids"].tolist()[0][-1] == 49
    assert TASK.dummy(model, 1, window=500).inputs["input_ids"].shape == (1, 12)
    with torch.no_grad():
        found = TASK.output(model, samples.inputs)
        inputs = dict(samples.inputs)
        if name == "Blip":
            cosine = model(**inputs, use_itm_head=False).itm_score
            wanted = cosine * math.exp(model.config.logit_scale_init_value)
        else:
            own = model(**inputs)
            wanted = own.logits_per_image
            cosine = own.image_embeds @ own.text_embeds.T
            assert name == "Siglip" or not torch.allclose(wanted, cosine)
    if name == "Siglip":
        assert found.shape == (3, 3, 2)
        torch.testing.assert_close(found.softmax(-1)[..., 1], wanted.sigmoid())
    else:
        torch.testing.assert_close(found, wanted)
    output = TASK.output(model, samples.inputs)
    output.backward(TASK.draw(output, samples, "kl", _generator()))
    assert any(value.grad is not None for value in model.parameters())


@pytest.mark.parametrize("shape", [(3, 3), (2, 2, 2)])
def test_the_draw_has_the_curvature_of_the_distance(shape: tuple[int, ...]) -> None:
    answer = 2 * torch.randn(shape, generator=_generator(1))
    samples = Samples(inputs={"input_ids": torch.zeros(shape[0], 1, dtype=torch.int64)})
    draws = torch.stack(
        [
            TASK.draw(answer.clone(), samples, "kl", _generator(seed)).flatten()
            for seed in range(6000)
        ]
    )
    curvature = torch.autograd.functional.hessian(
        lambda own: TASK.distance(own, answer, samples) * len(answer), answer
    )
    size = answer.numel()
    torch.testing.assert_close(
        draws.T @ draws / len(draws), curvature.reshape(size, size), atol=0.03, rtol=0
    )


@pytest.mark.parametrize("name", ["CLIP", "Siglip"])
def test_the_loss_is_the_contrastive_loss_of_the_model(name: str) -> None:
    model = _model(name)
    samples = TASK.dummy(model, 4)
    output = TASK.output(model, samples.inputs)
    own = model(**samples.inputs, return_loss=True).loss
    torch.testing.assert_close(TASK.loss(output, samples), own)
    leaf = output.detach().requires_grad_()
    (wanted,) = torch.autograd.grad(4 * TASK.loss(leaf, samples), leaf)
    found = TASK.draw(output.detach().clone(), samples, "task", _generator())
    torch.testing.assert_close(found, wanted)
    assert float(TASK.distance(output, output.detach(), samples).detach()) == pytest.approx(0)


def test_recall_counts_images_once_and_ties_against_the_model() -> None:
    groups = torch.tensor([7, 7, 3, 5])
    images = torch.eye(4)[[0, 0, 1, 2]]
    texts = torch.tensor([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]])
    found = recalls(images, texts, groups, (1, 2))
    # Image 7 finds its second caption, 5 finds its own only beside that of 3, 3 finds nothing.
    assert found["image-to-text R@1"] == pytest.approx(100 / 3)
    assert found["image-to-text R@2"] == pytest.approx(200 / 3)
    assert found["text-to-image R@1"] == pytest.approx(50)
    same = recalls(torch.ones(4, 2), torch.ones(4, 2), torch.arange(4))
    assert same["image-to-text R@1"] == 0
    assert same["image-to-text R@5"] == 100


@pytest.mark.parametrize("name", ["CLIP", "Siglip", "Blip"])
def test_pairs_are_read_and_measured(name: str) -> None:
    model = _model(name)
    texts = ["a cat", "the film", "fine", "the cat sat"]
    pairs = [(picture(index), text) for index, text in enumerate(texts)]
    ready = opened(model, tokenizer=word_tokenizer())
    samples = TASK.samples(ready, pairs, DataRequest(count=None, labels=True))
    assert samples.inputs["input_ids"].shape[1] == (12 if name == "Siglip" else 5)
    assert ("attention_mask" in samples.inputs) == (name != "Siglip")
    found = TASK.evaluate(model, samples)
    assert found.name == "image-to-text R@1"
    assert set(found.others) == {
        *(f"image-to-text R@{rank}" for rank in (5, 10)),
        *(f"text-to-image R@{rank}" for rank in (1, 5, 10)),
    }
    assert found.others["text-to-image R@5"] == 100  # of four
    assert found.samples == 4


def test_wrong_models_and_missing_labels_are_refused() -> None:
    with pytest.raises(RequestError, match="labels are needed, but random images and tokens have"):
        TASK.evaluate(_model("CLIP"), TASK.dummy(_model("CLIP"), 2))
    with pytest.raises(ModelError, match="'ViTForImageClassification' gives logits and no simil"):
        TASK.output(vit(), {"pixel_values": torch.zeros(1, 3, SIDE, SIDE)})
    broken = _model("CLIP")
    torch.nn.init.constant_(broken.logit_scale, torch.nan)
    samples = TASK.dummy(broken, 2)
    with pytest.raises(NumericsError, match="not finite"):
        TASK.draw(TASK.output(broken, samples.inputs), samples, "kl", _generator())
