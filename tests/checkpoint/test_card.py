"""The card shows the lines that really load the model, whatever it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunepath.checkpoint import auto
from prunepath.checkpoint.card import model_card
from prunepath.checkpoint.save import save_model
from prunepath.path import Provenance
from prunepath.structure.cost import Cost
from tests.checkpoint.models import KINDS, narrow_, toy_reshape_


def card(
    task: str,
    model: Any,
    opened: Any,
    *,
    loader: str = "transformers",
    caches: bool = False,
    stated_for: str = "512 tokens",
) -> str:
    """A card of a model that lost half of everything."""
    kv = 64 if caches else 0
    dense = Cost(params=2000, macs=4000, weight_bytes=8000, kv_bytes_per_token=kv)
    half = Cost(params=1000, macs=2000, weight_bytes=4000, kv_bytes_per_token=kv // 2)
    options = SimpleNamespace(sequence_length=512, layout="per-layer", multiple=8, rule="order")
    allocation: Any = SimpleNamespace(
        tokens=None,
        dense=dense,
        cost=half,
        options=options,
        budget="params=50%",
        ratio=0.5,
        measured={},
    )
    provenance = Provenance(
        method="spp",
        method_config={"steps": 3},
        model_id="someone/tiny",
        model_fingerprint="f" * 64,
        data="a folder",
        data_fingerprint="d" * 64,
        objective="kl",
        seed=0,
        library_version="1",
        tokens=256,
        task=task,
        recipe={"name": "spp+none", "method": "spp", "paper": "Somebody 2030"},
    )
    return model_card(
        allocation,
        provenance,
        loader=loader,
        refit={"kind": "none"},
        rearranged={},
        difference=1e-7,
        folder_name="small",
        model=model,
        opened=opened,
        stated_for=stated_for,
    )


def beside(*names: str) -> Any:
    """An opened model as far as a card looks: what there is to prepare inputs."""
    return SimpleNamespace(
        **{
            name: object() if name in names else None
            for name in ("tokenizer", "processor", "image_settings")
        }
    )


def test_a_language_model() -> None:
    text = card("causal-lm", KINDS["llama"].build(), beside("tokenizer"), caches=True)
    assert "base_model: someone/tiny" in text
    assert "from transformers import AutoModelForCausalLM, AutoTokenizer\n" in text
    assert 'model = AutoModelForCausalLM.from_pretrained("small")\n' in text
    assert 'tokenizer = AutoTokenizer.from_pretrained("small")\n' in text
    assert "import prunepath" not in text
    assert "| MACs for 512 tokens | " in text
    assert "| KV cache per token | " in text
    assert "256 calibration tokens of a folder" in text
    assert "measured by perplexity" in text
    assert "- recipe `spp+none` (Somebody 2030)\n" in text


def test_an_image_classifier() -> None:
    text = card(
        "image-classification",
        KINDS["vit"].build(),
        beside("image_settings"),
        stated_for="one image",
    )
    assert "from transformers import AutoModelForImageClassification, AutoImageProcessor" in text
    assert "| MACs for one image | " in text
    assert "256 calibration samples of a folder" in text
    assert "KV cache" not in text
    assert "measured by accuracy" in text


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("tokenizer", "image_settings"), "AutoProcessor"),
        (("tokenizer", "processor"), "AutoProcessor"),
        (("tokenizer",), "AutoTokenizer"),
        (("processor",), "AutoFeatureExtractor"),
    ],
)
def test_what_prepares_the_inputs(parts: tuple[str, ...], name: str) -> None:
    text = card("speech", KINDS["whisper"].build(), beside(*parts))
    assert f"{name}.from_pretrained(" in text


def test_nothing_prepares_the_inputs() -> None:
    text = card("image-classification", KINDS["vit"].build(), beside())
    assert "from transformers import AutoModelForImageClassification\n" in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_load_the_model(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "reshape_", toy_reshape_)
    model = KINDS[kind].build()
    narrow_(model, KINDS[kind])
    save_model(model, None, tmp_path / "small")
    text = card(KINDS[kind].task, model, beside(), loader="prunepath")
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python\n")[1].split("```")[0], names)
    assert type(names["model"]) is type(model)


def test_a_class_that_no_auto_class_knows() -> None:
    made: Any = type("PrunedBlipForImageTextRetrieval", (SimpleNamespace,), {})
    model = made(config=SimpleNamespace(prunepath={"places": {}}))
    text = card("image-text", model, beside(), loader="prunepath")
    assert "import prunepath  # reads this model\n\n" in text
    assert 'model = prunepath.load("small")\n' in text
