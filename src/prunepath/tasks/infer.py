"""Tell what a model is for from the name of its class, or say why that cannot be told.

Every task declares endings of class names. The longest ending that fits decides, so `CLIPModel`
says more than `Model`. An ending alone can mislead (`LlavaForConditionalGeneration` translates
nothing), so a class that transformers lists must also be listed for one of the task's Auto
classes; and a bare `...Model` answers a task only if it is a text encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from prunepath.errors import ModelError
from prunepath.tasks import TASKS
from prunepath.tasks.task import Task

__all__ = ["architectures_of", "auto_classes_listing", "infer_task", "suits"]

_BARE = "Model"
_PRUNED = "Pruned"


def infer_task(model_or_config: Any, asked: str | None = None) -> Task:
    """The task of a model.

    Args:
        model_or_config: a transformers model, or a config before its model is loaded.
        asked: the task's name, where the user gave it; a config's architecture may then belong
            to another task, whose body the asked one loads, but a model's class may not.

    Returns:
        The task.

    Raises:
        RequestError: there is no task of the asked name.
        ModelError: no task fits the class, or another one than the asked one.
    """
    is_model = not hasattr(model_or_config, "model_type") and hasattr(model_or_config, "config")
    names = architectures_of(model_or_config)
    config = model_or_config.config if is_model else model_or_config
    if asked is not None and not is_model:
        return TASKS[asked]
    found = _best(names, config)
    if asked is None:
        if found is None:
            what = f"'{names[0]}'" if names else "nothing, for its config names no architecture"
            raise ModelError(
                f"cannot tell the task from the model's class, which is {what}; name the task: "
                f"{', '.join(TASKS)}"
            )
        return found
    wanted = TASKS[asked]
    if found is not None and not any(suits(wanted, name, config) for name in names):
        raise ModelError(
            f"the task '{asked}' was asked for and a '{names[0]}' is made for '{found.name}'; "
            "leave the task out, or pass a model with the right head"
        )
    return wanted


def architectures_of(model_or_config: Any) -> list[str]:
    """Names of the classes a model or config is of, the most specific first, as transformers
    knows them (without the prefix of cut models)."""
    names = getattr(model_or_config, "architectures", None)
    if names is None and hasattr(model_or_config, "config"):
        names = [cls.__name__ for cls in type(model_or_config).__mro__ if _is_model_class(cls)]
    return [str(name).removeprefix(_PRUNED) for name in names or ()]


def suits(task: Task, name: str, config: Any) -> bool:
    """Whether a class of that name answers the task."""
    return _ending(task, name, config) > 0


def auto_classes_listing(name: str) -> tuple[str, ...]:
    """Auto classes of transformers that load a class of that name, in transformers' order."""
    return tuple(auto for auto, names in _listed().items() if name in names)


def _is_model_class(cls: type[Any]) -> bool:
    return hasattr(cls, "config_class") and not cls.__name__.endswith("PreTrainedModel")


def _best(names: list[str], config: Any) -> Task | None:
    """The task with the longest ending of any of these names."""
    fits = [
        (_ending(task, name, config), task)
        for task in (TASKS[known] for known in TASKS)
        for name in names
    ]
    length, task = max(fits, key=lambda fit: fit[0], default=(0, None))
    return task if length else None


def _ending(task: Task, name: str, config: Any) -> int:
    """Characters of the class name that speak for the task; 0 where it does not fit."""
    endings = [ending for ending in task.architectures if name.endswith(ending)]
    longest = max(endings, key=len, default="")
    if longest == _BARE:
        return len(_BARE) if _is_text_encoder(name, config) else 0
    listing = auto_classes_listing(name)
    if listing and not set(listing) & set(task.auto_classes):
        return 0
    return len(longest)


def _is_text_encoder(name: str, config: Any) -> bool:
    """Whether a class without a head reads text and writes one vector per token."""
    if name in _listed().get("AutoModelForTextEncoding", ()):
        return True
    model_type = str(getattr(config, "base_model_type", getattr(config, "model_type", "")))
    reads_text = model_type in _types("AutoModelForMaskedLM")
    return (
        reads_text
        and name in _listed()["AutoModel"]
        and not getattr(config, "is_encoder_decoder", False)
    )


@cache
def _listed() -> dict[str, frozenset[str]]:
    """Auto class -> names of the model classes it loads; none of them is imported."""
    return {
        auto: frozenset(name for value in mapping.values() for name in _each(value))
        for auto, mapping in _mappings()
    }


@cache
def _types(auto: str) -> frozenset[str]:
    return frozenset(dict(_mappings()).get(auto, {}))


def _mappings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Auto class -> (model type -> class name or names), as transformers keeps them."""
    from transformers.models.auto import modeling_auto

    for name, cls in vars(modeling_auto).items():
        mapping = getattr(cls, "_model_mapping", None)
        if name.startswith("Auto") and mapping is not None:
            yield name, mapping._model_mapping


def _each(value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
