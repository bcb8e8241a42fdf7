"""The real vision model reaches its published accuracy on the real images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from prunepath.tasks.image_classification import IMAGE_CLASSIFICATION as TASK
from prunepath.tasks.task import DataRequest

pytestmark = pytest.mark.real

BESIDE = Path(os.environ.get("PRUNEPATH_DATA", Path(__file__).parents[3] / "shared"))
IMAGES = BESIDE / "data" / "imagenette" / "val.zip"
UNPACK = BESIDE / "models" / "unpack.py"
NUM_IMAGES = 200


def test_vit_small_is_right_on_imagenette(tmp_path: Path) -> None:
    from transformers import ViTForImageClassification

    for needed in (IMAGES, UNPACK):
        if not needed.exists():
            pytest.skip(f"{needed} is not there; set PRUNEPATH_DATA to the folder with real data")
    folder = tmp_path / "vit"
    command = [sys.executable, str(UNPACK), "vit-small-imagenette", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    model = ViTForImageClassification.from_pretrained(folder).eval()
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    opened = SimpleNamespace(
        model=model, tokenizer=None, processor=None, image_settings=settings, model_id="vit-small"
    )
    samples = TASK.samples(opened, IMAGES, DataRequest(count=NUM_IMAGES, labels=True))
    found = TASK.evaluate(model, samples)
    assert samples.notes == ()
    # 92.5 on all 1,000 images; a sample of 200 has a standard error of 1.9.
    assert 88 <= found.value <= 97, found
