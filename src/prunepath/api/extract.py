"""The verb `extract`: a path and a budget in, a smaller model on disk out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.allocation.budget import Budget
    from prunepath.api.workshop import Extraction
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress

__all__ = ["as_budget", "extract"]


def as_budget(
    *,
    params: str | None = None,
    macs: str | None = None,
    memory: str | None = None,
    latency: str | None = None,
    ratio: float | None = None,
) -> Budget:
    """The one budget that was given.

    Raises:
        RequestError: none or several were given.
        BudgetError: it is malformed.
    """
    from prunepath.allocation.budget import Budget

    given = {"params": params, "macs": macs, "memory": memory, "latency": latency}
    named = {name: text for name, text in given.items() if text is not None}
    if len(named) + (ratio is not None) != 1:
        asked = ", ".join([*named, *(["ratio"] if ratio is not None else [])]) or "none"
        raise RequestError(
            f"exactly one budget is needed and {asked} was given; use one of --params 70%, "
            "--macs 60%, --memory 200MB, --latency 12ms or --ratio 0.3"
        )
    if ratio is not None:
        return Budget.from_ratio(ratio)
    ((name, text),) = named.items()
    return Budget.parse(name, text)


def extract(
    path: str | Path | SolutionPath,
    *,
    output: str | Path | None = None,
    budget: Budget | None = None,
    params: str | None = None,
    macs: str | None = None,
    memory: str | None = None,
    latency: str | None = None,
    ratio: float | None = None,
    layout: str = "per-layer",
    kinds: Sequence[str] = (),
    multiple: int = 8,
    floor: int | str = 8,
    sequence_length: int | None = None,
    refit: str = "sequential",
    bias: bool = False,
    model: Any = None,
    tokenizer: Any = None,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **hub: Any,
) -> Extraction:
    """Cut the largest model at or under a budget, repair it, write it and check that it loads.

    Args:
        path: a solution path, its folder or its Hub id.
        output: folder for the model; None keeps it in memory.
        budget: a `Budget`; or exactly one of the next five.
        params, macs, memory, latency: `"70%"` of the dense model kept, or an absolute size.
        ratio: fraction of the block parameters to remove.
        layout: `"per-layer"` (best quality) or `"uniform"` (loads everywhere).
        kinds: unit kinds that may be cut; empty takes the layout's default.
        multiple: widths end as multiples of this.
        floor: smallest width any group keeps, or a part of each group's own, `"10%"`.
        sequence_length: tokens that MACs, memory and latency are stated for, by default 512;
            nothing changes with it where samples are of one size, as images are.
        refit: `"sequential"`, `"moments"` (one-shot), `"bias"` (biases alone move) or `"none"`.
        bias: let `"moments"` move biases, too.
        model: the dense model; by default the one the path names.
        tokenizer, dtype, device, trust_remote_code, hub: how to load it.
        overwrite: replace a folder that is not empty.
        progress: who listens.

    Returns:
        The model with what was reached, repaired and checked.

    Raises:
        PrunepathError: one sentence on what was asked, what was found and what to do.

    Example:
        >>> import prunepath
        >>> made = prunepath.extract("path", params="70%", output="small")  # doctest: +SKIP
        >>> print(made.allocation)  # doctest: +SKIP
    """
    from prunepath.api.workshop import REFITS, Workshop
    from prunepath.files import refuse_used, require_space

    if refit not in REFITS:
        raise RequestError(f"unknown refit '{refit}'; use one of {', '.join(REFITS)}")
    if bias and refit not in ("moments", "bias"):
        raise RequestError(f"biases are fitted from moments, and refit is '{refit}'; use 'moments'")
    wish = budget or as_budget(
        params=params, macs=macs, memory=memory, latency=latency, ratio=ratio
    )
    if output is not None:
        refuse_used(output, overwrite=overwrite)
    shop = Workshop(
        path,
        layout=layout,
        kinds=kinds,
        multiple=multiple,
        floor=floor,
        sequence_length=sequence_length,
        refit=refit,
        bias=bias,
        progress=progress,
    )
    if wish.metric != "latency":  # refuse an impossible wish before the model is loaded
        allocation = shop.allocate(wish)
        if output is not None:
            require_space(output, allocation.cost.weight_bytes)
    shop.open(
        model,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        **hub,
    )
    return shop.make(wish, output, overwrite=overwrite)
