"""What prepares a model's inputs is found beside it, or taken from the user; nothing is made up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from prunepath.checkpoint.save import save_model
from prunepath.checkpoint.source import open_model
from prunepath.errors import ModelError
from tests.checkpoint.models import KINDS

SETTINGS = {"do_resize": True, "size": {"height": 16, "width": 16}, "image_mean": [0.5, 0.5, 0.5]}


def saved(kind: str, folder: Path) -> Path:
    """A model alone in a folder."""
    KINDS[kind].build().save_pretrained(folder)
    return folder


@pytest.fixture
def listener() -> Any:
    """A feature extractor."""
    cls: Any = transformers.WhisperFeatureExtractor
    return cls(feature_size=8)


class Images:
    """An image processor, as far as we look at it."""

    image_mean = (0.5, 0.5, 0.5)

    def to_json_string(self) -> str:
        return json.dumps(SETTINGS)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_beside_the_model(kind: str, tmp_path: Path) -> None:
    opened = open_model(saved(kind, tmp_path))
    assert opened.tokenizer is None, "an empty tokenizer would make every word unknown"
    assert opened.processor is None
    assert opened.image_settings is None


def test_a_tokenizer_beside_the_model(tmp_path: Path, tiny_tokenizer: Any) -> None:
    saved("bert-classifier", tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    opened: Any = open_model(tmp_path)
    assert len(opened.tokenizer) == len(tiny_tokenizer)
    assert open_model(tmp_path, tokenizer=False).tokenizer is None


def test_image_settings_beside_the_model(tmp_path: Path) -> None:
    saved("vit", tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(SETTINGS))
    assert open_model(tmp_path).image_settings == SETTINGS
    file.rename(tmp_path / "processor_config.json")
    assert open_model(tmp_path).image_settings is None, "no part of it is about images"
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": SETTINGS}))
    assert open_model(tmp_path).image_settings == SETTINGS


def test_damaged_image_settings(tmp_path: Path) -> None:
    saved("vit", tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="'preprocessor_config.json' of '.*' is not JSON; repair"):
        open_model(tmp_path)


def test_a_feature_extractor_beside_the_model(tmp_path: Path, listener: Any) -> None:
    saved("whisper", tmp_path)
    listener.save_pretrained(tmp_path)
    opened = open_model(tmp_path)
    assert opened.processor.feature_size == 8
    assert opened.image_settings is None, "the file is about sound"


def test_what_the_user_passes_goes_first(
    tmp_path: Path, tiny_tokenizer: Any, tiny_bos_tokenizer: Any
) -> None:
    saved("clip", tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    opened: Any = open_model(tmp_path / "model", tokenizer=tiny_bos_tokenizer)
    assert opened.tokenizer is tiny_bos_tokenizer
    assert opened.image_settings == SETTINGS, "what was not passed is still found"
    tiny_bos_tokenizer.save_pretrained(tmp_path / "elsewhere")
    opened = open_model(tmp_path / "model", tokenizer=tmp_path / "elsewhere")
    assert opened.tokenizer.bos_token == "<s>"
    with pytest.raises(ModelError, match="there is no tokenizer at 'no/where/here'; pass a folder"):
        open_model(tmp_path / "model", tokenizer="no/where/here")


def test_model_objects_come_with_what_is_passed(tiny_tokenizer: Any, listener: Any) -> None:
    model = KINDS["vit"].build()
    assert open_model(model, tokenizer=Images()).image_settings == SETTINGS
    both = SimpleNamespace(tokenizer=tiny_tokenizer, image_processor=Images())
    opened = open_model(KINDS["clip"].build(), tokenizer=both)
    assert opened.tokenizer is tiny_tokenizer
    assert opened.image_settings == SETTINGS
    assert open_model(KINDS["whisper"].build(), tokenizer=listener).processor is listener


def test_everything_is_saved_beside_a_cut_model(
    tmp_path: Path, tiny_tokenizer: Any, listener: Any
) -> None:
    (tmp_path / "clip").mkdir()
    save_model(KINDS["clip"].build(), tiny_tokenizer, tmp_path / "clip", image_settings=SETTINGS)
    opened: Any = open_model(tmp_path / "clip")
    assert opened.image_settings == SETTINGS
    assert opened.tokenizer.get_vocab() == tiny_tokenizer.get_vocab()
    (tmp_path / "whisper").mkdir()
    save_model(KINDS["whisper"].build(), None, tmp_path / "whisper", processor=listener)
    assert open_model(tmp_path / "whisper").processor.to_dict() == listener.to_dict()
