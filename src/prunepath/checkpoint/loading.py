"""Load a model with the class it was saved from, whichever that is.

The class is the one `config.json` names: an encoder with a classification head stays one. Where
another task is asked for, its Auto class builds the head, and a head without weights is refused.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.checkpoint.companions import HUB_OPTIONS
from prunepath.errors import MissingExtraError, ModelError, PrunepathError
from prunepath.tasks import TASKS
from prunepath.tasks.infer import architectures_of, infer_task, suits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunepath.tasks.task import Task

__all__ = ["Located", "load_located", "locate", "task_of"]

_POOLER = "pooler"


@dataclass(frozen=True, kw_only=True)
class Located:
    """A saved model that was found and is not loaded yet.

    Args:
        source: what the user called it.
        where: what `from_pretrained` wants to hear.
        options: what else it wants to hear.
        config: its config; None for a GGUF file.
    """

    source: str
    where: str
    options: dict[str, Any]
    config: Any


def locate(source: str | Path, **options: Any) -> Located:
    """Find a saved model and read its config.

    Args:
        source: Hub id, folder or `.gguf` file.
        options: of `from_pretrained`.

    Raises:
        ModelError: there is none, or its config cannot be read.
    """
    where, more = _where(source)
    if "gguf_file" in more:
        return Located(source=str(source), where=where, options={**options, **more}, config=None)
    from transformers import AutoConfig

    from prunepath.checkpoint.auto import register_auto_classes

    register_auto_classes()
    hub = {name: value for name, value in options.items() if name in HUB_OPTIONS}
    trust = {name: value for name, value in options.items() if name == "trust_remote_code"}
    rest = {name: value for name, value in options.items() if name not in {*hub, *trust}}
    try:
        config, unused = AutoConfig.from_pretrained(
            where, return_unused_kwargs=True, **hub, **trust, **rest
        )
    except PrunepathError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _unreadable(source, error) from None
    return Located(
        source=str(source), where=where, options={**hub, **trust, **unused}, config=config
    )


def task_of(located: Located, asked: str | None) -> Task:
    """What the model is for.

    Raises:
        RequestError: there is no task of the asked name.
        ModelError: it cannot be told, or is not what was asked for.
    """
    if located.config is not None:
        return infer_task(located.config, asked)
    task = TASKS[asked or "causal-lm"]
    if task.name != "causal-lm":
        raise ModelError(
            f"'{located.source}' is a GGUF file, which is read as a 'causal-lm' model, and the "
            f"task '{asked}' was asked for; leave the task out, or pass a folder"
        )
    return task


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
        raise _unreadable(located.source, error) from None
    _settle_missing_(model, info["missing_keys"], located)
    _clear_quantization_marks_(model)
    return model


def _unreadable(source: str | Path, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(
        f"cannot load '{source}': {reason} Check the name, or pass a folder with config.json and "
        "safetensors, or a GGUF file"
    )


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


def _where(source: str | Path) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` wants to hear."""
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"there is no GGUF file '{source}'{_nearest(path)}")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if not (path / "config.json").is_file():
            ggufs = sorted(item.name for item in path.glob("*.gguf"))
            hint = f"; it holds {ggufs[0]}, pass that file" if ggufs else ""
            raise ModelError(
                f"the folder '{source}' has no config.json, so it is not a saved model{hint}"
            )
        return str(path), {}
    text = str(source)
    if path.exists() or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise ModelError(f"there is no model folder '{source}'{_nearest(path)}")
    return text, {}


def _nearest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder '{folder}' does not exist either"
    close = difflib.get_close_matches(path.name, [item.name for item in folder.iterdir()], n=1)
    return f"; did you mean '{folder / close[0]}'?" if close else f" in '{folder}'; check the name"


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
