"""Images become the pixel values the model's own settings ask for; what is wrong is named."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prunepath.data.images import image_samples
from prunepath.data.pixels import open_preparer
from prunepath.errors import DataError, RequestError
from prunepath.tasks.task import DataRequest
from tests.tasks.pictures import SETTINGS, draw_folders, opened, picture, vit

ALL = DataRequest(count=None, labels=True)
UNLABELLED = DataRequest(count=None)


def _prepared(settings: dict[str, Any], image: Image.Image, **config: Any) -> torch.Tensor:
    return open_preparer(opened(vit(**config), settings))(image, "an image")


def test_pixel_values_are_what_pillow_and_the_settings_give() -> None:
    settings = {
        **SETTINGS,
        "size": {"shortest_edge": 12},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 10, "width": 8},
    }
    image = picture(width=30, height=24)
    small = np.asarray(image.resize((15, 12), Image.Resampling.BICUBIC)).astype(np.float64)
    crop = small[1:11, 3:11].transpose(2, 0, 1) / 255
    mean, std = (np.array(SETTINGS[name])[:, None, None] for name in ("image_mean", "image_std"))
    np.testing.assert_allclose(_prepared(settings, image), (crop - mean) / std, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"image_processor_type": "ViTFeatureExtractor", "size": 14}, (14, 14)),
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 12, "crop_size": 12},
            (12, 12),
        ),
        (
            {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 8, "width": 6}},
            (8, 6),
        ),
        ({"size": 10, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, (10, 10)),
        (
            {
                "image_processor_type": "ConvNextImageProcessor",
                "size": {"shortest_edge": 16},
                "crop_pct": 0.5,
            },
            (16, 16),
        ),
        ({"image_processor": {"image_processor_type": "ViTImageProcessor", "size": 9}}, (9, 9)),
    ],
)
def test_settings_of_all_ages_are_understood(settings: dict[str, Any], shape: Any) -> None:
    assert _prepared(settings, picture(width=40, height=30)).shape == (3, *shape)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_every_kind_of_image_becomes_colour(mode: str) -> None:
    assert _prepared(SETTINGS, picture(mode=mode)).shape == (3, 16, 16)


def test_a_grey_model_takes_grey_images() -> None:
    settings = {**SETTINGS, "image_mean": [0.5], "image_std": [0.5]}
    assert _prepared(settings, picture(), num_channels=1).shape == (1, 16, 16)


def test_unknown_processors_and_missing_settings_are_named() -> None:
    with pytest.raises(DataError, match="no Pillow version.*'tiny model'.*NoSuchImageProcessor"):
        _prepared({"image_processor_type": "NoSuchImageProcessor"}, picture())
    bare = opened(vit(), None)
    with pytest.raises(DataError, match=r"'tiny model' has no preprocessor_config.json"):
        image_samples(bare, [picture()], UNLABELLED)
    ready = torch.randn(5, 3, 16, 16)
    taken = image_samples(bare, ready, UNLABELLED).inputs["pixel_values"]
    assert torch.equal(taken.sort(0).values, ready.sort(0).values)


def test_class_folders_give_labels_by_name(tmp_path: Path) -> None:
    data = draw_folders(tmp_path / "data", {"dog": 2, "cat": 3, "Bird": 1})
    samples = image_samples(opened(vit()), data, ALL)
    assert samples.labels is not None
    assert sorted(samples.labels.tolist()) == [0, 0, 0, 1, 1, 2]
    assert sorted(samples.labels[:3].tolist()) == [0, 1, 2]  # classes take turns
    assert samples.inputs["pixel_values"].shape == (6, 3, 16, 16)
    assert samples.description == f"{data}, 6 images"
    again = image_samples(opened(vit()), data, ALL)
    other = image_samples(opened(vit()), data, DataRequest(count=None, labels=True, seed=1))
    assert samples.fingerprint == again.fingerprint != other.fingerprint


def test_a_zip_file_and_a_split_hold_the_same(tmp_path: Path) -> None:
    folder = draw_folders(tmp_path / "in" / "val", {"dog": 2, "cat": 2})
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "in")
    plain = image_samples(opened(vit()), folder, ALL)
    packed = tmp_path / "all.zip"
    for data, split in ((packed, None), (packed, "val"), (tmp_path / "in", "val")):
        request = DataRequest(count=None, labels=True, split=split)
        found = image_samples(opened(vit()), str(data), request)
        assert found.fingerprint == plain.fingerprint, (data, split)
    with pytest.raises(RequestError, match=r"split='test' was asked for.*its folders: val"):
        image_samples(opened(vit()), tmp_path / "in", DataRequest(count=None, split="test"))


def test_labels_csv_beside_the_data_names_its_folders(tmp_path: Path) -> None:
    data = draw_folders(tmp_path / "data", {"n01": 1, "n02": 1})
    (tmp_path / "labels.csv").write_text("wnid,label,index\nn01,dog,7\nn02,cat,8\n")
    named = image_samples(opened(vit()), data, ALL)
    assert named.labels is not None
    assert sorted(named.labels.tolist()) == [0, 1]
    nameless = vit([f"LABEL_{index}" for index in range(9)])
    by_index = image_samples(opened(nameless), data, ALL)
    assert by_index.labels is not None
    assert sorted(by_index.labels.tolist()) == [7, 8]
    (tmp_path / "labels.csv").write_text("wnid,kind\nn01,dog\n")
    with pytest.raises(DataError, match=r"has the columns wnid, kind; it needs the folder first"):
        image_samples(opened(vit()), data, ALL)


def test_synonyms_numbers_and_order_stand_for_classes(tmp_path: Path) -> None:
    synonyms = vit(["house cat, Felis", "dog, hound", "crane", "crane, machine"])
    found = image_samples(opened(synonyms), [(picture(1), "hound"), (picture(2), 3)], ALL)
    assert found.labels is not None
    assert sorted(found.labels.tolist()) == [1, 3]
    data = draw_folders(tmp_path, {"x": 1, "y": 1})
    by_order = image_samples(opened(vit(["LABEL_0", "LABEL_1"])), data, ALL)
    assert by_order.labels is not None
    assert sorted(by_order.labels.tolist()) == [0, 1]


def test_classes_the_model_does_not_have_are_named_before_images_are_read(tmp_path: Path) -> None:
    data = draw_folders(tmp_path, {"dog": 1, "frog": 0})
    (tmp_path / "frog" / "broken.png").write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"no class for 1 of the 2 classes of .*: frog; it has 3: cat, dog, bird"
    ):
        image_samples(opened(vit()), data, ALL)
    assert len(image_samples(opened(vit()), data, UNLABELLED)) == 1  # calibration needs no classes


def test_unreadable_images_and_empty_folders_are_noted(tmp_path: Path) -> None:
    data = draw_folders(tmp_path, {"dog": 2, "cat": 1, "bird": 0})
    (data / "dog" / "broken.jpg").write_bytes(b"no image")
    whole = (data / "cat" / "a.png").read_bytes()
    (data / "cat" / "half.png").write_bytes(whole[: len(whole) // 2])
    picture().save(data / "loose.png")
    samples = image_samples(opened(vit()), data, ALL)
    assert len(samples) == 3
    notes = " ".join(samples.notes)
    assert "class folders without images: bird" in notes
    assert "images outside class folders were left out: loose.png" in notes
    assert "skipped 2 unreadable images:" in notes
    assert "dog/broken.jpg" in notes
    assert "cat/half.png" in notes
    with pytest.raises(DataError, match=r"4 images were asked for, but .* only 3 .*\(and 2 unread"):
        image_samples(opened(vit()), data, DataRequest(count=4))


def test_flat_folders_calibrate_but_have_no_labels(tmp_path: Path) -> None:
    for index in range(4):
        picture(index).save(tmp_path / f"{index}.png")
    assert len(image_samples(opened(vit()), tmp_path, DataRequest(count=2, extra=1))) == 3
    with pytest.raises(DataError, match="labels are needed, but 4 of 4 images"):
        image_samples(opened(vit()), tmp_path, ALL)


def test_datasets_are_read_by_column(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["dog", "cat"])
    features = datasets.Features({"photo": datasets.Image(), "kind": names})
    rows = {"photo": [picture(1), picture(2), picture(3)], "kind": [0, 1, 0]}
    data = datasets.Dataset.from_dict(rows, features=features)
    request = DataRequest(count=None, labels=True, field="photo", label_field="kind")
    found = image_samples(opened(vit()), data, request)
    assert found.labels is not None
    assert sorted(found.labels.tolist()) == [0, 1, 1]  # by name: the model has cat, dog
    stream = data.to_iterable_dataset()
    assert len(image_samples(opened(vit()), stream, request)) == 3
    with pytest.raises(DataError, match=r"no column of a usual name \(image.*it has: photo, kind"):
        image_samples(opened(vit()), data, ALL)
    with pytest.raises(DataError, match=r"no column 'foto', did you mean 'photo'\?"):
        image_samples(opened(vit()), data, DataRequest(count=None, field="foto"))
    splits = datasets.DatasetDict({"train": data})
    with pytest.raises(RequestError, match="has the splits train, and none was asked for"):
        image_samples(opened(vit()), splits, UNLABELLED)


def test_dataset_ids_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[Any] = []

    def load(*names: Any, **how: Any) -> Any:
        asked.append((names, how))
        if names[0] == "gone/set":
            raise FileNotFoundError("Couldn't find it.")
        rows = {"image": [picture(1), picture(2)], "label": ["dog", "cat"]}
        return datasets.Dataset.from_dict(rows).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = image_samples(opened(vit()), "some/set:small:val", DataRequest(count=2, labels=True))
    assert asked == [(("some/set", "small"), {"split": "val", "streaming": True})]
    assert found.description == "dataset some/set:small, val split, 2 images"
    with pytest.raises(
        DataError, match="'gone/set' is neither a folder nor a .zip file, and the d"
    ):
        image_samples(opened(vit()), "gone/set", UNLABELLED)
    with pytest.raises(RequestError, match="names the split 'val' and split='test' another"):
        image_samples(opened(vit()), "some/set:small:val", DataRequest(count=1, split="test"))


def test_a_damaged_member_of_a_zip_file_is_noted(tmp_path: Path) -> None:
    folder = draw_folders(tmp_path / "in", {"dog": 2})
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        for name in ("a", "b"):
            packed.write(folder / "dog" / f"{name}.png", f"dog/{name}.png")
        place = packed.getinfo("dog/b.png").header_offset + 100
    with (tmp_path / "all.zip").open("r+b") as file:
        file.seek(place)
        file.write(b"damaged!")
    found = image_samples(opened(vit()), tmp_path / "all.zip", ALL)
    assert found.notes == ("skipped 1 unreadable image: dog/b.png (BadZipFile)",)


def test_iterables_keep_their_order_and_stop_early() -> None:
    def endless() -> Any:
        index = 0
        while True:
            yield picture(index), "dog"
            index += 1

    found = image_samples(opened(vit()), endless(), DataRequest(count=3, extra=1, labels=True))
    assert found.labels is not None
    assert found.labels.tolist() == [1, 1, 1, 1]
    first = open_preparer(opened(vit()))(picture(0), "")
    assert torch.equal(found.inputs["pixel_values"][0], first)


def test_data_that_is_no_data_is_refused(tmp_path: Path) -> None:
    for data, message in (
        (None, "this task has no data in the package"),
        (3, "the data is a int"),
        (tmp_path / "gone", "neither an existing file nor a dataset id"),
        (tmp_path, "there is no image that can be read"),
        ([(1, 2, 3)], "tuple of 3"),
        ([5], "an image was expected and a int found"),
    ):
        with pytest.raises(DataError, match=message):
            image_samples(opened(vit()), data, UNLABELLED)
    (tmp_path / "no.zip").write_text(json.dumps({}))
    with pytest.raises(DataError, match="cannot read images from .*zip"):
        image_samples(opened(vit()), tmp_path / "no.zip", UNLABELLED)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match="there is no image that can be read"):
        image_samples(opened(vit()), tmp_path / "empty.zip", UNLABELLED)
    with pytest.raises(DataError, match="prepared images differ in shape"):
        image_samples(
            opened(vit(), {**SETTINGS, "do_resize": False}),
            [picture(), picture(width=9)],
            UNLABELLED,
        )


def test_a_set_too_large_for_memory_is_refused_after_one_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    with pytest.raises(DataError, match=r"3 images of .* take .* of memory; ask for fewer"):
        image_samples(opened(vit()), [picture()] * 3, UNLABELLED)
