"""Classes that transformers can load cut models with, made from the model's own classes.

A cut model that its own code cannot rebuild is saved with `model_type: "prunepath"` and the type
it was cut from. Its class is the class it was cut from plus one step: after building the dense
shapes, take the recorded ones. The Auto classes find it because `PrunepathConfig` answers for the
type and registers the real classes when a file is read: with every Auto class that knows the
config the model was cut from.

Only the file says "prunepath". In memory a cut model has the type and the class it was cut from,
plus ours in front, because transformers asks for both: Whisper generates by its type, experts are
merged by it when weights are read.
"""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from prunepath.errors import ModelError
from prunepath.structure.discover import read_places
from prunepath.structure.families.portable import family_from_dict
from prunepath.surgery.experts import unfuse_experts_
from prunepath.surgery.reshape import reshape_

__all__ = [
    "MODEL_TYPE",
    "PrunepathConfig",
    "pruned_config_class",
    "pruned_model_class",
    "register_auto_classes",
    "take_pruned_class_",
]

MODEL_TYPE = "prunepath"

_CONFIGS: dict[type[Any], type[Any]] = {}
_MODELS: dict[tuple[type[Any], type[Any]], type[Any]] = {}


class PrunepathConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Stands for every cut model in transformers' registry; never instantiated itself."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The config of the class the model was cut from, able to hold the record."""
        base_type = (config_dict.get(MODEL_TYPE) or {}).get("base_model_type", "")
        if base_type not in CONFIG_MAPPING:
            raise ModelError(
                f"this cut model says it comes from a '{base_type}' model, which this transformers "
                "does not know; upgrade transformers"
            )
        return pruned_config_class(CONFIG_MAPPING[base_type]).from_dict(config_dict, **kwargs)


class _Cut:
    """What a cut model's config does differently: its file names our type."""

    def to_dict(self) -> dict[str, Any]:
        written: dict[str, Any] = super().to_dict()  # type: ignore[misc]
        return {**written, "model_type": MODEL_TYPE}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        own = {name: value for name, value in config_dict.items() if name != "model_type"}
        return super().from_dict(own, **kwargs)  # type: ignore[misc]


def pruned_config_class(base: type[Any]) -> type[Any]:
    """The config class of models cut from models with that config class.

    Args:
        base: a config class of transformers.

    Returns:
        Its subclass; all Auto classes that know the base know it, too.
    """
    if issubclass(base, _Cut):
        return base
    if base not in _CONFIGS:

        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            base.__init__(self, *args, **kwargs)  # else a dataclass would write one of its own

        fields = {
            "__init__": __init__,
            "base_model_type": base.model_type,
            "__module__": __name__,
            "__doc__": f"`{base.__name__}` of a model that was cut layer by layer.",
        }
        _CONFIGS[base] = type(f"Pruned{base.__name__}", (_Cut, base), fields)
        _register(_CONFIGS[base], base)
    return _CONFIGS[base]


def pruned_model_class(base: type[Any], config_class: type[Any]) -> type[Any]:
    """The class of models cut from models of that class.

    Args:
        base: the class the model was cut from.
        config_class: what `pruned_config_class` made for its config.

    Returns:
        A subclass that builds the recorded sizes.
    """
    if (base, config_class) not in _MODELS:
        _MODELS[base, config_class] = _make_model_class(base, config_class)
    return _MODELS[base, config_class]


def _make_model_class(base: type[Any], config_class: type[Any]) -> type[Any]:
    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        record = getattr(config, MODEL_TYPE, None)
        config.prunepath = None  # a part that is built from the same config is dense as well
        try:
            base.__init__(self, config, *args, **kwargs)
            if record and type(self).__name__ not in (config.architectures or ()):
                record = _seen_from(self, record)
        finally:
            config.prunepath = record
        if record:
            reshape_(self, config, record)

    def as_base(name: str) -> Any:  # transformers reads these off the source file of the class
        return classmethod(lambda cls: getattr(base, name)())

    name = f"Pruned{base.__name__}"
    conversions = get_checkpoint_conversion_mapping(base.__name__)  # type: ignore[no-untyped-call]
    if conversions is not None:  # how weights are renamed and merged goes by the class's name
        register_checkpoint_conversion_mapping(name, conversions, overwrite=True)
    asked_of_source = (
        "is_custom_code",
        "_can_set_attn_implementation",
        "_can_set_experts_implementation",
    )
    fields = {
        "__init__": __init__,
        "config_class": config_class,
        "__module__": __name__,
        "__doc__": f"`{base.__name__}` with the sizes a cut left in every layer.",
        **{method: as_base(method) for method in asked_of_source if hasattr(base, method)},
    }
    return type(name, (base,), fields)


def _seen_from(model: PreTrainedModel, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a cut model as one with another head has it: under other paths, or without
    the parts that it lacks. The model is still dense."""
    prefix = f"{model.base_model_prefix}."
    unfuse_experts_(model, record["places"])
    known = read_places(model, [family_from_dict(table) for table in record.get("tables", ())])
    places = {
        here: entry
        for path, entry in record["places"].items()
        for here in (path, path.removeprefix(prefix), f"{prefix}{path}")
        if here in known
    }
    seen = {**record, "places": places}
    if record.get("tokens"):
        stack = record["tokens"]["stack"]
        paths = (stack, stack.removeprefix(prefix), f"{prefix}{stack}")
        here = next((path for path in paths if _is_there(model, path)), stack)
        seen["tokens"] = {**record["tokens"], "stack": here}
    return seen


def _is_there(model: PreTrainedModel, path: str) -> bool:
    return any(name == path for name, _ in model.named_modules())


def _register(config_class: type[Any], base: type[Any]) -> None:
    """Tell every Auto class that knows the base config which classes go with ours."""
    for auto in vars(modeling_auto).values():
        mapping = getattr(auto, "_model_mapping", None)
        if mapping is None or base not in mapping:
            continue
        known = mapping[base]
        classes = known if isinstance(known, tuple | list) else (known,)
        pruned = tuple(
            pruned_model_class(cls, config_class)
            for cls in classes
            if isinstance(cls, type) and issubclass(cls, PreTrainedModel)
        )
        if pruned:
            mapping.register(config_class, pruned if len(pruned) > 1 else pruned[0], exist_ok=True)


def register_auto_classes() -> None:
    """Make the Auto classes read cut models; safe to call again."""
    AutoConfig.register(MODEL_TYPE, PrunepathConfig, exist_ok=True)


def take_pruned_class_(model: PreTrainedModel) -> None:
    """Give a model that was cut in memory the class it will have when it is loaded."""
    config: Any = model.config
    if not getattr(config, MODEL_TYPE, None) or isinstance(config, _Cut):
        return
    config_class = pruned_config_class(type(config))
    config.__class__ = config_class
    model.__class__ = pruned_model_class(type(model), config_class)
    config.architectures = [type(model).__name__]


# Importing this module is registering: transformers' own import may end while this one runs.
register_auto_classes()


def __getattr__(name: str) -> Any:
    """Made classes by their names, so that models that hold them can be pickled."""
    base: Any = getattr(transformers, name.removeprefix("Pruned"), None)
    if name.startswith("Pruned") and isinstance(base, type):
        if issubclass(base, PreTrainedConfig):
            return pruned_config_class(base)
        if issubclass(base, PreTrainedModel):
            config_class: Any = base.config_class
            return pruned_model_class(base, pruned_config_class(config_class))
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
