"""The verb `evaluate`: perplexity at a stated window, and tokens per second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunepath.errors import DataError

if TYPE_CHECKING:
    from prunepath.evaluation.perplexity import Perplexity
    from prunepath.evaluation.speed import Speed
    from prunepath.progress import Progress
    from prunepath.structure.cost import Cost

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured.

    Args:
        source: the model.
        data: description of the text.
        perplexity: over all windows.
        speed: prefill and decode speed; None when not asked for.
        cost: parameters, MACs, bytes; None for a family no table covers.
    """

    source: str
    data: str
    perplexity: Perplexity
    speed: Speed | None
    cost: Cost | None


def evaluate(
    model: Any,
    *,
    data: Any = None,
    windows: int = 24,
    window: int = 512,
    text_field: str = "text",
    split: str | None = None,
    speed: bool = True,
    tokenizer: Any = None,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    **hub: Any,
) -> Evaluation:
    """Measure a model, cut or dense.

    Args:
        model: Hub id, folder, GGUF file or model object.
        data: text to predict; by default the part of the packaged text that calibration never
            sees.
        windows: windows of text.
        window: tokens per window; perplexities at different windows are different numbers.
        text_field, split: where the text is in `data`.
        speed: measure tokens per second, too.
        tokenizer, dtype, device, trust_remote_code, hub: how to load the model.
        progress: who listens.

    Returns:
        Perplexity, speed and cost.

    Raises:
        PrunepathError: one sentence on what was asked, what was found and what to do.

    Example:
        >>> import prunepath
        >>> prunepath.evaluate("small", windows=4).perplexity.value  # doctest: +SKIP
    """
    from prunepath.checkpoint.source import open_model
    from prunepath.data.windows import token_windows
    from prunepath.evaluation.perplexity import perplexity
    from prunepath.evaluation.speed import measure_speed

    opened = open_model(
        model,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        **hub,
    )
    if opened.tokenizer is None:
        raise DataError(
            f"'{opened.model_id}' has no tokenizer beside it, and text is to be predicted; pass "
            "one with --tokenizer (tokenizer=...)"
        )
    text = token_windows(
        data,
        opened.tokenizer,
        window=window,
        count=windows,
        field=text_field,
        split="evaluation" if data is None and split is None else split,
    )
    return Evaluation(
        source=opened.model_id,
        data=text.description,
        perplexity=perplexity(opened.model, text, progress=progress),
        speed=measure_speed(opened.model, sequence_length=window) if speed else None,
        cost=_cost(opened.model, window),
    )


def _cost(model: Any, sequence_length: int) -> Cost | None:
    from prunepath.errors import ModelError
    from prunepath.structure.cost import cost_of
    from prunepath.structure.discover import discover
    from prunepath.structure.selection import everything

    try:
        structure = discover(model)
    except ModelError:  # no table covers it: its text can be predicted all the same
        return None
    return cost_of(structure, everything(structure), sequence_length)
