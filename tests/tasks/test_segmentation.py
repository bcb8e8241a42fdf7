"""Segmentation: masks follow their images, pixels are compared as the papers do."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunepath.data.masks import mask_samples
from prunepath.data.samples import Samples
from prunepath.errors import DataError, ModelError, RequestError
from prunepath.tasks.segmentation import SEGMENTATION as TASK
from prunepath.tasks.task import DataRequest
from tests.tasks.pictures import SETTINGS, SIDE, opened, picture, seeded, vit

ALL = DataRequest(count=None, labels=True)
PADDING = {
    "image_processor_type": "MaskFormerImageProcessor",
    "size": {"shortest_edge": 32, "longest_edge": 64},
    "size_divisor": 0,
}


def _segformer(classes: int = 3) -> Any:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        num_labels=classes,
    )
    return seeded(SegformerForSemanticSegmentation, config)


def _former(name: str) -> Any:
    import transformers

    backbone = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    labels = {index: f"thing {index}" for index in range(3)}
    if name == "Mask2Former":
        config = transformers.Mask2FormerConfig(
            backbone_config=backbone,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=8,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            dim_feedforward=8,
            num_queries=4,
            id2label=labels,
        )
        return seeded(transformers.Mask2FormerForUniversalSegmentation, config)
    decoder = transformers.DetrConfig(
        d_model=32,
        decoder_layers=1,
        encoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=8,
        num_queries=4,
    )
    config = transformers.MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=32,
        id2label=labels,
    )
    return seeded(transformers.MaskFormerForInstanceSegmentation, config)


def _mask(values: Any) -> Image.Image:
    return Image.fromarray(np.asarray(values, dtype=np.uint8))


def _folders(root: Path, count: int = 3) -> Path:
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        picture(index, 24, 20).save(root / "images" / f"{index}.jpg")
        _mask(np.full((20, 24), index % 3)).save(root / "annotations" / f"{index}.png")
    return root


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_mask_is_resized_and_cropped_as_its_image() -> None:
    settings = {
        **SETTINGS,
        "size": {"shortest_edge": 12},
        "do_center_crop": True,
        "crop_size": {"height": 14, "width": 8},
    }
    ids = np.random.default_rng(0).integers(0, 3, (24, 30))
    ids[0] = 255
    request = DataRequest(count=None, labels=True)
    found = mask_samples(
        opened(_segformer(), settings), [(picture(0, 30, 24), _mask(ids))], request
    )
    small = np.asarray(_mask(ids).resize((15, 12), Image.Resampling.NEAREST)).astype(int)
    wanted = np.full((14, 8), -1)  # the crop is higher than the image and padded
    wanted[1:13] = small[:, 3:11]
    wanted[wanted == 255] = -1
    assert found.labels is not None
    assert np.array_equal(found.labels[0].numpy(), wanted)


def test_background_that_is_no_class_is_taken_away() -> None:
    settings = {
        "image_processor_type": "SegformerImageProcessor",
        "size": {"height": 4, "width": 4},
        "do_reduce_labels": True,
    }
    ids = np.array([[0, 1], [3, 255]]).repeat(2, 0).repeat(2, 1)
    found = mask_samples(opened(_segformer(), settings), [(picture(), _mask(ids))], ALL)
    assert found.labels is not None
    assert found.labels[0, ::2, ::2].tolist() == [[-1, 0], [2, -1]]


def test_wide_class_ids_and_palettes_are_read() -> None:
    wide = np.full((16, 16), 299, dtype=np.int32)
    found = mask_samples(opened(_segformer(300)), [(picture(), Image.fromarray(wide))], ALL)
    assert found.labels is not None
    assert found.labels.unique().tolist() == [299]
    palette = _mask(np.full((16, 16), 2)).convert("P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 200, 0, 0])
    ids = int(np.asarray(palette)[0, 0])
    found = mask_samples(opened(_segformer()), [(picture(), palette)], ALL)
    assert found.labels is not None
    assert found.labels.unique().tolist() == [ids]


def test_folders_of_the_same_names_are_matched(tmp_path: Path) -> None:
    data = _folders(tmp_path / "data")
    picture().save(data / "images" / "alone.png")
    found = TASK.samples(opened(_segformer()), data, ALL)
    assert found.labels is not None
    assert found.labels.shape == (3, SIDE, SIDE)
    assert sorted(found.labels[:, 0, 0].tolist()) == [0, 1, 2]
    assert found.notes == ("left out 1 images without a mask: alone.png",)
    two = mask_samples(opened(_segformer()), (data / "images", data / "annotations"), ALL)
    assert two.fingerprint == found.fingerprint
    shutil.make_archive(str(tmp_path / "all"), "zip", data)
    packed = mask_samples(opened(_segformer()), tmp_path / "all.zip", ALL)
    assert packed.fingerprint == found.fingerprint
    unlabelled = TASK.samples(opened(_segformer()), data / "images", DataRequest(count=4))
    assert unlabelled.labels is None


def test_splits_lie_around_the_folders_or_within(tmp_path: Path) -> None:
    _folders(tmp_path / "a" / "val")
    _folders(tmp_path / "b")
    for folder in ("images", "annotations"):
        (tmp_path / "b" / folder).rename(tmp_path / "b" / "val")
        (tmp_path / "b" / folder).mkdir()
        (tmp_path / "b" / "val").rename(tmp_path / "b" / folder / "val")
    request = DataRequest(count=3, labels=True, split="val")
    one, two = (
        mask_samples(opened(_segformer()), tmp_path / name, request).fingerprint for name in "ab"
    )
    assert one == two


def test_wrong_masks_are_named(tmp_path: Path) -> None:
    model = opened(_segformer())
    picture().save(tmp_path / "only.png")
    for data, message in (
        ([(picture(), picture())], r"the mask image 0 holds colours \(mode RGB\)"),
        ([(picture(), _mask(np.full((9, 9), 3)))], "holds class 3, but the model has 3 classes"),
        ([picture()], "labels are needed, but image 0 of .* has no mask"),
        (tmp_path, r"has no folder of images \(images, image, img, ...\) beside one of masks"),
    ):
        with pytest.raises(DataError, match=message):
            mask_samples(model, data, ALL)
    data = _folders(tmp_path / "data", 1)
    (data / "annotations" / "0.png").rename(data / "annotations" / "other.png")
    with pytest.raises(DataError, match="none of the 1 images of .* has a mask of the same name"):
        mask_samples(model, data, ALL)


def test_images_of_several_sizes_are_padded_where_the_model_knows_it() -> None:
    shapes = [(30, 40), (40, 30)]
    pairs = [
        (picture(0, width, height), _mask(np.ones((height, width)))) for height, width in shapes
    ]
    found = mask_samples(opened(_former("MaskFormer"), PADDING), pairs, ALL)
    assert found.labels is not None
    height, width = found.inputs["pixel_values"].shape[-2:]
    mask = found.inputs["pixel_mask"]
    assert mask.shape == (2, height, width)
    assert torch.equal(found.labels >= 0, mask.bool())
    assert mask.sum() < mask.numel()


@pytest.mark.parametrize("name", ["MaskFormer", "Mask2Former"])
def test_queries_are_summed_as_transformers_does(name: str) -> None:
    model = _former(name)
    samples = TASK.dummy(model, 1)
    assert samples.inputs["pixel_values"].shape == (1, 3, 64, 64)
    with torch.no_grad():
        answer = model(**samples.inputs)
        found = TASK.output(model, samples.inputs)
    classes = answer.class_queries_logits.softmax(-1)[..., :-1]
    scores = torch.einsum("bqc,bqhw->bhwc", classes, answer.masks_queries_logits.sigmoid())
    torch.testing.assert_close(found.exp(), scores + 0.01 / 3)
    output = TASK.output(model, samples.inputs)
    output.backward(TASK.draw(output, samples, "kl", _generator()))
    gradients = [value.grad for value in model.parameters() if value.grad is not None]
    assert gradients
    assert all(torch.isfinite(value).all() for value in gradients)
    labelled = Samples(inputs=samples.inputs, labels=torch.zeros(1, 64, 64, dtype=torch.int64))
    assert 0 <= TASK.evaluate(model, labelled).value <= 100


def test_the_draw_has_the_curvature_of_the_distance() -> None:
    answer = torch.randn(2, 1, 2, 3, generator=_generator(2))
    known = torch.ones(2, 4, 8, dtype=torch.int64)
    known[1, :, 4:] = 0
    samples = Samples(inputs={"pixel_mask": known})
    draws = torch.stack(
        [TASK.draw(answer, samples, "kl", _generator(seed)).flatten() for seed in range(6000)]
    )
    curvature = torch.autograd.functional.hessian(
        lambda own: 2 * TASK.distance(own, answer, samples), answer
    ).reshape(12, 12)
    torch.testing.assert_close(draws.T @ draws / len(draws), curvature, atol=0.02, rtol=0)
    assert not draws[:, 9:].any()  # padding


def test_loss_and_metric_use_the_size_of_the_masks() -> None:
    model = _segformer()
    samples = TASK.samples(
        opened(model),
        [(picture(index), _mask(np.full((18, 20), index))) for index in range(3)],
        ALL,
    )
    assert samples.labels is not None
    labels = samples.labels.clone()
    labels[:, :4] = -1
    samples = Samples(inputs=samples.inputs, labels=labels)
    output = TASK.output(model, samples.inputs)
    assert output.shape[0] == 3
    assert output.shape[-1] == 3
    own = model(
        samples.inputs["pixel_values"], labels=labels.where(labels >= 0, torch.tensor(255))
    ).loss
    torch.testing.assert_close(TASK.loss(output, samples), own)
    leaf = output.detach().requires_grad_()
    (wanted,) = torch.autograd.grad(3 * TASK.loss(leaf, samples), leaf)
    torch.testing.assert_close(TASK.draw(output, samples, "task", _generator()), wanted)
    with torch.no_grad():
        scores = torch.nn.functional.interpolate(
            model(samples.inputs["pixel_values"]).logits, (SIDE, SIDE), mode="bilinear"
        )
    predicted = scores.argmax(1)[:, 4:]
    true = labels[:, 4:]
    shares = [
        int(((predicted == index) & (true == index)).sum())
        / int(((predicted == index) | (true == index)).sum())
        for index in range(3)
    ]
    found = TASK.evaluate(model, samples)
    assert found.name == "mean IoU"
    assert found.value == pytest.approx(100 * sum(shares) / 3)
    accuracy = 100 * float((predicted == true).double().mean())
    assert found.others["pixel accuracy"] == pytest.approx(accuracy)
    assert found.others["mean accuracy"] == pytest.approx(accuracy)


def test_what_cannot_be_compared_is_refused() -> None:
    model = _segformer()
    samples = TASK.dummy(model, 1)
    assert samples.inputs["pixel_values"].shape == (1, 3, 224, 224)
    with pytest.raises(RequestError, match="labels are needed"):
        TASK.evaluate(model, samples)
    inputs = {"pixel_values": torch.zeros(1, 3, SIDE, SIDE)}
    nothing = Samples(inputs=inputs, labels=torch.full((1, SIDE, SIDE), -1), description="a set")
    with pytest.raises(DataError, match="no pixel of the masks of a set has a class"):
        TASK.evaluate(model, nothing)
    with pytest.raises(ModelError, match="neither scores of pixels nor queries"):
        TASK.output(vit(), inputs)
