"""Open what the user calls a model: a Hub id, a folder, a GGUF file, or a model object."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.checkpoint.companions import given_companions, read_companions
from prunepath.checkpoint.loading import load_located
from prunepath.checkpoint.locate import locate, task_of
from prunepath.errors import ModelError, NumericsError, RequestError
from prunepath.surgery.experts import fuse_experts_
from prunepath.tasks.infer import infer_task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from prunepath.tasks.task import Task

__all__ = ["OpenedModel", "check_placement", "fingerprint", "open_model"]


@dataclass(frozen=True, kw_only=True)
class OpenedModel:
    """A model with what belongs to it.

    Args:
        model: in evaluation mode.
        tokenizer: None where the source has none.
        processor: feature extractor of a model that listens; None for all others.
        image_settings: what `preprocessor_config.json` says about images; None where it is not.
        task: what the model is for.
        model_id: what the user called it; the class name for a model object.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    processor: Any
    image_settings: dict[str, Any] | None
    task: Task
    model_id: str


def open_model(
    source: str | Path | Any,
    *,
    task: str | None = None,
    tokenizer: Any = None,
    dtype: Any = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    **hub: Any,
) -> OpenedModel:
    """Load a model and what prepares its inputs.

    Args:
        source: Hub id, folder, `.gguf` file, or a model object (taken as it is).
        task: name of the task it is opened for; by default its class tells.
        tokenizer: a tokenizer, processor, image processor or feature extractor, or where to find
            one; by default beside the model; False opens no tokenizer.
        dtype: `"auto"` keeps the stored type; GGUF files are read as float32.
        device: where to put the model; by default where it is.
        trust_remote_code: run code that comes with the model.
        hub: passed on (revision, token, cache_dir).

    Returns:
        The opened model, in evaluation mode.

    Raises:
        ModelError: not found, not readable, or made for another task.
        RequestError: an unknown task, type or device.
        MissingExtraError: a GGUF file without the `gguf` package.
    """
    check_placement(dtype, device)
    if not isinstance(source, str | Path):
        if not hasattr(source, "config"):
            raise ModelError(
                f"the model is a {type(source).__name__}, which has no config; pass a transformers "
                "model, a folder, a GGUF file or a Hub id"
            )
        model, found_task = source, infer_task(source, task)
        fuse_experts_(model)  # an earlier search may have taken them apart
        model_id = str(getattr(source.config, "_name_or_path", "") or type(source).__name__)
        found = given_companions(tokenizer, model, trust_remote_code=trust_remote_code, **hub)
    else:
        located = locate(source, trust_remote_code=trust_remote_code, **hub)
        found_task, model_id = task_of(located, task), str(source)
        model = load_located(located, task=found_task, dtype=dtype)
        found = read_companions(located.where, model, tokenizer=tokenizer, **located.options)
    return OpenedModel(
        model=_placed(model, device),
        tokenizer=found.tokenizer,
        processor=found.processor,
        image_settings=found.image_settings,
        task=found_task,
        model_id=model_id,
    )


def check_placement(dtype: Any, device: str | None) -> None:
    """Refuse a type or device that is not there before anything is loaded.

    Raises:
        RequestError: naming what there is.
    """
    import torch

    known = isinstance(dtype, torch.dtype) or dtype == "auto"
    if not known and not isinstance(getattr(torch, str(dtype), None), torch.dtype):
        raise RequestError(f"unknown dtype '{dtype}'; use auto, float32, bfloat16 or float16")
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise RequestError(
            f"cannot use the device '{device}' ({reason}); use cpu, or a device this machine has"
        ) from None


def _placed(model: PreTrainedModel, device: str | None) -> PreTrainedModel:
    if device is not None:
        model.to(device)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]
    return model


def fingerprint(model: nn.Module) -> str:
    """sha256 over names, shapes and bytes of all weights; also refuses NaN and infinity.

    Raises:
        NumericsError: naming the first weight that is not finite.
    """
    import torch

    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        tensor = parameter.detach().cpu().contiguous()
        if not torch.isfinite(tensor).all():
            raise NumericsError(
                f"the weight '{name}' holds NaN or infinity, so no score computed from it means "
                "anything; repair or re-download the model"
            )
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()
