"""Opening a model: the class it was saved from, the head that was asked for, or why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import prunepath
from prunepath.checkpoint.source import OpenedModel, fingerprint, open_model
from prunepath.errors import ModelError, RequestError
from tests.checkpoint.models import KINDS


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A BERT with a classification head, in a folder."""
    KINDS["bert-classifier"].build().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A BERT without any head, in a folder."""
    KINDS["bert-classifier"].build().bert.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def edited(folder: Path, **changes: Any) -> Path:
    """The folder with other entries in its config."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def test_a_head_is_kept_where_its_task_is_asked_for(classifier: Path) -> None:
    opened = open_model(classifier, task="text-classification")
    assert type(opened.model).__name__ == "BertForSequenceClassification"
    assert not opened.model.training
    assert opened.model_id == str(classifier)


def test_the_body_alone_where_embeddings_are_asked_for(classifier: Path) -> None:
    opened = open_model(classifier, task="sentence-embedding")
    assert type(opened.model).__name__ == "BertModel"
    assert opened.task.name == "sentence-embedding"


def test_a_head_without_weights_is_refused(encoder: Path) -> None:
    message = (
        "holds a BertModel without 2 of the weights of a BertForSequenceClassification, among them "
        "'classifier.bias'; ask for the task it was trained for"
    )
    with pytest.raises(ModelError, match=message):
        open_model(encoder, task="text-classification")


def test_an_encoder_without_pooler_is_the_same_every_time(tmp_path: Path) -> None:
    model = KINDS["bert-classifier"].build().bert
    model.pooler = None
    model.save_pretrained(tmp_path)
    first, second = (open_model(tmp_path) for _ in range(2))
    assert first.task.name == "sentence-embedding"
    assert fingerprint(first.model) == fingerprint(second.model)


def test_a_task_that_the_type_has_no_class_for(classifier: Path) -> None:
    message = (
        "is a 'bert' model, of which transformers .* has no class for the task "
        "'image-classification' .looked in AutoModelForImageClassification.; name another task"
    )
    with pytest.raises(ModelError, match=message):
        open_model(classifier, task="image-classification")


def test_a_class_that_tells_no_task(encoder: Path) -> None:
    edited(encoder, architectures=["BertForPreTraining"])
    with pytest.raises(ModelError, match="cannot tell the task .* 'BertForPreTraining'; name the"):
        open_model(encoder)
    assert type(open_model(encoder, task="sentence-embedding").model).__name__ == "BertModel"


def test_load_needs_no_task(tmp_path: Path) -> None:
    model = KINDS["vit"].build().vit
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot tell the task"):
        open_model(tmp_path)
    assert type(prunepath.load(tmp_path)) is type(model)


def test_weights_that_do_not_fit(classifier: Path) -> None:
    edited(classifier, hidden_size=32)
    with pytest.raises(ModelError, match=r"cannot load '.*model': .* Check the name, or pass a"):
        open_model(classifier)


def test_a_type_transformers_does_not_know(classifier: Path) -> None:
    edited(classifier, model_type="nonsense")
    with pytest.raises(ModelError, match="cannot load '.*model': .*nonsense"):
        open_model(classifier)


def test_a_cut_model_of_an_unknown_type(classifier: Path) -> None:
    edited(classifier, model_type="prunepath", prunepath={"base_model_type": "nonsense"})
    message = "this cut model says it comes from a 'nonsense' model, which this transformers does"
    with pytest.raises(ModelError, match=message):
        prunepath.load(classifier)


def test_a_gguf_file_for_another_task(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    message = "is a GGUF file, which is read as a 'causal-lm' model, and the task 'masked-lm' was"
    with pytest.raises(ModelError, match=message):
        open_model(tmp_path / "model.gguf", task="masked-lm")


def test_places_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(
        ModelError, match=r"there is no model folder '.*/modle'; did you mean '.*l'"
    ):
        open_model(tmp_path / "modle")
    with pytest.raises(ModelError, match=r"the folder '.*' has no config.json, so it is not a"):
        open_model(tmp_path / "model")
    (tmp_path / "model" / "tiny.gguf").touch()
    with pytest.raises(ModelError, match=r"it holds tiny.gguf, pass that file"):
        open_model(tmp_path / "model")


@pytest.mark.parametrize("kind", KINDS)
def test_model_objects_are_taken_as_they_are(kind: str) -> None:
    model = KINDS[kind].build()
    opened = open_model(model.train())
    assert isinstance(opened, OpenedModel)
    assert opened.model is model
    assert not model.training
    assert opened.task.name == KINDS[kind].task
    assert opened.model_id == type(model).__name__
    assert (opened.tokenizer, opened.processor, opened.image_settings) == (None, None, None)


def test_what_is_no_model() -> None:
    with pytest.raises(ModelError, match="the model is a Linear, which has no config; pass a"):
        open_model(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_types(classifier: Path, dtype: Any) -> None:
    assert open_model(classifier, dtype=dtype).model.dtype == torch.bfloat16
    assert prunepath.load(classifier, dtype=dtype).dtype == torch.bfloat16


def test_unknown_types_and_devices(classifier: Path) -> None:
    with pytest.raises(RequestError, match="unknown dtype 'float33'; use auto, float32"):
        open_model(classifier, dtype="float33")
    with pytest.raises(RequestError, match="cannot use the device 'nowhere'"):
        open_model(classifier, device="nowhere")
