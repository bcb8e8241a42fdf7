"""Classes that transformers can load cut models with, made from the family's own classes.

A cut model that the family's own code cannot rebuild is saved with `model_type: "prunepath"` and
the type it was cut from. Its class is the family's class plus one step: after building the dense
shapes, take the recorded ones. The Auto classes find it because `PrunepathConfig` answers for the
type and registers the real pair of classes when a file is read.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from prunepath.errors import ModelError
from prunepath.surgery.reshape import reshape_

__all__ = ["MODEL_TYPE", "PrunepathConfig", "register_auto_classes", "take_pruned_class_"]

MODEL_TYPE = "prunepath"


class PrunepathConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Stands for every cut model in transformers' registry; never instantiated itself."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The config of the family the model was cut from, able to hold the record."""
        base_type = (config_dict.get(MODEL_TYPE) or {}).get("base_model_type", "")
        if base_type not in CONFIG_MAPPING:
            raise ModelError(
                f"this cut model says it comes from a '{base_type}' model, which this transformers "
                "does not know; upgrade transformers"
            )
        return _config_class(CONFIG_MAPPING[base_type]).from_dict(config_dict, **kwargs)


_MADE: dict[type[Any], type[Any]] = {}


def _config_class(base: type[Any]) -> type[Any]:
    """The base config with our model type; registers the model class that goes with it."""
    if base in _MADE:
        return _MADE[base]
    fields = {
        "model_type": MODEL_TYPE,
        "base_model_type": base.model_type,
        "__module__": __name__,
        "__doc__": f"`{base.__name__}` of a model that was cut layer by layer.",
    }
    config_class = type(f"Pruned{base.__name__}", (base,), fields)
    model_class: Any = AutoModelForCausalLM._model_mapping[base]
    AutoModelForCausalLM.register(config_class, _model_class(model_class, config_class))
    _MADE[base] = config_class
    return config_class


def _model_class(base: type[Any], config_class: type[Any]) -> type[Any]:
    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, config, *args, **kwargs)
        reshape_(self, config, config.prunepath)

    fields = {
        "__init__": __init__,
        "config_class": config_class,
        "__module__": __name__,
        "__doc__": f"`{base.__name__}` with the sizes a cut left in every layer.",
    }
    return type(f"Pruned{base.__name__}", (base,), fields)


def register_auto_classes() -> None:
    """Make the Auto classes read cut models; safe to call again."""
    AutoConfig.register(MODEL_TYPE, PrunepathConfig, exist_ok=True)


def take_pruned_class_(model: PreTrainedModel) -> None:
    """Give a model that was cut in memory the class it will have when it is loaded."""
    config: Any = model.config
    if not getattr(config, "prunepath", None) or config.model_type == MODEL_TYPE:
        return
    base_config, base_model = type(config), type(model)
    config_class = _config_class(base_config)
    config.__class__ = config_class
    registered: Any = AutoModelForCausalLM._model_mapping[config_class]
    model.__class__ = (
        registered if issubclass(registered, base_model) else _model_class(base_model, config_class)
    )
    config.architectures = [type(model).__name__]
