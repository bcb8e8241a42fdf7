"""Open what the user calls a model: a Hub id, a folder, a GGUF file, or a model object."""

from __future__ import annotations

import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import MissingExtraError, ModelError, NumericsError, RequestError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["OpenedModel", "fingerprint", "open_model"]


@dataclass(frozen=True)
class OpenedModel:
    """A model with what belongs to it.

    Args:
        model: in evaluation mode.
        tokenizer: None where the source has none.
        model_id: what the user called it; the class name for a model object.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    model_id: str


def open_model(
    source: str | Path | Any,
    *,
    tokenizer: Any = None,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    **hub: Any,
) -> OpenedModel:
    """Load a model and its tokenizer.

    Args:
        source: Hub id, folder, `.gguf` file, or a model object (taken as it is).
        tokenizer: a tokenizer object, or where to find one; by default beside the model; False
            opens none.
        dtype: `"auto"` keeps the stored type; GGUF files are read as float32.
        device: where to put the model; by default where it is.
        trust_remote_code: run code that comes with the model.
        hub: passed on (revision, token, cache_dir).

    Returns:
        The opened model, in evaluation mode.

    Raises:
        ModelError: not found, not readable, or not a causal language model.
        MissingExtraError: a GGUF file without the `gguf` package.
    """
    _check_placement(dtype, device)
    if not isinstance(source, str | Path):
        if not hasattr(source, "config"):
            raise ModelError(
                f"the model is a {type(source).__name__}, which has no config; pass a transformers "
                "model, a folder, a GGUF file or a Hub id"
            )
        name = str(getattr(source.config, "_name_or_path", "") or type(source).__name__)
        found = _tokenizer(tokenizer or None, {}, asked=True)
        return OpenedModel(_placed(source, device), found, name)
    where, options = _where(source)
    options.update(hub, trust_remote_code=trust_remote_code)
    from transformers import AutoModelForCausalLM

    import prunepath.checkpoint.auto as auto

    auto.register_auto_classes()
    wanted = "float32" if "gguf_file" in options and dtype == "auto" else dtype
    try:
        model = AutoModelForCausalLM.from_pretrained(where, dtype=wanted, **options)
    except ImportError as error:
        if "gguf" in str(error).lower():
            raise MissingExtraError(
                f"reading '{source}' needs the gguf package; pip install 'prunepath[gguf]'"
            ) from None
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load '{source}' as a causal language model: {reason} Check the name, or pass "
            "a folder with config.json and safetensors, or a GGUF file"
        ) from None
    _clear_quantization_marks_(model)
    if tokenizer is None:
        found = _tokenizer(where, options)
    else:  # neither the model's file nor its revision lies there
        elsewhere = {k: v for k, v in options.items() if k not in {"gguf_file", "revision"}}
        found = _tokenizer(tokenizer or None, elsewhere, asked=True)
    return OpenedModel(_placed(model, device), found, str(source))


def _check_placement(dtype: str, device: str | None) -> None:
    """Refuse a type or device that is not there before anything is loaded."""
    import torch

    if dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
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


def _tokenizer(
    source: Any, options: dict[str, Any], *, asked: bool = False
) -> PreTrainedTokenizerBase | None:
    if source is None or not isinstance(source, str | Path):
        return source
    from transformers import AutoTokenizer

    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError):
        if asked:
            raise ModelError(
                f"there is no tokenizer at '{source}'; pass a folder or Hub id that has one"
            ) from None
        return None  # a model without a tokenizer is fine until text is needed
    return found


def _placed(model: PreTrainedModel, device: str | None) -> PreTrainedModel:
    if device is not None:
        model.to(device)  # type: ignore[arg-type]
    model.eval()  # type: ignore[no-untyped-call]
    return model


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
