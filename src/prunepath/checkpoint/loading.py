"""Load a model with the class it was saved from, whichever that is.

The class is the one `config.json` names: an encoder with a classification head stays one. Where
another task is asked for, its Auto class builds the head, and a head without weights is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunepath.checkpoint.locate import Located, unreadable
from prunepath.errors import MissingExtraError, ModelError, PrunepathError
from prunepath.tasks.infer import architectures_of, infer_task, suits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunepath.tasks.task import Task

__all__ = ["load_located"]

_POOLER = "pooler"


def load_located(located: Located, *, task: Task | None = None, dtype: Any = "auto") -> Any:
    """Load the weights.

    Args:
        located: what `locate` found.
        task: what the model is to answer; None: whatever its class answers.
        dtype: `"auto"` keeps the stored type; GGUF files are read as float32.

    Returns:
        The model.

    Raises:
        ModelError: it cannot be read, or has no weights for the task's head.
        MissingExtraError: a GGUF file without the `gguf` package.
    """
    options = dict(located.options)
    if located.config is not None:
        options["config"] = located.config
    elif dtype == "auto":
        dtype = "float32"
    loader = _loader(located, task)
    try:
        model, info = loader.from_pretrained(
            located.where, dtype=dtype, output_loading_info=True, **options
        )
    except PrunepathError:
        raise
    except ImportError as error:
        if "gguf" in str(error).lower():
            raise MissingExtraError(
                f"reading '{located.source}' needs the gguf package; pip install 'prunepath[gguf]'"
            ) from None
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise unreadable(located.source, error) from None
    _settle_missing_(model, info["missing_keys"], located)
    _clear_quantization_marks_(model)
    return model


def _loader(located: Located, task: Task | None) -> Any:
    """The class whose `from_pretrained` is to be called."""
    import transformers

    config = located.config
    if config is None:
        return transformers.AutoModelForCausalLM
    remote = getattr(config, "auto_map", None) or {}
    trusted = remote if located.options.get("trust_remote_code") else {}
    names = architectures_of(config)
    for name in names if not trusted else ():
        found = getattr(transformers, name, None)
        if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
            continue
        if task is None or suits(task, name, config):
            return _as_cut(found, config)
    wanted = task or infer_task(config)
    for auto_class in wanted.auto_classes:
        loader: Any = getattr(transformers, auto_class, None)
        if loader and (auto_class in trusted or type(config) in loader._model_mapping):
            return loader
    raise ModelError(
        f"'{located.source}' is a '{config.model_type}' model, of which transformers "
        f"{transformers.__version__} has no class for the task '{wanted.name}' (looked in "
        f"{', '.join(wanted.auto_classes)}); name another task, or trust the model's own code"
    )


def _as_cut(found: type[PreTrainedModel], config: Any) -> type[Any]:
    """The class itself, or the one of models cut from it."""
    if not getattr(config, "prunepath", None):
        return found
    from prunepath.checkpoint.auto import pruned_model_class

    return pruned_model_class(found, type(config))


def _settle_missing_(model: Any, missing: set[str], located: Located) -> None:
    """Refuse a model with weights that no file holds; they would be random."""
    import torch

    parameters = dict(model.named_parameters())
    absent = sorted(name for name in missing if name in parameters)
    needed = [name for name in absent if _POOLER not in name.split(".")]
    if needed:
        names = architectures_of(located.config) if located.config is not None else []
        raise ModelError(
            f"'{located.source}' holds a {names[0] if names else 'model'} without "
            f"{len(needed)} of the weights of a {type(model).__name__}, among them "
            f"'{needed[0]}'; ask for the task it was trained for, or train it first"
        )
    with torch.no_grad():  # an encoder saved without its pooler: no task here reads it, but the
        for name in absent:  # weights' fingerprint must be the same every time
            parameters[name].zero_()


def _clear_quantization_marks_(model: Any) -> None:
    """A dequantized GGUF model still says it is quantized, and would refuse to be saved."""
    method = getattr(getattr(model, "hf_quantizer", None), "quantization_config", None)
    if method is not None and getattr(method, "quant_method", "") != "gguf":
        raise ModelError(
            f"this model is quantized ({getattr(method, 'quant_method', 'unknown')}), and packed "
            "weights cannot be cut; pass the unquantized model and quantize the cut one"
        )
    for owner in (model, model.config):
        for name in ("quantization_config", "quantization_method", "is_quantized", "hf_quantizer"):
            if name in vars(owner):
                delattr(owner, name)
    model.config._name_or_path = ""
