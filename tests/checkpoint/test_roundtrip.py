"""Any cut model comes back: the same class, the same task, the same answers.

What is cut is a toy here (see `models.py`); real cuts are in `test_verify.py`.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import prunepath
from prunepath.checkpoint import auto
from prunepath.checkpoint.readback import answers
from prunepath.checkpoint.save import is_stock, loading_class, save_model
from prunepath.checkpoint.source import open_model
from prunepath.tasks import TASKS
from tests.checkpoint.models import KINDS, narrow_, toy_reshape_

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "reshape_", toy_reshape_)


def saved(kind: str, folder: Path) -> Any:
    """A model that was cut and written."""
    model = KINDS[kind].build()
    narrow_(model, KINDS[kind])
    save_model(model, None, folder)
    return model


def agree(first: Any, second: Any, kind: str) -> bool:
    """Whether two models answer the same."""
    ours, theirs = (answers(model.eval(), KINDS[kind].inputs()) for model in (first, second))
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[name], theirs[name]) for name in ours
    )


@every_kind
def test_a_cut_model_is_saved_as_ours(kind: str, tmp_path: Path) -> None:
    dense = type(KINDS[kind].build())
    model = saved(kind, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "prunepath"
    assert written["architectures"] == [f"Pruned{dense.__name__}"] == [type(model).__name__]
    assert written["prunepath"]["width"] == 17
    assert isinstance(model, dense)
    assert not is_stock(model)


@every_kind
def test_in_memory_it_keeps_the_type_it_was_cut_from(kind: str, tmp_path: Path) -> None:
    dense = KINDS[kind].build()
    model = saved(kind, tmp_path)
    for found in (model, prunepath.load(tmp_path)):
        assert found.config.model_type == dense.config.model_type
        assert found.is_custom_code() == dense.is_custom_code()
        assert found.can_generate() == dense.can_generate()


@every_kind
def test_the_auto_class_gives_it_back(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path)
    name = loading_class(model, TASKS[KINDS[kind].task].auto_classes)
    again = getattr(transformers, KINDS[kind].auto_class).from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert agree(model, again, kind)
    assert type(getattr(transformers, name).from_pretrained(tmp_path)) is type(model)


@every_kind
def test_load_and_open_give_it_back(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path)
    loaded, opened = prunepath.load(tmp_path), open_model(tmp_path)
    assert type(loaded) is type(opened.model) is type(model)
    assert opened.task.name == KINDS[kind].task
    assert agree(model, loaded, kind)
    assert agree(model, opened.model, kind)


@every_kind
def test_saving_twice_and_pickling_change_nothing(kind: str, tmp_path: Path) -> None:
    model = saved(kind, tmp_path / "first")
    again = prunepath.load(tmp_path / "first")
    save_model(again, None, tmp_path / "second")
    first, second = (
        json.loads((tmp_path / n / "config.json").read_text()) for n in ("first", "second")
    )
    for entry in ("model_type", "architectures", "prunepath"):
        assert first[entry] == second[entry]
    assert agree(model, prunepath.load(tmp_path / "second"), kind)
    assert agree(model, pickle.loads(pickle.dumps(again)), kind)  # noqa: S301, our own bytes


@every_kind
def test_the_dense_model_stays_stock(kind: str, tmp_path: Path) -> None:
    model = KINDS[kind].build()
    save_model(model, None, tmp_path)
    assert is_stock(model)
    assert "prunepath" not in (tmp_path / "config.json").read_text()
    opened = open_model(tmp_path)
    assert type(opened.model) is type(model)
    assert opened.task.name == KINDS[kind].task
    assert agree(model, opened.model, kind)


@pytest.mark.parametrize("kind", ["llama", "t5", "whisper"])
def test_generation(kind: str, tmp_path: Path) -> None:
    model, inputs = saved(kind, tmp_path), KINDS[kind].inputs()
    inputs.pop("decoder_input_ids", None)
    found = [
        one.generate(**inputs, max_new_tokens=4, do_sample=False)
        for one in (model, prunepath.load(tmp_path))
    ]
    assert torch.equal(*found)


def test_a_class_that_no_auto_class_knows(tmp_path: Path) -> None:
    config = transformers.BlipConfig(
        text_config={
            **KINDS["clip"].build().config.text_config.to_dict(),
            "encoder_hidden_size": 16,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        },
    )
    model: Any = transformers.BlipForImageTextRetrieval(config)
    assert loading_class(model) == "BlipForImageTextRetrieval"
    pair = ("vision_model.encoder.layers.0.mlp.fc1", "vision_model.encoder.layers.0.mlp.fc2")
    toy_reshape_(model, config, {"pairs": [pair], "width": 9}, keep=True)
    record = {"base_model_type": "blip", "places": {}, "pairs": [list(pair)], "width": 9}
    model.config.prunepath = record
    save_model(model, None, tmp_path)
    assert loading_class(model) == ""
    again = prunepath.load(tmp_path)
    assert type(again) is type(model)
    assert torch.equal(
        again.get_parameter(f"{pair[0]}.weight"), model.get_parameter(f"{pair[0]}.weight")
    )


def test_experts_are_merged_as_in_the_dense_model(tmp_path: Path) -> None:
    config = transformers.MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    dense: Any = transformers.MixtralForCausalLM(config)
    dense.save_pretrained(tmp_path / "dense")
    model = open_model(tmp_path / "dense").model  # its weights were merged when they were read
    model.config.prunepath = {"base_model_type": "mixtral", "places": {}, "pairs": [], "width": 0}
    save_model(model, None, tmp_path / "cut")
    inputs = KINDS["llama"].inputs()
    expected, found = (
        answers(dense.eval(), inputs),
        answers(prunepath.load(tmp_path / "cut"), inputs),
    )
    assert torch.equal(expected["logits"], found["logits"])
