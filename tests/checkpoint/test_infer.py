"""What a model is for is read off its class, and what cannot be told is said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import transformers

from prunepath.errors import ModelError, RequestError
from prunepath.tasks import TASKS
from prunepath.tasks.infer import architectures_of, auto_classes_listing, infer_task
from tests.checkpoint.models import KINDS

CLASSES = {
    "causal-lm": ["LlamaForCausalLM", "GPT2LMHeadModel", "OPTForCausalLM", "MixtralForCausalLM"],
    "image-classification": [
        "ViTForImageClassification",
        "DeiTForImageClassification",
        "DeiTForImageClassificationWithTeacher",
        "SwinForImageClassification",
        "Dinov2ForImageClassification",
    ],
    "image-text": ["CLIPModel", "SiglipModel", "BlipForImageTextRetrieval"],
    "segmentation": [
        "Mask2FormerForUniversalSegmentation",
        "MaskFormerForInstanceSegmentation",
        "SegformerForSemanticSegmentation",
    ],
    "text-classification": ["BertForSequenceClassification", "LlamaForSequenceClassification"],
    "sentence-embedding": ["BertModel", "MPNetModel", "RobertaModel", "ModernBertModel"],
    "masked-lm": ["BertForMaskedLM", "AlbertForMaskedLM", "DebertaV2ForMaskedLM"],
    "seq2seq-lm": [
        "T5ForConditionalGeneration",
        "BartForConditionalGeneration",
        "MT5ForConditionalGeneration",
    ],
    "speech": ["WhisperForConditionalGeneration"],
}
NEITHER = [
    "ViTModel",  # sees, but answers nothing
    "LlamaModel",
    "BartModel",
    "WhisperModel",
    "LlavaForConditionalGeneration",  # an ending that misleads
    "BlipForConditionalGeneration",
    "BertForPreTraining",
    "ViTForMaskedImageModeling",
]


def config_of(name: str) -> Any:
    """What the config of a class says about it, without building one."""
    cls: Any = getattr(transformers, name)
    return SimpleNamespace(
        architectures=[name],
        model_type=cls.config_class.model_type,
        is_encoder_decoder=name.startswith(("Bart", "Whisper", "T5", "MT5")),
    )


@pytest.mark.parametrize(
    ("task", "name"), [(task, name) for task, names in CLASSES.items() for name in names]
)
def test_classes_tell_their_task(task: str, name: str) -> None:
    config = config_of(name)
    assert infer_task(config).name == task
    config.architectures = [f"Pruned{name}"]
    assert infer_task(config).name == task


def test_every_task_is_told_by_some_class() -> None:
    assert set(CLASSES) == set(TASKS) - {"speech-tokens"}  # the same classes, when asked for
    assert all(TASKS[name].name == name for name in TASKS)


@pytest.mark.parametrize("name", NEITHER)
def test_classes_that_tell_no_task_are_named(name: str) -> None:
    message = f"cannot tell the task from the model's class, which is '{name}'; name the task: "
    with pytest.raises(ModelError, match=f"{message}causal-lm, image-classification"):
        infer_task(config_of(name))


def test_a_config_without_a_class_says_so() -> None:
    with pytest.raises(ModelError, match="which is nothing, for its config names no architecture"):
        infer_task(SimpleNamespace(architectures=None, model_type="llama"))


@pytest.mark.parametrize("kind", KINDS)
def test_models_tell_their_task(kind: str) -> None:
    model = KINDS[kind].build()
    assert infer_task(model).name == KINDS[kind].task
    assert infer_task(model, KINDS[kind].task).name == KINDS[kind].task


def test_a_subclass_of_the_user_is_what_it_derives_from() -> None:
    model = KINDS["bert-classifier"].build()
    model.__class__ = type("OurModel", (type(model),), {})
    assert architectures_of(model)[0] == "OurModel"
    assert infer_task(model).name == "text-classification"


def test_a_model_for_another_task_is_refused() -> None:
    message = (
        "the task 'masked-lm' was asked for and a 'LlamaForCausalLM' is made for 'causal-lm'; "
        "leave the task out"
    )
    with pytest.raises(ModelError, match=message):
        infer_task(KINDS["llama"].build(), "masked-lm")


def test_a_config_may_be_opened_for_another_task() -> None:
    assert infer_task(config_of("BertModel"), "masked-lm").name == "masked-lm"


def test_unknown_task() -> None:
    with pytest.raises(RequestError, match="unknown task 'speach'; did you mean 'speech'"):
        infer_task(config_of("BertModel"), "speach")


def test_remote_classes_go_by_their_ending() -> None:
    config = SimpleNamespace(architectures=["TheirForCausalLM"], model_type="theirs")
    assert infer_task(config).name == "causal-lm"


def test_auto_classes_of_a_class() -> None:
    assert "AutoModelForSeq2SeqLM" in auto_classes_listing("T5ForConditionalGeneration")
    assert auto_classes_listing("NobodyKnows") == ()
